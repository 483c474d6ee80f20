"""The local engine: what it answers is the model's, and depends on the request alone."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spare_jax.engines.local import LocalEngine, _divide_cache, bucket_length, token_bytes
from spare_jax.engines.sampling import digest32, sample_tokens
from spare_jax.models.cache import KEY_BLOCK
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import hidden_states, init_decoder, logits
from spare_jax.models.heads import ReadOut
from spare_jax.models.quantization import dequantize, quantize
from spare_jax.programs import Failure, Prefix, Sample, Score, run

CONFIG = DecoderConfig(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tie_embeddings=False,
    max_length=256,
)
READ_OUT = ReadOut((6, 5))
SIZES = {"slots": 6, "max_length": 224, "chunk": 5, "prefill_tokens": 384}


@pytest.fixture(scope="module")
def model():
    made = init_decoder(CONFIG, jax.random.key(0))
    # Random weights of the usual scale give nearly flat logits; a larger head makes some ids likelier than others.
    made.head.set_value(made.head.get_value() * 2)
    return made


@pytest.fixture
def engine(model):
    return new_engine(model)


def new_engine(model, seed=0, **changes):
    return LocalEngine(model, CONFIG, pad_id=0, seed=seed, read_out=READ_OUT, **(SIZES | changes))


def answers(engine, requests):
    """All completions by request id, from one engine that gets `requests` (pairs) in this order."""
    for request_id, request in requests:
        engine.submit(request_id, request)
    return drain(engine)


def drain(engine, most_polls=2000):
    finished = {}
    for _ in range(most_polls):
        finished |= dict(engine.poll())
        if not engine._underway:
            return finished
    raise AssertionError("the engine does not finish")


def prompt(length, seed=0):
    return tuple(random.Random(f"{length} {seed}").choices(range(CONFIG.vocab_size), k=length))


def sample(length=20, seed=0, **options):
    return Sample("m", prompt(length, seed), **({"max_tokens": 12} | options))


def crowd(count=25):
    """Requests of many kinds and lengths."""
    rng = random.Random(1)
    for i in range(count):
        kinds = {}, {"temperature": 0.0}, {"top_p": 0.8}, {"top_k": 5, "temperature": 1.3}, {"stop": (7, 11)}
        length, n, max_tokens = rng.randint(1, 150), rng.randint(1, 9), rng.randint(1, 60)
        yield f"crowd-{i}", sample(length, i, n=n, max_tokens=max_tokens, **rng.choice(kinds))
        if i % 4 == 0:
            yield f"score-{i}", Score("m", prompt(rng.randint(5, 150), i), positions=(0, 4))


@jax.jit
def all_logits(model, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return logits(model, hidden_states(model, ids, positions, jnp.ones_like(ids)))


def teacher_forced(model, context, ids):
    """Log-probabilities of `ids` after `context`, and the most probable id at each place, without any cache."""
    whole = jnp.array([*context, *ids])[None]
    logprobs = jax.nn.log_softmax(all_logits(model, whole)[0])[len(context) - 1 : -1]
    return np.asarray(logprobs[jnp.arange(len(ids)), jnp.array(ids)]), np.asarray(logprobs.argmax(axis=1))


@pytest.mark.parametrize("length", [1, 127, 128, 129, 150])
def test_logprobs_equal_a_teacher_forced_rescore(model, engine, length):
    request = sample(length, n=2, max_tokens=70, temperature=0.8, top_p=0.95)
    for completion in answers(engine, [("a", request)])["a"]:
        assert len(completion.ids) == 70 and completion.finish_reason == "length"
        expected, _ = teacher_forced(model, request.ids, completion.ids)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize("length", [5, 64, 128])
def test_temperature_zero_is_the_argmax_of_the_full_forward(model, engine, length):
    request = sample(length, max_tokens=40, temperature=0.0)
    [completion] = answers(engine, [("a", request)])["a"]
    _, best = teacher_forced(model, request.ids, completion.ids)
    np.testing.assert_array_equal(completion.ids, best)


def test_top_k_one_equals_greedy(engine):
    requests = [("greedy", sample(30, temperature=0.0)), ("k", sample(30, top_k=1)), ("free", sample(30))]
    found = answers(engine, requests)
    assert found["greedy"] == found["k"] != found["free"]


def test_bits_are_the_same_alone_in_a_crowd_in_another_order_and_after_a_restart(model):
    requests = list(crowd())
    together = answers(new_engine(model), requests)
    assert set(together) == {request_id for request_id, _ in requests}
    assert answers(new_engine(model), requests[::-1]) == together

    for request_id, request in requests[::3]:
        assert answers(new_engine(model), [(request_id, request)]) == {request_id: together[request_id]}

    trickled, engine, left = {}, new_engine(model), list(requests)
    random.Random(3).shuffle(left)
    while left or engine._underway:
        for request_id, request in left[:2]:
            engine.submit(request_id, request)
        left = left[2:]
        trickled |= dict(engine.poll())
    assert trickled == together


def test_bits_do_not_depend_on_the_number_of_steps_per_visit(model):
    requests = list(crowd(8))
    assert answers(new_engine(model, chunk=1), requests) == answers(new_engine(model), requests)


def test_bits_do_not_depend_on_the_number_of_lanes(model):
    requests = list(crowd())
    threaded = new_engine(model, slots=18, lanes=3)
    assert answers(threaded, requests) == answers(new_engine(model), requests)


def test_the_key_of_a_token_is_that_of_its_request_sample_and_index(model):
    """Draws again, without the engine, from the logits of the full forward."""
    request = sample(20, max_tokens=4, n=3, temperature=0.9)
    for k, completion in enumerate(answers(new_engine(model, seed=7), [("a/0/0", request)])["a/0/0"]):
        before = all_logits(model, jnp.array([*request.ids, *completion.ids])[None])[0, 19:-1]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), np.uint32(digest32("a/0/0"))), k)
        keys = jax.vmap(lambda t, key=key: jax.random.fold_in(key, t))(jnp.arange(4))
        drawn, _ = sample_tokens(before, keys, jnp.full(4, 0.9), jnp.ones(4), jnp.zeros(4, int))
        assert tuple(drawn.tolist()) == completion.ids


def test_another_seed_or_request_id_draws_otherwise(model):
    request = sample(n=2)
    first = answers(new_engine(model), [("a", request), ("b", request)])
    other = answers(new_engine(model, seed=1), [("a", request)])
    assert len({c.ids for c in (*first["a"], *first["b"], *other["a"])}) == 6


def test_samples_of_one_request_differ_and_the_first_ones_do_not_depend_on_n(model):
    many = answers(new_engine(model), [("a", sample(n=20))])["a"]
    assert len({c.ids for c in many}) == 20
    assert len({c.ids[0] for c in many}) > 3
    assert answers(new_engine(model), [("a", sample(n=3))])["a"] == many[:3]


def test_flat_logits_give_different_tokens_one_after_another(model):
    flat = jax.tree.map(jnp.zeros_like, model)
    [completion] = answers(new_engine(flat), [("a", sample(max_tokens=60))])["a"]
    assert len(set(completion.ids)) > 30
    np.testing.assert_allclose(completion.logprobs, -np.log(CONFIG.vocab_size), atol=1e-5)


def test_stop_ids_end_a_sample_and_are_kept(engine):
    [free] = answers(engine, [("a", sample(max_tokens=40))])["a"]
    assert free.finish_reason == "length"
    for cut in (0, 9, 39):
        stop = free.ids[cut]
        unused = next(i for i in range(CONFIG.vocab_size) if i not in free.ids)
        [stopped] = answers(engine, [("a", sample(max_tokens=40, stop=(unused, stop)))])["a"]
        assert stopped.ids == free.ids[: free.ids.index(stop) + 1]
        assert stopped.finish_reason == "stop"


def test_changed_settings_are_obeyed_and_compile_nothing(model):
    names = "prefill", "write", "score", "insert", "decode"

    def counts(engine):
        return {name: getattr(engine._compiled, name)._cache_size() for name in names}

    engine = new_engine(model, slots=5)  # a size that no other test has, for a count of its own
    answers(engine, crowd())
    before = counts(engine)
    assert before == {"prefill": 3, "write": 3, "score": 3, "insert": 1, "decode": 1}, "once per bucket: 64, 128, 192"
    answers(engine, [(f"again-{name}", request) for name, request in crowd()])
    request = sample(stop=(1, 2, 3), temperature=0.123, top_p=0.77, top_k=9, n=4)
    other = new_engine(model, seed=5, slots=5)
    answers(other, [("a", request)])
    assert counts(other) == before


def chained(ids, *cuts, **options):
    """A request for `ids` whose prefixes end at `cuts`."""
    prefix, start = None, 0
    for cut in cuts:
        prefix, start = Prefix(ids[start:cut], prefix), cut
    return Sample("m", ids[start:], **({"max_tokens": 8, "prefix": prefix} | options))


@pytest.mark.parametrize("cuts", [(10, 40), (64,), (127, 129), (1, 2, 3), (128,), (130, 130), (150,)])
def test_a_prompt_in_pieces_is_the_prompt(model, cuts):
    ids = prompt(150)
    request = chained(ids, *cuts, n=3)
    for completion in answers(new_engine(model), [("a", request)])["a"]:
        np.testing.assert_allclose(completion.logprobs, teacher_forced(model, ids, completion.ids)[0], atol=1e-4)
    whole, pieces = (answers(new_engine(model), [("a", r)])["a"] for r in (chained(ids, n=3), request))
    assert [c.ids for c in whole] == [c.ids for c in pieces]


def family(count=40):
    """Requests that share prefixes of several lengths and depths, with samples of their own."""
    rng = random.Random(2)
    trunk = prompt(150, 5)
    for i in range(count):
        start = rng.choice([0, 20, 64, 100, 128])
        cuts = sorted(rng.sample(range(1, 150), rng.randint(0, 3)))
        ids = trunk[:start] + prompt(rng.randint(1, 30), i)
        own = [cut for cut in cuts if cut <= start]
        yield f"family-{i}", chained(ids, *own, n=rng.randint(1, 9), max_tokens=rng.randint(1, 40))
        if own:
            yield f"score-{i}", Score("m", ids[own[-1] :], (len(ids) - 1,), chained(ids, *own).prefix)


def test_bits_with_shared_prefixes_are_the_same_alone_in_a_crowd_and_in_another_order(model):
    requests = list(family())
    together = answers(new_engine(model), requests)
    assert answers(new_engine(model, slots=6), requests[::-1]) == together
    for request_id, request in requests[::4]:
        assert answers(new_engine(model), [(request_id, request)]) == {request_id: together[request_id]}


def test_what_requests_share_is_read_once(model):
    ids, engine = prompt(150), new_engine(model)
    solve = [(f"a{i}", chained(ids[:100] + prompt(20, i), 100, n=4)) for i in range(5)]
    answers(engine, solve)
    assert engine.stats["prompt_tokens"] == 5 * 4 * 120
    assert engine.stats["computed_tokens"] == 100 + 5 * 20
    answers(engine, [("again", chained(ids[:130], 100))])
    assert engine.stats["computed_tokens"] == 100 + 5 * 20 + 30, "the prefix is still there"


def test_a_solution_that_grows_is_scored_by_its_new_step_alone(model):
    engine, ids, prefix, start = new_engine(model), prompt(180), Prefix(prompt(180)[:40]), 40
    for step, end in enumerate((60, 100, 128, 135, 180)):
        request = Score("m", ids[start:end], (end - 1,), prefix)
        [kept] = answers(engine, [(f"grown-{step}", request)])[f"grown-{step}"]
        [whole] = answers(new_engine(model), [("whole", Score("m", ids[:end], (end - 1,)))])["whole"]
        np.testing.assert_allclose(kept.scores, whole.scores, atol=1e-6)
        assert engine.stats["computed_tokens"] == end
        prefix, start = Prefix(ids[start:end], prefix), end
    whole = answers(engine, [("all", Score("m", (), (10, 59, 179), prefix))])["all"]
    expected = answers(engine, [("new", Score("m", ids, (10, 59, 179)))])["new"]
    np.testing.assert_allclose(whole[0].scores, expected[0].scores, atol=1e-6)


def test_the_longest_answers_go_first_and_equals_in_order_of_arrival(model):
    engine, order = new_engine(model, slots=1), []
    for name, length in (("a", 5), ("b", 5), ("long", 30), ("c", 5)):
        engine.submit(name, Sample("m", prompt(9, len(name)), length))
    while len(order) < 4:
        order += [name for name, _ in engine.poll()]
    assert order == ["long", "a", "b", "c"]


def test_pages_are_taken_back_when_they_are_wanted(model):
    """A budget of one long prompt and a bit: prompts wait for one another, and old prefixes are forgotten."""
    block = KEY_BLOCK * token_bytes(CONFIG, jnp.float32)
    small = new_engine(model, slots=2, max_tokens=40, cache_bytes=(2 * 1 + 2 * 3) * block)
    assert small._tree._pages == 6
    requests = [(name, request) for name, request in family() if not name.startswith("score")]
    assert answers(small, requests) == answers(new_engine(model, max_tokens=40), requests)
    assert small._tree._root.users == 1 + len(small._tree._root.children), "nothing is held any more"
    held = sum(len(node.own_pages) for node in nodes_of(small._tree._root))
    assert held + len(small._tree._free) == 6


def nodes_of(node):
    yield node
    for child in node.children.values():
        yield from nodes_of(child)


def test_scores_are_the_softmax_at_their_positions(model, engine):
    positions = {"short": (3, 9, 19), "long": tuple(range(0, 140, 7)), "none": ()}
    requests = {name: Score("m", prompt(20 if name == "short" else 150), wanted) for name, wanted in positions.items()}
    found = answers(engine, requests.items())
    for name, request in requests.items():
        at = all_logits(model, jnp.array(request.ids)[None])[0, jnp.array(request.positions, int)]
        expected = jax.nn.softmax(at[:, jnp.array(READ_OUT.columns)])[:, 1]
        [completion] = found[name]
        np.testing.assert_allclose(completion.scores, expected, atol=1e-6)
        assert all(type(score) is float for score in completion.scores)


def test_a_request_may_say_which_answers_are_compared(model):
    """In one batch with others, and on an engine that has no read-out of its own; the same text behind a prefix too."""
    engine = LocalEngine(model, CONFIG, pad_id=0, seed=0, **SIZES)
    ids, wanted = prompt(40), (7, 25, 39)
    at = jax.nn.softmax(all_logits(model, jnp.array(ids)[None])[0, jnp.array(wanted)], axis=-1)
    pairs = ((3, 8), (8, 3), (60, 2))
    requests = [(str(pair), Score("m", ids, wanted, answers=pair)) for pair in pairs]
    requests += [(f"{pair} behind", Score("m", ids[20:], wanted, Prefix(ids[:20]), pair)) for pair in pairs]
    found = answers(engine, requests)
    own = answers(new_engine(model), [*requests, ("own", Score("m", ids, wanted))])
    for pair in (*pairs, READ_OUT.columns):
        expected = at[:, pair[1]] / (at[:, pair[0]] + at[:, pair[1]])
        names = ("own",) if pair == READ_OUT.columns else (str(pair), f"{pair} behind")
        for completion in (of[name][0] for of in (found, own) for name in names if name in of):
            np.testing.assert_allclose(completion.scores, expected, atol=1e-6)


def test_a_program_runs_on_it(model):
    """Samples, then scores of what was sampled: as best-of-n does."""

    class Journal(dict):
        def put(self, key, value):
            self[key] = value

    def program(i):
        def start():
            [drafts] = yield [sample(20 + i, n=4)]
            texts = [prompt(20 + i) + draft.ids for draft in drafts]
            scored = yield [Score("m", text, positions=(len(text) - 1,)) for text in texts]
            return max(score.scores[0] for (score,) in scored), [draft.ids for draft in drafts]

        return start

    programs = [(f"p{i}", program(i)) for i in range(10)]
    found = dict(run({"m": new_engine(model)}, programs, Journal()))
    assert found == dict(run({"m": new_engine(model)}, programs[::-1], Journal(), in_flight=2))


def test_stats_tell_what_was_asked_from_what_was_read(engine):
    found = answers(engine, [("a", sample(20, n=9)), ("b", sample(30)), ("s", Score("m", prompt(9), (1,)))])
    assert engine.stats["requests"] == 3
    assert engine.stats["prompt_tokens"] == 20 * 9 + 30
    assert engine.stats["scored_tokens"] == 9
    assert engine.stats["computed_tokens"] == 20 + 30 + 9
    assert engine.stats["generated_tokens"] == sum(len(c.ids) for c in (*found["a"], *found["b"]))


def test_a_budget_of_bytes_gives_slots_and_pages(model):
    block = KEY_BLOCK * token_bytes(CONFIG, jnp.float32)
    assert block == KEY_BLOCK * 2 * 2 * 2 * 8 * 4
    sizes = {"slots": 6, "max_length": 250, "max_tokens": 200}
    shared_out = functools.partial(_divide_cache, block_bytes=block, lanes=1, max_length=250, max_tokens=200, slots=6)
    assert shared_out(None) == (6, 6 * 2), "two blocks for an answer, two for a prompt"
    assert shared_out(20 * block) == (5, 20 - 5 * 2)
    assert shared_out(4 * block) == (1, 2)
    assert len(new_engine(model, **sizes, cache_bytes=20 * block)._lanes[0]._occupants) == 5
    with pytest.raises(ValueError, match=r"take 131,072 bytes, and there are 98,304: raise\s+cache_bytes"):
        new_engine(model, **sizes, cache_bytes=4 * block - 1)


def test_a_thousand_requests_of_mixed_lengths_compile_once_per_bucket(model):
    engine, rng = new_engine(model, slots=64, max_length=250, prefill_tokens=1024, chunk=8), random.Random(0)
    ids, lengths = prompt(240), [rng.randint(1, 240) for _ in range(1000)]
    asked = [(f"r{i}", Sample("m", (i % 60, *ids[1:n]), rng.randint(1, 10))) for i, n in enumerate(lengths)]
    assert len(answers(engine, asked)) == 1000
    buckets = {bucket_length(n, 250) for n in lengths}
    compiled = engine._compiled
    assert buckets == {64, 128, 192, 250}
    assert (compiled.prefill._cache_size(), compiled.write._cache_size()) == (4, 4)
    assert (compiled.insert._cache_size(), compiled.decode._cache_size()) == (1, 1)


def test_logits_that_are_not_finite_fail_their_request_alone(model):
    broken = jax.tree.map(jnp.array, model)
    broken.embed.set_value(broken.embed.get_value().at[66].set(jnp.nan))
    clean = [(f"clean-{i}", Sample("m", tuple(x % 66 for x in prompt(9 * i + 1, i)), 10)) for i in range(12)]
    bad = Sample("m", (1, 2, 66), 30, n=3)
    scored = Score("m", (1, 66, 3), (2,))
    found = answers(new_engine(broken), [*clean[:4], ("bad", bad), ("worse", scored), *clean[4:]])
    assert isinstance(found["bad"], Failure) and "logits are not finite" in found["bad"].message
    assert isinstance(found["worse"], Failure) and "scores are not finite" in found["worse"].message
    finite = {name: answer for name, answer in found.items() if not isinstance(answer, Failure)}
    expected = answers(new_engine(model), clean)
    untouched = [name for name in finite if all(66 not in c.ids for c in expected[name])]
    assert len(untouched) > 5 and {n: finite[n] for n in untouched} == {n: expected[n] for n in untouched}


@pytest.mark.parametrize(
    "request_, words",
    [
        (Sample("m", (), 5), "the prompt is empty"),
        (Sample("m", prompt(200), 25), "200 prompt tokens . max_tokens=25 exceed max_length=224.*lower max_tokens"),
        (Sample("m", (67,), 5), "outside the vocabulary of 67"),
        (Sample("m", (-1,), 5), "outside the vocabulary of 67"),
        (sample(n=0), "n=0: ask for at least one"),
        (sample(max_tokens=0), "max_tokens=0: ask for at least one"),
        (sample(max_tokens=225), "max_tokens=225 exceeds the 224 of this engine"),
        (chained(prompt(200), *range(1, 200), max_tokens=1), "want more pages than there are"),
        (sample(temperature=-0.1), "temperature=-0.1: use 0"),
        (sample(temperature=float("nan")), "temperature=nan: use 0"),
        (sample(top_p=0.0), r"top_p=0.0: use a value in \(0, 1\]"),
        (sample(top_k=-1), "top_k=-1: use 0"),
        (sample(stop=tuple(range(33))), "33 stop ids: at most 32"),
        (sample(stop=(67,)), "a stop id lies outside"),
        (Score("m", prompt(225), (0,)), "225 tokens exceed max_length=224"),
        (Score("m", prompt(20), (20,)), "a position lies outside the 20 tokens"),
        (Score("m", prompt(20), (2,), answers=(3, 67)), "an answer lies outside the vocabulary of 67"),
    ],
)
def test_impossible_requests_are_refused_by_name(engine, request_, words):
    with pytest.raises(ValueError, match=f"request 'bad/0/1': .*{words}"):
        engine.submit("bad/0/1", request_)
    assert answers(engine, [("good", sample(n=2))])["good"], "the engine goes on"


def test_a_request_may_fill_the_length_to_the_last_token(model, engine):
    request = sample(200, max_tokens=24)
    [completion] = answers(engine, [("a", request)])["a"]
    np.testing.assert_allclose(completion.logprobs, teacher_forced(model, request.ids, completion.ids)[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantized_model_answers_as_what_its_codes_stand_for(model, kind):
    small = quantize(model, kind)
    found = answers(new_engine(small), [("a", sample(90, n=2, max_tokens=40))])["a"]
    for completion in found:
        expected, _ = teacher_forced(dequantize(small), prompt(90), completion.ids)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
    assert found != answers(new_engine(model), [("a", sample(90, n=2, max_tokens=40))])["a"]


def test_bfloat16_is_close_to_float32(model):
    request = sample(90, max_tokens=60)
    [completion] = answers(new_engine(model, dtype=jnp.bfloat16), [("a", request)])["a"]
    expected, _ = teacher_forced(model, request.ids, completion.ids)
    np.testing.assert_allclose(completion.logprobs, expected, atol=0.15)


def test_ten_thousand_requests_leave_nothing_behind(model):
    """Memory of the process and of the device stays flat, and every page is free or holds what could be asked again."""
    engine, rng = new_engine(model, slots=32, max_length=128, max_tokens=32, prefill_tokens=1024), random.Random(0)

    def used():
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * 4096
        return sum(array.nbytes for array in jax.live_arrays()), resident

    seen = []
    for start in range(0, 10_000, 2_000):
        for i in range(start, start + 2_000):
            ids, cut = prompt(rng.randint(2, 80), i), rng.choice([0, 0, 1])
            request = chained(ids, *[1] * cut, max_tokens=rng.randint(1, 5), n=rng.choice([1, 1, 1, 3]))
            engine.submit(f"r{i}", Score("m", ids, (len(ids) - 1,)) if i % 7 == 0 else request)
        assert len(drain(engine, 10**6)) == 2_000
        seen.append(used())
    assert len({arrays for arrays, _ in seen}) == 1
    assert seen[-1][1] - seen[1][1] < 20e6
    held = sum(len(node.own_pages) for node in nodes_of(engine._tree._root))
    assert held + len(engine._tree._free) == engine._tree._pages


def test_errors_of_the_engine(model, engine):
    engine.submit("a", sample())
    with pytest.raises(ValueError, match="'a' is under way already"):
        engine.submit("a", sample())
    with pytest.raises(ValueError, match="max_length=257 exceeds the 256 positions"):
        new_engine(model, max_length=257)
    with pytest.raises(ValueError, match="slots=0; set it to 1 or more"):
        new_engine(model, slots=0)
    with pytest.raises(ValueError, match="slots=6 do not divide by lanes=4"):
        new_engine(model, lanes=4)
    with pytest.raises(ValueError, match="construct it with the read-out"):
        LocalEngine(model, CONFIG, pad_id=0, seed=0, **SIZES).submit("a", Score("m", (1,), (0,)))


def test_buckets():
    assert [bucket_length(n, 4096) for n in (1, 64, 65, 129, 200, 257, 385, 513, 800, 1025, 3073)] == [
        64, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 4096,
    ]  # fmt: skip
    assert bucket_length(257, 300) == 300


def test_a_renewed_engine_has_forgotten_all_that_the_old_parameters_read(model):
    other = init_decoder(CONFIG, jax.random.key(1))
    shared = Prefix(prompt(140, seed=8), Prefix(prompt(30, seed=9)))
    asked = [
        *((f"s{i}", Sample("m", prompt(9, i), 12, prefix=shared, n=2)) for i in range(3)),
        ("score", Score("m", prompt(9), (175, 178), prefix=shared)),
    ]
    engine = new_engine(model)
    before = answers(engine, asked)
    read = engine.stats["computed_tokens"]
    engine.update_weights(other)
    assert answers(engine, asked) == answers(new_engine(other), asked) != before
    assert engine.stats["computed_tokens"] == 2 * read  # every prompt was read again
    engine.update_weights(model)
    assert answers(engine, asked) == before


def test_an_engine_at_work_is_not_renewed(model, engine):
    engine.submit("a", sample())
    with pytest.raises(ValueError, match="1 requests are under way: update the weights once they are done"):
        engine.update_weights(model)
