import dataclasses
import errno
import functools
import json
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_process
import pytest

from spare_jax.models import decoder, sharding
from spare_jax.models.config import DecoderConfig
from spare_jax.storage.jsonlines import StoreError
from spare_jax.training import batches, loop, losses, optimizer, setup
from spare_jax.training.batches import Example
from spare_jax.training.checkpoints import Checkpoints

GOOD, BAD, TAG = 5, 7, 9
CONFIG = DecoderConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4
)
TRAIN = setup.TrainConfig(
    batch_rows=4, row_length=24, steps=8, learning_rate=1e-2, eval_every=3, checkpoint_every=3, fetch_every=2, clip=1.0
)
TAG_LOSS = losses.TokenTagLoss(GOOD, BAD)
RESUME_SCRIPT = pathlib.Path(__file__).parent / "killed_training.py"


def examples(count, seed=0, label=None):
    """Steps ending in TAG; a step is right where its first token is even (or labelled `label` throughout)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids, tags, labels = [1], [], []
        for _ in range(rng.integers(1, 5)):
            step = rng.integers(10, 32, 3)
            ids += [*step.tolist(), TAG]
            tags.append(len(ids) - 1)
            labels.append(float(step[0] % 2 == 0) if label is None else label)
        made.append(Example(ids, tags=tags, labels=labels))
    return made


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh(
        (1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )


@pytest.fixture(scope="module")
def model():
    return decoder.init_decoder(CONFIG, jax.random.key(1))


@pytest.fixture
def steps_made(monkeypatch):
    """The jitted train steps that `train` makes."""
    made = []

    def recorded(*args):
        made.append((found := setup.set_up(*args)).train_step)
        return found

    monkeypatch.setattr(loop, "set_up", recorded)
    return made


def train(model, directory, mesh, *, dev=6, progress=None, train_examples=None, dev_examples=None, **changes):
    config = dataclasses.replace(TRAIN, **changes)
    train_examples = examples(30) if train_examples is None else train_examples
    dev_examples = examples(dev, seed=1) if dev_examples is None else dev_examples
    train_rows, dev_rows = (batches.pack(found, config.row_length) for found in (train_examples, dev_examples))
    return loop.train(config, model, TAG_LOSS, train_rows, dev_rows, directory, mesh, progress)


def rows(directory):
    return [json.loads(line) for line in (directory / "steps.jsonl").read_text().splitlines()]


def assert_equal(a, b):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(x, y), jax.tree_util.keystr(path)


def saved_state(directory):
    """All arrays of the latest checkpoint, by path."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((directory / "latest").absolute()) as manager:
        step = manager.latest_step()
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
        return step, {name: np.asarray(array) for name, array in state.items()}


def test_training_learns_and_leaves_the_given_model_alone(model, mesh, tmp_path, steps_made):
    before = jax.tree.map(np.array, model)
    seen = []
    result = train(
        model, tmp_path, mesh, steps=60, learning_rate=3e-2, eval_every=20,
        progress=lambda step, steps, metrics: seen.append((step, steps, metrics)),
    )  # fmt: skip
    assert_equal(model, before)
    losses_seen = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert len(losses_seen) == 60 and losses_seen[0] > 0.6 and np.mean(losses_seen[-5:]) < 0.3
    assert result.best_loss == min(row["dev_loss"] for row in rows(tmp_path) if "dev_loss" in row)
    assert result.train_counts.tags == sum(len(e.tags) for e in examples(30))
    assert seen[-1][:2] == (60, 60) and any(metrics.get("tokens_per_second", 0) > 0 for _, _, metrics in seen)
    assert [step._cache_size() for step in steps_made] == [1]


