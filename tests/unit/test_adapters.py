"""Low-rank adapters: what is trained, what is kept."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import own_process
import pytest
from safetensors.numpy import load_file
from small_tokenizer import small_tokenizer
from test_training import CONFIG, TAG_LOSS, TRAIN, assert_equal, examples, rows

from spare_jax.models import adapters, decoder, huggingface, peft, quantization, sharding
from spare_jax.models.adapters import AdapterConfig
from spare_jax.training import batches, loop, losses

LORA = AdapterConfig(rank=4)
KINDS = ("", *quantization.KINDS)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh(
        (1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )


@pytest.fixture(scope="module")
def base():
    return decoder.init_decoder(CONFIG, jax.random.key(1))


def adapted(base, seed=0, moved=True, **changes):
    """`base` with adapters, `moved` away from where they begin."""
    model = adapters.adapt(base, dataclasses.replace(LORA, **changes), jax.random.key(seed))
    if not moved:
        return model
    trained, frozen = adapters.split(model)
    noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
    return adapters.join(jax.tree.map(noise, trained), frozen)


@functools.partial(jax.jit, static_argnames="remat")
def hidden(model, remat="none"):
    ids = jnp.arange(24).reshape(2, 12)
    positions = jnp.broadcast_to(jnp.arange(12), ids.shape)
    return decoder.hidden_states(model, ids, positions, jnp.ones_like(ids), remat=remat)


def train(model, directory, mesh, progress=None, **changes):
    config = dataclasses.replace(TRAIN, **dict(patience=100) | changes)
    sets = (batches.pack(found, config.row_length) for found in (examples(30), examples(6, seed=1)))
    return loop.train(config, model, TAG_LOSS, *sets, directory, mesh, progress)


def saved_names(directory):
    with ocp.CheckpointManager((directory / "latest").absolute()) as manager:
        state = manager.restore(manager.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        return set(state["state"])


def test_a_new_adapter_changes_nothing_and_a_moved_one_does(base):
    assert np.array_equal(hidden(adapted(base, moved=False)), hidden(base))
    assert float(jnp.abs(hidden(adapted(base)) - hidden(base)).max()) > 0.01


def test_the_adapted_layer_is_its_formula(base):
    layer = jax.tree.map(lambda x: x[0], adapters.of_model(adapted(base, alpha=6.0))["up_proj"])
    x = jax.random.normal(jax.random.key(0), (3, 16))
    kernel, a, b = (np.asarray(param[...], np.float64) for param in (layer.base.kernel, layer.a, layer.b))
    np.testing.assert_allclose(layer(x), x @ kernel + 6.0 / 4 * (x @ a @ b), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_an_ordinary_one_that_computes_the_same(base, kind):
    model = adapted(base, quantize=kind)
    merged = adapters.merge(model)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_allclose(hidden(merged), hidden(model), atol=1e-5)
    assert jax.tree.structure(adapters.merge(base)) == jax.tree.structure(base)
    assert_equal(adapters.merge(base), base)


def test_only_target_projections_are_adapted(base):
    model = adapted(base, targets=("q_proj", "down_proj"))
    assert list(adapters.of_model(model)) == ["q_proj", "down_proj"]
    assert len(jax.tree.leaves(adapters.split(model)[0])) == 4
    with pytest.raises(ValueError, match=r"targets=.*lm_head.*: use some of q_proj"):
        AdapterConfig(targets=("lm_head",))
    with pytest.raises(ValueError, match=r"rank=-1.*use a rank of 0 or more"):
        AdapterConfig(rank=-1)


@pytest.mark.parametrize("kind, bound", [("int8", 0.5 / 127), ("nf4", 0.152)])
def test_quantized_kernels_are_near_and_small(base, kind, bound):
    # A code is off by at most half the widest gap of its levels, in units of the largest weight that shares the scale.
    small = quantization.quantize(base, kind)
    for path, kernel in jax.tree.leaves_with_path(base.blocks):
        if "kernel" not in jax.tree_util.keystr(path):
            continue
        largest = np.abs(kernel).max(axis=1, keepdims=True)
        read = functools.reduce(getattr, [key.name for key in path[:-2]], small.blocks).kernel[...]
        error = np.abs(read - kernel) / largest
        assert 0 < error.max() <= bound * 1.01
    codes = [leaf for leaf in jax.tree.leaves(small) if leaf.dtype in (jnp.int8, jnp.uint4)]
    assert len(codes) == 7
    floats = sum(leaf.size for leaf in jax.tree.leaves(small.blocks) if leaf.dtype == jnp.float32)
    assert floats < 0.2 * sum(code.size for code in codes)
    with pytest.raises(ValueError, match="quantize='int4' is unknown: use int8 or nf4"):
        quantization.quantize(base, "int4")


def test_the_backward_pass_keeps_no_kernel_in_full(base):
    model = adapted(base, quantize="nf4")
    trained, frozen = adapters.split(model)
    _, backward = jax.vjp(lambda t: hidden(adapters.join(t, frozen)), trained)
    shapes = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(backward) if hasattr(leaf, "dtype")}
    kernels = {module.base.kernel.codes[...].shape for module in adapters.of_model(model).values()}
    kept = {shape for shape, dtype in shapes if dtype == jnp.float32}
    assert {shape for shape, dtype in shapes if dtype == jnp.uint4} & kernels  # the codes are what is kept
    assert not kept & (kernels | {shape[1:] for shape in kernels})


@pytest.mark.parametrize("kind", ("", "nf4"))
def test_training_moves_the_adapters_alone(base, mesh, tmp_path, kind):
    model = adapted(base, moved=False, quantize=kind, rank=8, dropout=0.0)
    result = train(model, tmp_path, mesh, steps=60, learning_rate=3e-2, eval_every=20)
    found = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])
    (before, kept), (after, kept_after) = adapters.split(model), adapters.split(result.model)
    assert_equal(kept_after, kept)
    assert all(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))

    # What a checkpoint holds: 14 arrays and as many of each moment, beside the optimiser's counters.
    names = saved_names(tmp_path)
    arrays = {name for name in names if ".blocks." in name or ".embed" in name or "norm" in name}
    assert len(arrays) == 3 * 14
    assert all(".a." in name + "." or ".b." in name + "." for name in arrays), arrays


def test_any_loss_trains_adapters(base, mesh, tmp_path):
    texts = [batches.Example(np.arange(1, 20), token_weights=np.arange(19) > 4) for _ in range(8)]
    config = dataclasses.replace(TRAIN, steps=20, learning_rate=3e-2)
    model = adapted(base, moved=False, rank=8, quantize="int8")
    sets = (batches.pack(found, config.row_length) for found in (texts, []))
    loop.train(config, model, losses.LanguageModelLoss(), *sets, tmp_path, mesh)
    found = [row["loss"] for row in rows(tmp_path)]
    assert found[-1] < 0.7 * found[0]


def test_the_optimiser_knows_the_adapters_alone(base):
    trained, frozen = adapters.split(adapted(base, quantize="int8"))
    tx = loop.optimizer.adamw(lambda step: 1e-3, 0.0, 1.0)
    state = loop.optimizer.init_state(tx, trained)
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert moments == 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(trained))
    assert not {leaf.dtype for leaf in jax.tree.leaves(trained)} - {jnp.dtype(jnp.float32)}
    assert len(jax.tree.leaves(trained)) == 14
    assert len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(base)) + 7  # scales


def test_dropout_drops_its_share_and_keeps_the_mean():
    size, dropout = 33, 0.1  # odd: the last word of a row has a chance to spare
    same = jnp.eye(size)[None]
    base = decoder.Linear(jax.random.key(0), size, size, ("embed", "mlp"), jnp.float32)
    base = jax.tree.map(lambda x: jnp.zeros((1, *x.shape)), base)
    linear = adapters.with_adapter(base, same, same, 1.0, dropout)
    linear = dataclasses.replace(linear, dropout_key=jax.random.split(jax.random.key(0), 1))
    y = jax.tree.map(lambda x: x[0], linear)(jnp.ones((4000, size)))
    kept = np.asarray(y > 0)
    np.testing.assert_allclose(y[kept], 1 / (1 - dropout), rtol=1e-6)
    by_column = kept.mean(axis=0)  # 4,000 chances each: five standard deviations are .024
    assert abs(kept.mean() - 0.9) < 0.004 and np.abs(by_column - 0.9).max() < 0.024
    neighbours = np.corrcoef(kept[:, 0:32:2].ravel(), kept[:, 1:33:2].ravel())[0, 1]  # of one word
    assert abs(neighbours) < 0.02


def test_dropout_follows_the_key_and_is_gone_outside_training(base):
    model = adapted(base, dropout=0.5)
    drop = jax.jit(lambda key, remat: hidden(adapters.with_dropout(model, key), remat), static_argnums=1)
    one, two = (drop(jax.random.key(seed), "none") for seed in (0, 1))
    assert np.array_equal(one, drop(jax.random.key(0), "none"))
    np.testing.assert_allclose(one, drop(jax.random.key(0), "full"), atol=1e-6)
    assert not np.allclose(one, two)
    assert not np.allclose(one, hidden(model))
    # No two layers share a mask: each layer of each projection has a key of its own.
    keys = [
        jax.random.key_data(m.dropout_key)
        for m in adapters.of_model(adapters.with_dropout(model, jax.random.key(0))).values()
    ]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 7 * CONFIG.num_layers
    undropped = adapters.with_dropout(adapted(base, dropout=0.0), jax.random.key(0))
    assert all(module.dropout_key is None for module in adapters.of_model(undropped).values())
    # In expectation nothing is scaled: the mean over keys of one layer's output nears the output without dropout.
    layer = jax.tree.map(lambda x: x[0], adapters.of_model(model)["up_proj"])
    x = jax.random.normal(jax.random.key(0), (2, 16))
    outputs = jax.vmap(lambda key: dataclasses.replace(layer, dropout_key=key)(x))(
        jax.random.split(jax.random.key(1), 4000)
    )
    np.testing.assert_allclose(outputs.mean(0), layer(x), atol=0.1 * float(jnp.std(outputs, axis=0).mean()))


def test_interrupted_and_resumed_equals_unbroken_bit_for_bit(base, mesh, tmp_path):
    model = adapted(base, quantize="nf4", dropout=0.3)
    unbroken = train(model, tmp_path / "unbroken", mesh, accumulate=2)

    def interrupt(step, steps, metrics):
        if step >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, tmp_path / "broken", mesh, interrupt, accumulate=2)
    resumed = train(model, tmp_path / "broken", mesh, accumulate=2)
    assert_equal(resumed.model, unbroken.model)
    assert (tmp_path / "broken" / "steps.jsonl").read_bytes() == (tmp_path / "unbroken" / "steps.jsonl").read_bytes()
    other = train(model, tmp_path / "other", mesh, accumulate=2, seed=1)
    pairs = zip(jax.tree.leaves(other.model), jax.tree.leaves(resumed.model), strict=True)
    assert any(not np.array_equal(x, y) for x, y in pairs)


# Directories


@pytest.fixture
def directory(tmp_path):
    """A base with a tokenizer and an adapter of it, in peft's format."""
    words = small_tokenizer()
    config = dataclasses.replace(CONFIG, vocab_size=len(words))
    model = decoder.init_decoder(config, jax.random.key(2))
    huggingface.save(tmp_path / "base", model, config, words)
    peft.save(tmp_path / "adapter", adapted(model), str(tmp_path / "base"))
    return tmp_path


