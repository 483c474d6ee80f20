"""`run`: whatever the order of answers, and however often it is killed, the results are the same."""

import hashlib

import pytest

from spare_jax.engines.scripted import Killed, ScriptedEngine
from spare_jax.programs import Completion, Failure, Prefix, RequestFailed, Sample, Score, run


class MemoryJournal:
    """A journal that outlives the engine of a killed run."""

    def __init__(self):
        self.answers = {}
        self.puts = []

    def get(self, request_id):
        return self.answers.get(request_id)

    def put(self, request_id, completions):
        self.answers[request_id] = completions
        self.puts.append(request_id)


def echo(request):
    """Completions that are a function of the request alone, as an engine's must be."""
    if isinstance(request, Score):
        return (Completion(scores=tuple(p / 10 for p in request.positions)),)
    ids = (request.prefix.all_ids() if request.prefix else ()) + request.ids
    digest = hashlib.sha256(repr(ids).encode()).digest()
    return tuple(Completion(ids=(digest[k], digest[k + 1]), logprobs=(-0.5, -0.25)) for k in range(request.n))


def once(start):
    """A program of one round: the sum of what one sample holds."""

    def program():
        [(completion,)] = yield [Sample("writer", (start,), max_tokens=2)]
        return sum(completion.ids)

    return program


def in_rounds(start, rounds):
    """A program of several rounds, each asking for more and for what the answers before it said."""

    def program():
        history = []
        prefix = Prefix((start,))
        for width in range(1, rounds + 1):
            answers = yield [Sample("writer", (i,), max_tokens=2, prefix=prefix, n=2) for i in range(width)] + [
                Score("scorer", (start,), positions=tuple(range(width)))
            ]
            *samples, (score,) = answers
            history.append((tuple(c.ids for pair in samples for c in pair), score.scores))
            prefix = Prefix(samples[0][0].ids, parent=prefix)
        return history

    return program


def programs(count=6):
    for i in range(count):
        yield f"once-{i}", once(i)
        yield f"rounds-{i}", in_rounds(i, 1 + i % 4)


def engines(**options):
    writer = ScriptedEngine(echo, **options)
    return {"writer": writer, "scorer": ScriptedEngine(echo)}


def results(engines, journal, **options):
    return dict(run(engines, programs(), journal, **options))


@pytest.fixture
def unbroken():
    return results(engines(), MemoryJournal())


def test_every_program_ends_with_its_own_answers(unbroken):
    assert set(unbroken) == {name for name, _ in programs()}
    assert unbroken["once-3"] == sum(echo(Sample("writer", (3,), 2))[0].ids)
    assert unbroken["rounds-3"][3][1] == (0.0, 0.1, 0.2, 0.3)
    assert [len(ids) for ids, _ in unbroken["rounds-3"]] == [2, 4, 6, 8]


@pytest.mark.parametrize("options", [{"per_poll": 1}, {"per_poll": 1000}, {"newest_first": True, "per_poll": 3}])
@pytest.mark.parametrize("in_flight", [1, 3, 1024])
def test_results_do_not_depend_on_the_order_of_answers(unbroken, options, in_flight):
    assert results(engines(**options), MemoryJournal(), in_flight=in_flight) == unbroken


def test_no_more_programs_wait_than_in_flight():
    waiting, most = set(), 0

    def program(name):
        def start():
            nonlocal most
            waiting.add(name)
            most = max(most, len(waiting))
            yield [Sample("writer", (1,), 1)]
            waiting.remove(name)

        return start

    list(run(engines(), [(str(i), program(str(i))) for i in range(20)], MemoryJournal(), in_flight=4))
    assert most == 4


def test_request_ids_name_program_round_and_index():
    journal = MemoryJournal()
    list(run(engines(), [("a", in_rounds(0, 2))], journal))
    assert set(journal.answers) == {"a/0/0", "a/0/1", "a/1/0", "a/1/1", "a/1/2"}