def test_best_parameters_are_those_of_the_best_dev_loss_and_training_stops_early(model, mesh, tmp_path):
    # Dev labels contradict the training labels: the dev loss only rises, so the first evaluation is the best.
    contrary = examples(6, seed=1, label=0.0)
    result = train(
        model, tmp_path, mesh, steps=40, eval_every=2, patience=3,
        train_examples=examples(30, label=1.0), dev_examples=contrary,
    )  # fmt: skip
    assert (result.stopped_early, result.steps, result.best_step) == (True, 8, 2)
    packed = batches.pack(contrary, TRAIN.row_length)
    batch = batches.take(packed, np.arange(packed.rows))
    total = jax.jit(TAG_LOSS.sums)(result.model, batch) / TAG_LOSS.counts(batch)
    np.testing.assert_allclose(total, [result.best_loss], rtol=1e-5)

    # A finished run is not trained again.
    again = train(
        model, tmp_path, mesh, steps=40, eval_every=2, patience=3,
        train_examples=examples(30, label=1.0), dev_examples=contrary,
    )  # fmt: skip
    assert dataclasses.replace(again, model=None, tokens_per_second=None) == dataclasses.replace(
        result, model=None, tokens_per_second=None
    )
    assert_equal(again.model, result.model)


def test_without_a_dev_set_the_last_parameters_are_returned(model, mesh, tmp_path):
    result = train(model, tmp_path, mesh, dev_examples=[])
    _, state = saved_state(tmp_path)
    assert (result.best_loss, result.best_step, result.stopped_early) == (None, 8, False)
    (embed,) = [array for name, array in state.items() if name.startswith("0.embed")]
    assert np.array_equal(embed, result.model.embed[...])


def test_microbatches_do_not_change_the_step(model, mesh, tmp_path):
    # Rows hold one to four steps, so microbatches differ in what they supervise: means of means would differ.
    whole = train(model, tmp_path / "a", mesh, dev=0, dev_examples=[], steps=3, row_length=17)
    parts = train(model, tmp_path / "b", mesh, dev=0, dev_examples=[], steps=3, row_length=17, accumulate=4)
    for a, b in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert a["supervised"] == b["supervised"]
        np.testing.assert_allclose([a["loss"], a["grad_norm"]], [b["loss"], b["grad_norm"]], rtol=1e-6)
    # Adam divides by the square root of tiny second moments: parameters agree less closely than gradients.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole.model, parts.model)


def test_noise_of_a_loss_follows_from_step_and_microbatch_and_stays_out_of_evaluation(model, mesh, tmp_path):
    # With nothing learnt, every step sees the same rows: what differs between losses is the noise.
    packed = batches.pack([Example([1, 12, 13, 14, 15, 16], [0, 1, 1, 1, 1, 1])] * 16, 6)
    config = dataclasses.replace(TRAIN, row_length=6, steps=4, eval_every=4, learning_rate=0.0, accumulate=2)
    found = {}
    for name, alpha in (("plain", 0.0), ("noisy", 5.0), ("again", 5.0)):
        loop.train(config, model, losses.LanguageModelLoss(alpha), packed, packed, tmp_path / name, mesh)
        found[name] = [row.get("loss", row.get("dev_loss")) for row in rows(tmp_path / name)]
    assert found["again"] == found["noisy"]
    assert found["noisy"][-1] == found["plain"][-1]
    np.testing.assert_allclose(found["plain"], found["plain"][0], rtol=1e-6)
    assert len({round(loss, 5) for loss in [*found["noisy"][:-1], found["plain"][0]]}) == 5


def test_interrupted_and_resumed_equals_unbroken_bit_for_bit(model, mesh, tmp_path, steps_made):
    unbroken = train(model, tmp_path / "unbroken", mesh, patience=100)

    for stop_at in (2, 4, 6, 7):

        def interrupt(step, steps, metrics, stop_at=stop_at):
            if step >= stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(model, tmp_path / "broken", mesh, patience=100, progress=interrupt)
    resumed = train(model, tmp_path / "broken", mesh, patience=100)
    assert_equal(resumed.model, unbroken.model)
    assert (resumed.best_step, resumed.best_loss) == (unbroken.best_step, unbroken.best_loss)
    assert (tmp_path / "broken" / "steps.jsonl").read_bytes() == (tmp_path / "unbroken" / "steps.jsonl").read_bytes()
    (step, state), (other_step, other) = saved_state(tmp_path / "broken"), saved_state(tmp_path / "unbroken")
    assert step == other_step == 8 and state.keys() == other.keys()
    assert any(".mu." in name for name in state)
    for name in state:
        assert np.array_equal(state[name], other[name]), name
    assert {step._cache_size() for step in steps_made} == {1}