def test_an_adapter_directory_is_loaded_as_its_base_with_it_merged_in(directory):
    found = huggingface.load(directory / "adapter")
    base = huggingface.load(directory / "base")
    assert_equal(found.model, adapters.merge(adapted(base.model)))
    assert found.path == directory / "adapter"
    assert len(found.tokenizer) == len(base.tokenizer)
    assert huggingface.load_config(directory / "adapter") == base.config
    assert huggingface.architecture_of(directory / "adapter") == "LlamaForCausalLM"


def test_saved_and_loaded_in_a_fresh_process_it_scores_the_same(directory):
    script = (
        "import sys, numpy, test_adapters\n"
        "from spare_jax.models import huggingface\n"
        "numpy.save(sys.argv[2], test_adapters.hidden(huggingface.load(sys.argv[1]).model))\n"
    )
    done = own_process.run("-c", script, directory / "adapter", directory / "states.npy")
    assert done.returncode == 0, done.stderr[-3000:]
    expected = hidden(adapted(huggingface.load(directory / "base").model))
    np.testing.assert_allclose(np.load(directory / "states.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(peft_type="IA3"), "peft_type='IA3' is not supported: use a LORA adapter"),
        (dict(use_rslora=True), "use_rslora=True is not supported: only plain LoRA"),
        (dict(use_dora=True), "use_dora=True is not supported"),
        (dict(bias="all"), "bias='all' is not supported"),
        (dict(init_lora_weights="pissa"), "init_lora_weights='pissa' is not supported"),
        (dict(modules_to_save=["score"]), r"modules_to_save=\['score'\] is not supported"),
        (dict(rank_pattern={"q_proj": 8}), "rank_pattern=.* is not supported"),
        (dict(an_option_of_tomorrow=3), "an_option_of_tomorrow=3 is not supported: .*merge the adapter with peft"),
        (dict(r=None), "r is missing: write it"),
        (dict(r=5), r"k_proj.lora_A.weight has shape \[4, 16\] and the base asks for \[5, 16\]"),
        (dict(base_model_name_or_path="/nowhere"), "base_model_name_or_path: /nowhere is no directory"),
    ],
)
def test_what_is_not_computed_is_refused_by_its_key(directory, changes, message):
    path = directory / "adapter" / peft.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(huggingface.ModelError, match=message):
        huggingface.load(directory / "adapter")


def test_tensors_that_do_not_fit_are_named(directory):
    path = directory / "adapter" / peft.WEIGHTS_FILE
    tensors = load_file(path)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    kept = {name: tensor for name, tensor in tensors.items() if name != first}
    peft.save_file(kept, path)
    with pytest.raises(huggingface.ModelError, match=r"layers\.0\.self_attn\.q_proj\.lora_A\.weight is missing"):
        huggingface.load(directory / "adapter")
    peft.save_file(tensors | {"base_model.model.lm_head.lora_A.weight": tensors[first]}, path)
    with pytest.raises(huggingface.ModelError, match=r"lm_head\.lora_A\.weight has no place in the base"):
        huggingface.load(directory / "adapter")
    path.unlink()
    with pytest.raises(huggingface.ModelError, match="is missing: save the adapter with peft as safetensors"):
        huggingface.load(directory / "adapter")
