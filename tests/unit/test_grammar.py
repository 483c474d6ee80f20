"""Grammars in the decode loop: every sample is a whole text of its pattern, whatever the model prefers."""

import json
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizer import small_tokenizer

from spare_jax.engines.grammar import (
    MAX_SLACK,
    Grammars,
    GrammarState,
    advance,
    allowed_tokens,
    byte_automaton,
    token_automaton,
)  # fmt: skip
from spare_jax.engines.local import LocalEngine
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import init_decoder
from spare_jax.programs import Failure, Grammar, Sample
from spare_jax.prompts import annotate, verify
from spare_jax.prompts.chat import token_bytes
from spare_jax.records import StepJudgement

TOKENS = token_bytes(small_tokenizer())
CONFIG = DecoderConfig(
    vocab_size=len(TOKENS), hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2, num_kv_heads=1,
    head_dim=8, max_length=1024,
)  # fmt: skip
PATTERNS = "(yes|no)!", "[ab]{0,3}c", r"\[(x|yy)*\]", "é+z", r'"([^"\\]|\\["\\])*"', "a(b|cd|efg)?#"


@pytest.fixture(scope="module")
def model():
    return init_decoder(CONFIG, jax.random.key(0))


def new_engine(model, **sizes):
    wanted = {"slots": 8, "max_length": 400, "chunk": 16} | sizes
    return LocalEngine(model, CONFIG, pad_id=0, seed=0, tokens=TOKENS, **wanted)


def answers(engine, requests):
    for name, request in requests:
        engine.submit(name, request)
    found = {}
    while len(found) < len(requests):
        found |= dict(engine.poll())
    return found


def text_of(completion):
    return b"".join(TOKENS[i] for i in completion.ids).decode("utf-8")


def test_the_bytes_of_tokens_are_what_the_tokenizer_decodes():
    tokenizer = small_tokenizer()
    ids = tokenizer.encode('Ada has 5 + 3 = 8.\n "é" ки €', add_special_tokens=False)
    assert b"".join(TOKENS[i] for i in ids).decode() == tokenizer.decode(ids)
    assert [TOKENS[i] for i in tokenizer.all_special_ids] == [b""] * len(tokenizer.all_special_ids)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_token_automaton_takes_the_texts_of_the_pattern_alone(pattern):
    """Random walks over allowed tokens make texts that `re` accepts; a token that is not allowed makes none."""
    automaton, rng = token_automaton(pattern, TOKENS), random.Random(0)
    table, start, _ = byte_automaton(pattern)
    states = len(automaton.distance)
    for _ in range(50):
        state, text = automaton.initial, b""
        while automaton.distance[state] and len(text) < 200:
            following = automaton.following[state][automaton.classes]
            for token in rng.sample(range(len(TOKENS)), 20):
                at = start
                for byte in text + TOKENS[token]:
                    at = table[at, byte] if at >= 0 else -1
                assert (following[token] < states) == (at >= 0 and bool(TOKENS[token])), "as its bytes say"
            token = rng.choice(np.flatnonzero(following < states))
            state, text = following[token], text + TOKENS[token]
        if not automaton.distance[state]:
            assert re.fullmatch(pattern, text.decode())


def test_the_distance_is_that_of_the_shortest_text():
    automaton = token_automaton("a(b|cd|efg)?#", [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"#", b"cd#", b"ef"])
    assert automaton.distance[automaton.initial] == 2  # a #
    assert token_automaton("acd#", [b"a", b"c", b"d", b"#", b"cd#"]).distance[0] == 2  # a cd#
    with pytest.raises(ValueError, match="no text that this tokenizer's tokens make"):
        token_automaton("ax", [b"a"])
    halves = token_automaton("(ab|xy)z", [b"a", b"x", b"y", b"z"])
    assert (halves.following[halves.initial] < len(halves.distance)).sum() == 1, "a leads nowhere: there is no b"