def test_the_journal_is_asked_before_any_engine():
    journal = MemoryJournal()
    before = results(engines(), journal)
    journal.puts.clear()
    idle = engines(kill_after=0)
    assert results(idle, journal) == before
    assert not idle["writer"].answered and not idle["scorer"].answered and not journal.puts

    journal.answers["once-0/0/0"] = (Completion(ids=(1000, 1)),)
    assert results(engines(), journal)["once-0"] == 1001


def test_killed_at_every_answer_and_resumed_equals_unbroken(unbroken):
    whole = engines()
    results(whole, MemoryJournal())
    for kill_after in range(0, len(whole["writer"].answered), 3):
        journal = MemoryJournal()
        with pytest.raises(Killed):
            results(engines(kill_after=kill_after), journal)
        known = set(journal.answers)
        resumed = engines()
        assert results(resumed, journal) == unbroken
        assert not known & set(resumed["writer"].answered), "a journaled answer was asked for again"


def test_a_program_that_asks_for_nothing():
    def empty_round():
        answers = yield []
        assert answers == []
        return "done"

    def no_round():
        return "at once"
        yield

    found = dict(run(engines(), [("a", empty_round), ("b", no_round)], MemoryJournal()))
    assert found == {"a": "done", "b": "at once"}


def test_two_programs_of_one_id_are_an_error():
    with pytest.raises(ValueError, match="'twin' is used twice"):
        list(run(engines(), [("twin", once(1)), ("twin", once(2))], MemoryJournal()))


def test_prefix_chains_join_from_the_root():
    chain = Prefix((3,), parent=Prefix((2,), parent=Prefix((0, 1))))
    assert chain.all_ids() == (0, 1, 2, 3)


def test_scripted_engine_checks_the_script():
    engine = ScriptedEngine(lambda request: (Completion(),))
    engine.submit("a", Sample("writer", (1,), 1, n=2))
    with pytest.raises(ValueError, match="asks for 2 completions and the script gave 1"):
        engine.poll()
    with pytest.raises(ValueError, match="submitted twice"):
        engine.submit("a", Sample("writer", (1,), 1))


class Refusing(ScriptedEngine):
    """Refuses the prompt (13,), and fails at (14,)."""

    def submit(self, request_id, request):
        if request.ids == (13,):
            raise ValueError(f"request {request_id!r}: unlucky: take another number")
        super().submit(request_id, request)

    def poll(self):
        return [
            (name, Failure("no number: look at the weights") if name.startswith("bad") else answer)
            for name, answer in super().poll()
        ]


def test_a_program_that_fails_fails_alone():
    def stumbles():
        yield [Sample("writer", (3,), 2)]
        raise KeyError("nowhere")

    def starts_badly():
        raise RuntimeError("at once")
        yield []

    def copes():
        try:
            yield [Sample("writer", (4,), 2), Sample("writer", (13,), 2), Sample("writer", (5,), 2)]
        except RequestFailed as failed:
            [(completion,)] = yield [Sample("writer", (6,), 2)]
            return str(failed), completion.ids
        return None

    odd = {"stumbles": stumbles, "starts": starts_badly, "copes": copes, "bad": once(14), "refused": once(13)}
    odd["unknown"] = lambda: (yield [Sample("nobody", (1,), 2)])
    engines, journal = {"writer": Refusing(echo), "scorer": ScriptedEngine(echo)}, MemoryJournal()
    found = dict(run(engines, [*odd.items(), *programs()], journal))
    assert {name: found[name] for name, _ in programs()} == results(globals()["engines"](), MemoryJournal())
    assert found["stumbles"].message.startswith("KeyError: 'nowhere' (test_programs.py, line ")
    assert found["starts"].message.startswith("RuntimeError: at once (test_programs.py")
    assert "'nobody' has no engine: there are writer, scorer" in found["unknown"].message
    assert found["bad"] == Failure("no number: look at the weights")
    assert found["refused"] == Failure("request 'refused/0/0': unlucky: take another number", passing=False)
    assert found["starts"].passing and not found["unknown"].passing
    assert found["copes"] == ("request 'copes/0/1': unlucky: take another number", echo(Sample("m", (6,), 2))[0].ids)
    assert "bad/0/0" not in journal.answers and "copes/1/0" in journal.answers, "failures are asked for again"
