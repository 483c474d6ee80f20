"""Judges and solvers as programs: generators that ask for model work and never touch a model.

A program yields a list of requests (`Sample`, `Score`) and is sent back, per request, the tuple of its
completions; what it returns is its result. `run` keeps many programs in flight over the engines. A program holds
no clock and no randomness of its own, so it can be run again from its start: the journal then answers every
request that was answered before (ARCHITECTURE.md, "Kills").
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
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
class Sample:
    """Ask `model` for `n` continuations of prefix + ids.

    `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 switch those filters off. Generation ends after a token of
    `stop` (which is kept as the last id) or at `max_tokens`.
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


@dataclasses.dataclass(frozen=True)
class Score:
    """Ask reward model `model` for its step score at each of `positions` (indices into prefix + ids)."""

    model: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    prefix: Prefix | None = None


Request = Sample | Score


@dataclasses.dataclass(frozen=True)
class Completion:
    """One answer to a request.

    For `Sample`: generated ids (the stop token included) and their log-probabilities in nats under the model at
    temperature 1 without filters; `finish_reason` is "stop" or "length". For `Score`: `scores`, one per position.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: str = "stop"
    scores: tuple[float, ...] = ()


Program = Generator[list[Request], list[tuple[Completion, ...]], Any]


class Engine(Protocol):
    """What answers requests. `submit` takes one, `poll` works for a while and returns what has been finished."""

    def submit(self, request_id: str, request: Request) -> None: ...

    def poll(self) -> list[tuple[str, tuple[Completion, ...]]]: ...


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
    """Run every program and yield (program id, result) in the order in which they end.

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
            yield from _advance(program_id, active, owner, engines, journal, None)
        if not active:
            if exhausted:
                return
            continue
        for engine in {id(e): e for e in engines.values()}.values():
            for request_id, completions in engine.poll():
                journal.put(request_id, completions)
                program_id, index = owner.pop(request_id)
                state = active[program_id]
                state.answers[index] = completions
                if all(a is not None for a in state.answers):
                    yield from _advance(program_id, active, owner, engines, journal, state.answers)


@dataclasses.dataclass
class _Active:
    program: Program
    round: int = 0
    answers: list[Any] = dataclasses.field(default_factory=list)


def _advance(program_id, active, owner, engines, journal, answers) -> Iterator[tuple[str, Any]]:
    """Send `answers` to the program; submit what it asks for next; go on while the journal knows everything."""
    state = active[program_id]
    while True:
        try:
            requests = state.program.send(answers)
        except StopIteration as stop:
            del active[program_id]
            yield program_id, stop.value
            return
        ids = [f"{program_id}/{state.round}/{i}" for i in range(len(requests))]
        state.round += 1
        state.answers = [journal.get(request_id) for request_id in ids]
        for i, (request_id, request) in enumerate(zip(ids, requests, strict=True)):
            if state.answers[i] is None:
                owner[request_id] = (program_id, i)
                engines[request.model].submit(request_id, request)
        if any(a is None for a in state.answers):
            return
        answers = state.answers