def test_patterns_that_cannot_be_used():
    with pytest.raises(ValueError, match="'a\\+' accepts texts that go on"):
        token_automaton("a+", TOKENS)
    with pytest.raises(ValueError, match=r"'\(' is no pattern that can be used"):
        token_automaton("(", TOKENS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_budget_allows_exactly_what_can_still_end(pattern):
    grammars = Grammars(TOKENS)
    grammars.add("(other|thing)")
    number, first, least = grammars.add(pattern)
    automaton, tables = token_automaton(pattern, TOKENS), grammars.tables
    states = len(automaton.distance)
    of_tokens = np.append(automaton.distance, 10**6)[automaton.following][:, automaton.classes]
    assert tables.distance[first] == least == automaton.distance[automaton.initial]
    rows = [(s, left) for s in range(states) for left in range(automaton.distance[s], automaton.distance[s] + 12)]
    state, left = np.array([row for row in rows if automaton.distance[row[0]]]).T
    ones = np.ones_like(state)
    current = GrammarState(ones * number, first - automaton.initial + state, ones, ones * 0, ones * 10**6)
    allowed = allowed_tokens(jax.tree.map(jnp.asarray, tables), current, left, len(TOKENS))
    slack = left - automaton.distance[state]
    exact = np.where(slack[:, None] < MAX_SLACK, of_tokens[state] <= left[:, None] - 1, of_tokens[state] < 10**6)
    np.testing.assert_array_equal(allowed, exact)
    assert (
        of_tokens[of_tokens < 10**6] - np.repeat(automaton.distance, (of_tokens < 10**6).sum(axis=1))
    ).max() < MAX_SLACK
    assert np.asarray(allowed).any(axis=1).all()


def test_a_state_moves_with_its_tokens_and_counts_detours():
    grammars = Grammars([b"[", b"]", b"x"])
    number, first, least = grammars.add(r"\[x*\]")
    tables = jax.tree.map(jnp.asarray, grammars.tables)
    current = GrammarState(*jnp.array([[number], [first], [least], [0], [3]]))
    detours, ends = [], []
    for token in (0, 2, 2, 2, 1):
        current, complete = advance(tables, current, jnp.array([token]))
        detours.append(int(current.detour[0]))
        ends.append(bool(complete[0]))
    assert detours == [0, 1, 2, 3, 0] and ends == [False] * 4 + [True]
    free, complete = advance(tables, GrammarState(*jnp.zeros((5, 1), int)), jnp.array([2]))
    assert int(free.state[0]) == 0 and not complete[0]


@pytest.mark.parametrize("temperature, options", [(1.0, {}), (0.0, {}), (3.0, {"top_k": 2}), (1.0, {"top_p": 0.3})])
def test_every_annotation_of_a_random_model_is_complete_and_parses(model, temperature, options):
    """2,000 over the four cases; a third of the budgets are the least that the text takes."""
    engine, rng, requests = new_engine(model, slots=64, max_length=600), random.Random(0), {}
    for i in range(500):
        n, detour = rng.randint(1, 4), rng.choice([0, 3, 40])
        pattern = annotate.grammar(n).pattern
        least = token_automaton_of(pattern).distance[0]
        budget = int(least) + rng.choice([0, rng.randint(1, 8), rng.randint(9, 120)])
        request = Sample(
            "m", (5, i % 280 + 3), budget, temperature=temperature, grammar=Grammar(pattern, detour), **options
        )
        requests[f"{temperature}/{i}"] = n, request
    found = answers(engine, [(name, request) for name, (_, request) in requests.items()])
    for name, (n, request) in requests.items():
        [completion] = found[name]
        assert completion.finish_reason == "stop" and len(completion.ids) <= request.max_tokens
        rows = json.loads(text_of(completion))
        assert [row["student_step"] for row in rows] == list(range(1, n + 1))
        assert all(row["label"] in ("CORRECT", "INCORRECT") for row in rows)
        assert [list(row) for row in rows] == [list(json.loads(EXAMPLE)[0])] * n
        parsed = annotate.parse(text_of(completion), n)
        assert len(parsed.records) == n and not parsed.surplus and not parsed.duplicates


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_every_verification_of_a_random_model_is_complete_and_parses(model, temperature):
    """2,000 over the two cases; a third of the budgets are the least that the text takes."""
    engine, rng, requests = new_engine(model, slots=64, max_length=600), random.Random(1), {}
    for i in range(1000):
        n, detour = rng.randint(1, 4), rng.choice([0, 3, 40])
        pattern = verify.grammar(n).pattern
        budget = int(token_automaton_of(pattern).distance[0]) + rng.choice([0, rng.randint(1, 8), rng.randint(9, 120)])
        request = Sample("m", (5, i % 280 + 3), budget, temperature=temperature, grammar=Grammar(pattern, detour))
        requests[f"{temperature}/{i}"] = n, request
    found = answers(engine, [(name, request) for name, (_, request) in requests.items()])
    for name, (n, request) in requests.items():
        [completion] = found[name]
        assert completion.finish_reason == "stop" and len(completion.ids) <= request.max_tokens
        parsed = verify.parse(text_of(completion), n)
        assert sorted(parsed.steps) == list(range(1, n + 1)) and not parsed.surplus and not parsed.duplicates
        assert all(step.correct is not None for step in parsed.steps.values()) and parsed.answer is not None
        steps = [parsed.steps[number] for number in range(1, n + 1)]
        assert all(step.analysis.strip() == step.analysis for step in steps)


EXAMPLE = annotate.format_records([StepJudgement(label=True, explanation="x", steps=(1,), errors=("a",))])
_AUTOMATA = {}


def token_automaton_of(pattern):
    if pattern not in _AUTOMATA:
        _AUTOMATA[pattern] = token_automaton(pattern, TOKENS)
    return _AUTOMATA[pattern]


STEP = st.builds(
    StepJudgement,
    label=st.booleans(),
    explanation=st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30),
    context=st.lists(st.integers(1, 999), max_size=3).map(tuple),
    errors=st.lists(st.text('abc "\\é', max_size=5), max_size=2).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=3))