def test_what_was_trained_on_other_rows_is_not_gone_on_with(model, mesh, tmp_path):
    """Labels with gaps make other rows than the whole ones, which a run that was interrupted would go on with."""
    fresh = train(model, tmp_path / "fresh", mesh)
    train(model, tmp_path / "other", mesh, train_examples=examples(30, seed=5), steps=4)
    anew = train(model, tmp_path / "other", mesh)
    assert_equal(anew.model, fresh.model)
    assert (tmp_path / "other/steps.jsonl").read_bytes() == (tmp_path / "fresh/steps.jsonl").read_bytes()


def test_killed_and_resumed_equals_unbroken_bit_for_bit(model, mesh, tmp_path):
    unbroken = train(model, tmp_path / "unbroken", mesh, patience=100)
    killed = own_process.run(RESUME_SCRIPT, tmp_path / "killed", 7, "test_training")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    with (tmp_path / "killed" / "steps.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a row that was being written
    resumed = train(model, tmp_path / "killed", mesh, patience=100)
    assert_equal(resumed.model, unbroken.model)
    assert (tmp_path / "killed" / "steps.jsonl").read_bytes() == (tmp_path / "unbroken" / "steps.jsonl").read_bytes()


def test_a_checkpoint_is_of_its_own_step_though_training_goes_on(model, mesh, tmp_path):
    # The step donates what the writer is still saving; were a buffer reused, the file would hold a later step.
    placed = jax.jit(lambda m: jax.tree.map(jnp.copy, m))(jax.device_put(model, sharding.shardings_of(model, mesh)))
    expected = jax.tree.map(np.array, placed)
    advance = jax.jit(lambda m: jax.tree.map(lambda x: x + 1, m), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, placed, {})
        for _ in range(20):
            placed = advance(placed)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(placed), expected)


def test_a_checkpoint_of_another_model_is_an_error(model, mesh, tmp_path):
    train(model, tmp_path, mesh, steps=1, dev_examples=[])
    config = dataclasses.replace(CONFIG, family="qwen2")
    with pytest.raises(ValueError, match=r"is another model's: 0\.blocks\..*bias.* is None there and \[\[2, 8\]"):
        train(decoder.init_decoder(config, jax.random.key(0)), tmp_path, mesh, steps=2, dev_examples=[])
    config = dataclasses.replace(CONFIG, intermediate_size=64)
    with pytest.raises(ValueError, match=r"mlp\..* is \[\[2, 32, 16\], 'float32'\] there and \[\[2, 64, 16\].*remove"):
        train(decoder.init_decoder(config, jax.random.key(0)), tmp_path, mesh, steps=2, dev_examples=[])


TREE = {"a": np.arange(1000, dtype=np.float32), "b": np.ones((3, 4), np.float32), "c": np.int32(3)}


@pytest.fixture(scope="module")
def whole_checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(4, jax.device_put(TREE), {"step": 4, "best_loss": 0.5})
        checkpoints.save_best(4, jax.device_put(TREE))
    return directory


def read_checkpoint(directory):
    like = jax.device_put(TREE)
    with Checkpoints(directory) as checkpoints:
        progress = checkpoints.progress()
        assert progress is not None
        return progress, checkpoints.restore(like), checkpoints.restore_best(4, like)


