"""Judges and solvers as programs: generators that ask for model work and never touch a model.

A program yields a list of requests (`Sample`, `Score`) and is sent back, per request, the tuple of its
completions; what it returns is its result. `run` keeps many programs in flight over the engines. A program holds
no clock and no randomness of its own, so it can be run again from its start: the journal then answers every
request that was answered before (ARCHITECTURE.md, "Kills").
"""

import dataclasses
import pathlib
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Token ids that several requests share at their start; a prefix may extend another one."""

    ids: tuple[int, ...]
    parent: "Prefix | None" = None

    def all_ids(self) -> tuple[int, ...]:
        """The ids from the root of the chain to the end of this prefix."""
        return (self.parent.all_ids() if self.parent else ()) + self.ids


@dataclasses.dataclass(frozen=True)
class Grammar:
    """What a sample's text must be: `pattern` is a regular expression of which no text begins another.

    At most `max_detour` tokens in a row may bring the end no nearer, which bounds every string and list in it.
    """

    pattern: str
    max_detour: int = 128


@dataclasses.dataclass(frozen=True)
class Sample:
    """Ask `model` for `n` continuations of prefix + ids.

    `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 switch those filters off. Generation ends after a token of
    `stop` (which is kept as the last id) or at `max_tokens`. With a `grammar` every sample is a whole text of it, and
    ends there; `max_tokens` must suffice for the shortest one.
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
        return _behind(self.prefix, self.ids)


@dataclasses.dataclass(frozen=True)
class Score:
    """Ask reward model `model` for its step score at each of `positions` (indices into prefix + ids).

    With `answers`, two token ids, the score is the probability that the second and not the first comes next, whatever
    the engine reads otherwise.
    """

    model: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    prefix: Prefix | None = None
    answers: tuple[int, int] | None = None

    def all_ids(self) -> tuple[int, ...]:
        """All that the model reads."""
        return _behind(self.prefix, self.ids)


def _behind(prefix: Prefix | None, ids: tuple[int, ...]) -> tuple[int, ...]:
    return (prefix.all_ids() if prefix else ()) + ids


Request = Sample | Score


@dataclasses.dataclass(frozen=True)
class Completion:
    """One answer to a request.

    For `Sample`: generated ids (the stop token included) and their log-probabilities in nats under the model at
    temperature 1 without filters; `finish_reason` is "stop" (a stop token, or the end of the grammar) or "length". For
    `Score`: `scores`, one per position. A server's ids are not its tokens and have no log-probabilities: there the two
    counts say what it spent, and what the prompt took is the first completion's.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: str = "stop"
    scores: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    generated_tokens: int | None = None


def tokens_read(request: Request, completions: Sequence[Completion]) -> int:
    """Tokens of a request's prompt, each counted once."""
    counted = completions[0].prompt_tokens if completions else None
    return len(request.all_ids()) if counted is None else counted


def tokens_written(completions: Iterable[Completion]) -> int:
    """Tokens that were generated in all."""
    return sum(len(c.ids) if c.generated_tokens is None else c.generated_tokens for c in completions)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a request has no answer, or a program no result; says what to change. `passing`: asked again, it may have
    one (a server that was down); else it will fail in the same way (a prompt that fills the context)."""

    message: str
    passing: bool = True


Program = Generator[list[Request], list[tuple[Completion, ...]], Any]


class RequestFailed(Exception):
    """Raised inside a program, at its `yield`, where one of the requests could not be answered; `passing` as in
    `Failure`. A program raises it too where it cannot ask at all."""

    def __init__(self, why: str, passing: bool = False):
        super().__init__(why)
        self.passing = passing


class Engine(Protocol):
    """What answers requests. `submit` takes one, or raises ValueError where it can never be answered; `poll` works for
    a while and returns what has been finished."""

    def submit(self, request_id: str, request: Request) -> None: ...

    def poll(self) -> list[tuple[str, tuple[Completion, ...] | Failure]]: ...


class Journal(Protocol):
    """Where completions rest until a stage has ended (store.py keeps it on disk)."""

    def get(self, request_id: str) -> tuple[Completion, ...] | None: ...

    def put(self, request_id: str, completions: tuple[Completion, ...]) -> None: ...


def run(
    engines: Mapping[str, Engine],
    programs: Iterable[tuple[str, Callable[[], Program]]],
    journal: Journal,
    in_flight: int = 1024,
) -> Iterator[tuple[str, Any]]:
    """Run every program and yield (program id, result) in the order in which they end; the result of one that raised
    is a `Failure`. Failures are not journaled: another run tries again.

    Args:
      engines: the engine of each model name that requests use.
      programs: (id, function that starts the program); ids must be unique, they key randomness and journal.
      journal: answers requests that an earlier run had answered, and keeps new answers.
      in_flight: how many programs may wait for an engine at once.
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
            yield program_id, Failure(_said(error), passing=not lasting)
            return
        state.round += 1
        ids = [f"{program_id}/{state.round}/{i}" for i in range(len(requests))]
        state.answers = [journal.get(request_id) for request_id in ids]
        for i, (request_id, request) in enumerate(zip(ids, requests, strict=True)):
            if state.answers[i] is None:
                try:
                    if request.model not in engines:
                        there = ", ".join(engines)
                        raise ValueError(f"request {request_id!r}: {request.model!r} has no engine: there are {there}")
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


def _said(error: Exception) -> str:
    """What went wrong, and where if it was not a request."""
    if isinstance(error, RequestFailed):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({pathlib.PurePath(place.filename).name}, line {place.lineno})"
