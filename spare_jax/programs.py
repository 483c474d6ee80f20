"""Judges and solvers as programs: generators that ask for model work and never touch a model.

A program yields a list of requests (`Sample`, `Score`) and is sent back, per request, the tuple of its completions;
what it returns is its result. `run` keeps many programs in flight over the engines. A program reads no clock and draws
no random numbers, so after a kill it is run again from its start, and the journal answers every request that was
answered before (ARCHITECTURE.md, "Kills").
"""

import dataclasses
import pathlib
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Token ids with which the prompts of several requests begin; they follow those of `parent`, if there is one. An
    engine reads a prefix once for all requests that name it."""

    ids: tuple[int, ...]
    parent: "Prefix | None" = None

    def all_ids(self) -> tuple[int, ...]:
        """The ids of all parents, from the first one on, and of this prefix."""
        return (self.parent.all_ids() if self.parent else ()) + self.ids


@dataclasses.dataclass(frozen=True)
class Grammar:
    """What the text of a sample must match: `pattern`, a regular expression that is prefix-free (no text that matches
    is the beginning of another one that does, so a sample ends where it matches).

    After `max_detour` tokens in a row that come no closer to a match only such are allowed as do, which bounds the
    strings and lists in it.
    """

    pattern: str
    max_detour: int = 128


@dataclasses.dataclass(frozen=True)
class Sample:
    """A request: `n` continuations of `prefix` + `ids` from `model`, at most `max_tokens` tokens each.

    `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 switch those filters off. Generation ends after a token of
    `stop`, which is kept as the last id. With a `grammar` every sample is a whole match of it and ends there;
    `max_tokens` must be enough for the shortest match.
    """

    model: str
    ids: tuple[int, ...]
    max_tokens: int
    prefix: Prefix | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[int, ...] = ()
    grammar: Grammar | None = None

    def all_ids(self) -> tuple[int, ...]:
        """The whole prompt."""
        return _all_ids(self.prefix, self.ids)


@dataclasses.dataclass(frozen=True)
class Score:
    """A request: the score of reward model `model` at each of `positions`, indices into `prefix` + `ids`, where steps
    end.

    The score is what the engine's reading of the model gives. With `answers`, two token ids, it is instead the
    probability that the second comes next, given that one of the two does.
    """

    model: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    prefix: Prefix | None = None
    answers: tuple[int, int] | None = None

    def all_ids(self) -> tuple[int, ...]:
        """All that the model reads."""
        return _all_ids(self.prefix, self.ids)


def _all_ids(prefix: Prefix | None, ids: tuple[int, ...]) -> tuple[int, ...]:
    return (prefix.all_ids() if prefix else ()) + ids


Request = Sample | Score


@dataclasses.dataclass(frozen=True)
class Completion:
    """One answer to a request: `Sample` gets n of them, `Score` one.

    Of a `Sample`: the generated ids, stop token included, and their log-probabilities in nats under the model at
    temperature 1 without filters or grammar; `finish_reason` is "stop" (a stop token, or the end of a match) or
    "length". Of a `Score`: `scores`, one per position.

    The ids that the engine of a server returns stand for text, not for the server's tokens, and have no
    log-probabilities. So the server's own counts come with them: `generated_tokens` of each completion, and
    `prompt_tokens` of the request with the first one. Elsewhere both are None, and the ids are counted.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: str = "stop"
    scores: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    generated_tokens: int | None = None


def tokens_read(request: Request, completions: Sequence[Completion]) -> int:
    """Tokens of a request's prompt, counted once however many samples it has."""
    counted = completions[0].prompt_tokens if completions else None
    return len(request.all_ids()) if counted is None else counted


def tokens_written(completions: Iterable[Completion]) -> int:
    """Tokens that were generated in all completions."""
    return sum(len(c.ids) if c.generated_tokens is None else c.generated_tokens for c in completions)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a request has no answer, or a program no result; `message` says what to change. `passing`: the cause may pass
    and another try may succeed (a server that was down); otherwise another try fails alike (a prompt that is too long).
    """

    message: str
    passing: bool = True


Program = Generator[list[Request], list[tuple[Completion, ...]], Any]


class RequestFailed(Exception):
    """One of a program's requests could not be answered: raised inside the program, at its `yield`. A program raises it
    itself where it cannot even make its request. `passing` is as in `Failure`."""

    def __init__(self, reason: str, passing: bool = False):
        super().__init__(reason)
        self.passing = passing


class Engine(Protocol):
    """What answers requests. `submit` queues one, and raises ValueError where it can never be answered; `poll` works
    for a while and returns the answers that are finished by then, each with its request's id."""

    def submit(self, request_id: str, request: Request) -> None: ...

    def poll(self) -> list[tuple[str, tuple[Completion, ...] | Failure]]: ...


class Journal(Protocol):
    """Answers to requests, kept until the stage that asked has ended (store.py keeps them on disk)."""

    def get(self, request_id: str) -> tuple[Completion, ...] | None: ...

    def put(self, request_id: str, completions: tuple[Completion, ...]) -> None: ...


def run(
    engines: Mapping[str, Engine],
    programs: Iterable[tuple[str, Callable[[], Program]]],
    journal: Journal,
    in_flight: int = 1024,
) -> Iterator[tuple[str, Any]]:
    """Run every program and yield (program id, result) in the order in which they end. A program that raises has a
    `Failure` as its result and stops no other; failures are not journaled, so that another run tries again.

    Request i of round r of a program has the id "<program id>/r/i", on which its random numbers depend.

    Args:
      engines: the engine of each model name that requests use.
      programs: (id, function that starts the program).
      journal: has the answers of earlier runs, and is given the new ones.
      in_flight: how many programs may wait for an engine at once.

    Raises:
      ValueError: two programs that run at the same time have one id.
    """
    waiting = iter(programs)
    active: dict[str, _Active] = {}
    owner: dict[str, tuple[str, int]] = {}
    exhausted = False
    while True:
        while not exhausted and len(active) < in_flight:
            item = next(waiting, None)
            if item is None:
                exhausted = True
                break
            program_id, start = item
            if program_id in active:
                raise ValueError(f"program id {program_id!r} is used twice: ids must be unique")
            active[program_id] = _Active(start())
            yield from _advance(program_id, active, owner, engines, journal)
        if not active:
            if exhausted:
                return
            continue
        for engine in {id(e): e for e in engines.values()}.values():
            for request_id, answer in engine.poll():
                if not isinstance(answer, Failure):
                    journal.put(request_id, answer)
                program_id, index = owner.pop(request_id)
                active[program_id].answers[index] = answer
                yield from _advance(program_id, active, owner, engines, journal)


@dataclasses.dataclass
class _Active:
    program: Program
    round: int = -1
    answers: list[tuple[Completion, ...] | Failure | None] = dataclasses.field(default_factory=list)


def _advance(program_id, active, owner, engines, journal) -> Iterator[tuple[str, Any]]:
    """While the program's round is answered, send it the answers and submit what it asks for next."""
    state = active[program_id]
    while all(answer is not None for answer in state.answers):
        try:
            requests = _send(state)
        except StopIteration as stop:
            del active[program_id]
            yield program_id, stop.value
            return
        except Exception as error:  # whatever a program stumbles on is its own affair
            del active[program_id]
            lasting = not error.passing if isinstance(error, RequestFailed) else isinstance(error, ValueError)
            yield program_id, Failure(_described(error), passing=not lasting)
            return
        state.round += 1
        ids = [f"{program_id}/{state.round}/{i}" for i in range(len(requests))]
        state.answers = [journal.get(request_id) for request_id in ids]
        for i, (request_id, request) in enumerate(zip(ids, requests, strict=True)):
            if state.answers[i] is None:
                try:
                    if request.model not in engines:
                        known = ", ".join(engines)
                        raise ValueError(f"request {request_id!r}: {request.model!r} has no engine: there are {known}")
                    engines[request.model].submit(request_id, request)
                except ValueError as error:
                    state.answers[i] = Failure(str(error), passing=False)
                else:
                    owner[request_id] = (program_id, i)


def _send(state: _Active) -> list[Request]:
    """The requests of a program's next round."""
    if state.round < 0:
        return next(state.program)
    failures = [answer for answer in state.answers if isinstance(answer, Failure)]
    if failures:
        failure = min(failures, key=lambda failure: failure.passing)  # one that lasts decides
        return state.program.throw(RequestFailed(failure.message, failure.passing))
    return state.program.send(state.answers)  # pyright: ignore[reportArgumentType]


def _described(error: Exception) -> str:
    """What went wrong, and where in the program's code if it was not a request that failed."""
    if isinstance(error, RequestFailed):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({pathlib.PurePath(place.filename).name}, line {place.lineno})"