DAMAGE = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbage": lambda file: file.write_bytes(b"\0\xff garbage"),
    "one byte": lambda file: file.write_bytes(
        (data := file.read_bytes())[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("part", ["latest", "best"])
def test_a_damaged_checkpoint_is_an_error_with_its_remedy_or_does_no_harm(whole_checkpoint, tmp_path, part, kind):
    files = [p.relative_to(whole_checkpoint) for p in (whole_checkpoint / part).rglob("*") if p.is_file()]
    seen = 0
    for i, file in enumerate(sorted(files)):
        directory = tmp_path / str(i)
        shutil.copytree(whole_checkpoint, directory)
        DAMAGE[kind](directory / file)
        try:
            progress, latest, best = read_checkpoint(directory)
        except StoreError as error:
            broken = directory / part / "4"
            assert str(error).startswith(f"checkpoint {broken} cannot be read") and "\n" not in str(error)
            remedy = {"latest": f"delete {broken} to go on", "best": f"delete {directory} to train anew"}[part]
            assert remedy in str(error)
            seen += 1
        else:
            assert progress == {"step": 4, "best_loss": 0.5}
            for tree in (latest, best):
                assert_equal(tree, TREE)
    assert seen >= 4


def test_a_checkpoint_without_its_parts_is_an_error_and_deleting_it_the_remedy(whole_checkpoint, tmp_path):
    shutil.copytree(whole_checkpoint, tmp_path / "a")
    (tmp_path / "a" / "latest" / "9").mkdir()
    with pytest.raises(StoreError, match=r"latest/9 cannot be read .*delete .*latest/9 to go on from"):
        read_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "latest" / "9").rmdir()
    assert read_checkpoint(tmp_path / "a")[0]["step"] == 4


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(OSError) as error, checkpoints._writing():
        raise ValueError(
            "OUT_OF_RANGE: Failed to write 5 bytes to file 6: No space left on device [os_error_code='28']"
        )
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path))