def test_what_we_write_ourselves_is_in_the_grammar(records):
    text = annotate.format_records(records)
    table, at, accepts = byte_automaton(annotate.grammar(len(records)).pattern)
    for byte in text.encode():
        at = table[at, byte]
        assert at >= 0
    assert accepts[at]


def test_strings_are_bounded_by_the_detour(model):
    engine = new_engine(model)
    grammar = Grammar(r'"([^"\\]|\\["\\])*"', 10)
    requests = [(f"r{i}", Sample("m", (9, i + 3), 300, grammar=grammar)) for i in range(40)]
    lengths = [len(c.ids) for (c,) in answers(engine, requests).values()]
    assert max(lengths) <= 15, "an opening quote, ten tokens, the end of a character of several bytes, a closing quote"
    assert len(set(lengths)) > 3


def test_a_grammar_changes_nobody_else_and_keeps_its_own_bits(model):
    def plain(i):
        return f"plain-{i}", Sample("m", (7, i + 3), 30, temperature=0.9, top_p=0.9 if i % 2 else 1.0)

    def held(i):
        return f"held-{i}", Sample("m", (8, i + 3), 320, n=2, grammar=annotate.grammar(1 + i % 3))

    alone = answers(new_engine(model), [plain(i) for i in range(10)])
    mixed = [one for i in range(10) for one in (plain(i), held(i))]
    together = answers(new_engine(model), mixed)
    assert {name: together[name] for name in alone} == alone
    assert answers(new_engine(model), mixed[::-1]) == together
    assert answers(new_engine(model), [held(4)])["held-4"] == together["held-4"]


def test_new_grammars_of_one_family_rarely_compile(model):
    engine = new_engine(model, slots=7, max_length=1000)
    for n in range(1, 9):
        answers(engine, [(f"n{n}", Sample("m", (3, 4), 900, grammar=Grammar(annotate.grammar(n).pattern, 2)))])
    assert engine._compiled.decode._cache_size() <= 8
    before = engine._compiled.decode._cache_size()
    answers(engine, [(f"again{n}", Sample("m", (3, 4), 900, grammar=annotate.grammar(n))) for n in range(1, 9)])
    assert engine._compiled.decode._cache_size() == before


@pytest.mark.parametrize(
    "request_, words",
    [
        (Sample("m", (3,), 5, grammar=annotate.grammar(1)), "max_tokens=5, and the shortest text of its grammar takes"),
        (Sample("m", (3,), 50, grammar=Grammar("a+")), "accepts texts that go on"),
        (Sample("m", (3,), 50, grammar=Grammar("a", -1)), "max_detour=-1: use 0 or more"),
        (Sample("m", (3,), 50, grammar=Grammar("a"), stop=(1,)), "a grammar and stop ids"),
    ],
)
def test_impossible_grammars_are_refused(model, request_, words):
    with pytest.raises(ValueError, match=words):
        new_engine(model).submit("a", request_)


def test_an_engine_without_tokens_knows_no_grammar(model):
    with pytest.raises(ValueError, match="construct it with the bytes of its tokens"):
        LocalEngine(model, CONFIG, pad_id=0, seed=0, max_length=100).submit(
            "a", Sample("m", (3,), 50, grammar=Grammar("a"))
        )


def test_logits_of_nan_fail_with_a_grammar_too(model):
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), model)
    found = answers(new_engine(broken), [("a", Sample("m", (3,), 200, grammar=annotate.grammar(1)))])
    assert isinstance(found["a"], Failure)