@pytest.mark.parametrize(
    "garbage",
    ["garbage", "{}", "[]", "3", "null", '{"step": "2"}', '{"step": null}', '{"step": 2', "\0", "", '{"step": NaN}'],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_garbage_in_the_log_of_steps_is_an_error_that_names_the_line(tmp_path, garbage, place):
    path = tmp_path / "steps.jsonl"
    lines = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": 0.25}', '{"step": 3, "lo']
    path.write_text("\n".join([*lines[:place], garbage, *lines[place:]]))
    with pytest.raises(StoreError, match=rf"steps\.jsonl:{place + 1}: .*delete this line, or the file"):
        loop.StepLog(path, 2)
    path.write_text("\n".join(lines))
    loop.StepLog(path, 1)
    assert path.read_text() == lines[0] + "\n"


def test_nan_stops_the_run_and_names_the_step(model, mesh, tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 2 \(of steps 1 to 3 fetched together\): not going on"):
        train(model, tmp_path, mesh, learning_rate=1e38, warmup=0, fetch_every=5)
    assert [row["step"] for row in rows(tmp_path)] == [1]
    assert not list((tmp_path / "latest").iterdir()) and not list((tmp_path / "best").iterdir())


@pytest.mark.parametrize(
    "batch_rows, accumulate, message",
    [
        (60, 1, "batch 60 does not divide by mesh axes data x fsdp = 8: set config.batch_rows to a multiple of 8$"),
        (40, 2, "does not divide by 2 microbatches times mesh axes data x fsdp = 8: .* to a multiple of 16$"),
    ],
)
def test_a_batch_that_does_not_divide_the_mesh_is_an_error(batch_rows, accumulate, message):
    mesh = jax.sharding.AbstractMesh((4, 2, 1), sharding.MESH_AXES)
    config = dataclasses.replace(TRAIN, batch_rows=batch_rows, accumulate=accumulate)
    with pytest.raises(ValueError, match=message):
        loop.check_batch(config, mesh)
    loop.check_batch(dataclasses.replace(config, batch_rows=16 * accumulate), mesh)


def test_epochs_give_the_number_of_steps(model, mesh, tmp_path):
    result = train(model, tmp_path, mesh, steps=None, epochs=2, dev_examples=[], batch_rows=8)
    assert result.steps == -(-2 * result.train_counts.rows // 8)


def test_learning_rate_warms_up_and_falls_to_nothing():
    schedule = optimizer.learning_rate_schedule(1.0, steps=100, warmup=0.03)
    rates = np.array([schedule(step) for step in range(101)])
    assert 0 < rates[0] < rates[1] < rates[2] < rates[3] == 1.0
    assert (np.diff(rates[3:]) < 0).all() and rates[100] == 0 and rates[99] < 1e-3
    np.testing.assert_allclose(rates[3 + 97 // 2], 0.5, atol=0.01)


def test_weight_decay_spares_norms_and_biases():
    config = dataclasses.replace(CONFIG, family="qwen2", tie_embeddings=False)
    model = decoder.init_decoder(config, jax.random.key(0))
    tx = optimizer.adamw(optax.constant_schedule(1.0), weight_decay=0.5, clip=1.0)
    zero = jax.tree.map(jnp.zeros_like, model)
    updates, _ = jax.jit(tx.update)(zero, optimizer.init_state(tx, model), model)
    for path, update in jax.tree.leaves_with_path(updates):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        moved = bool(jnp.any(update != 0))
        assert moved == ("kernel" in name or name.startswith(("embed", "head"))), name


def test_muon_moves_kernels_by_orthogonal_updates_and_all_else_as_nesterov_adamw():
    model = decoder.init_decoder(CONFIG, jax.random.key(0))
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), model)
    nadamw = optax.chain(optax.clip_by_global_norm(1.0), optax.nadamw(0.1, b2=0.95, weight_decay=0.5))
    muon = optimizer.muon(optax.constant_schedule(0.1), weight_decay=0.5, clip=1.0)
    updates, expected = (jax.jit(tx.update)(grads, optimizer.init_state(tx, model), model)[0] for tx in (muon, nadamw))
    pairs = zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(expected), jax.tree.leaves(model), strict=True)
    for (path, moved), other, param in pairs:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if "kernel" not in name:
            np.testing.assert_allclose(moved, other, rtol=1e-5, atol=1e-8, err_msg=name)
            continue
        for layer, (update, weights) in enumerate(zip(moved, param, strict=True)):
            # -rate x (0.2 sqrt(longer side) O + decay x weights), O near orthogonal: singular values near 1, while
            # those of a square random matrix spread down to 0.
            step = -update / 0.1 - 0.5 * weights
            values = np.linalg.svd(step / (0.2 * np.sqrt(max(step.shape))), compute_uv=False)
            assert values.min() > 0.3 and values.max() < 1.4, (name, layer, values)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer='sgd' is unknown: use adamw or muon"):
        setup.TrainConfig(optimizer="sgd")


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_moments_are_float32_for_bfloat16_parameters(name, model):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    tx = optimizer.OPTIMIZERS[name](optax.constant_schedule(1e-3), weight_decay=0.0, clip=1.0)
    state = jax.eval_shape(functools.partial(optimizer.init_state, tx), half)
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_a_step_is_sent_nothing_that_is_not_on_the_mesh(model, mesh):
    training = setup.set_up(TRAIN, model, TAG_LOSS, optax.constant_schedule(1e-3), mesh)
    batch = batches.take(batches.pack(examples(8), TRAIN.row_length), np.arange(2))
    arrays, key = training.place(model), jax.random.key(0)
    training.step(*arrays, setup.to_devices(batch, mesh, 1), key, 0)
    on_host = {name: array[None] for name, array in batch.items()}
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        training.step(*training.place(model), on_host, key, 1)


def test_bfloat16_models_train_on_float32_parameters(model, mesh, tmp_path):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    result = train(half, tmp_path, mesh, steps=2, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(result.model)} == {jnp.dtype(jnp.float32)}
