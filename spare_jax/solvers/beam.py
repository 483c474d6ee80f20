"""Search guided by a process reward model, step by step: beam search, diverse trees, lookahead.

A candidate is a solution that may not have ended. In every round each beam is continued by several next steps, the
reward model reads each new step behind what it has read before, and the best go on:

beam       one tree: of all its candidates the best `beams` go on (arXiv 2408.03314, section 5.2)
dvts       diverse verifier tree search: `beams` trees that never meet, the best candidate of each goes on (Beeching,
           Tunstall and Rush, "Scaling test-time compute with open models", 2024)
lookahead  with either: a candidate is worth what greedy decoding comes to, `lookahead` steps further (2408.03314, 5.2)
"""

import itertools
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.judges.reward_model import LayOut
from spare_jax.keys import unlisted
from spare_jax.programs import Completion, Prefix, Program, Request, Sample, Score, tokens_written
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode, encode_chat, end_ids
from spare_jax.records import Judgement, Problem, Solution, StepJudgement
from spare_jax.selection.aggregate import AGGREGATIONS, aggregate

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

METHODS = ("beam", "dvts")

# Texts whose last token commonly ends a line. A line that ends in another token is cut there once it is sampled; what
# came behind was sampled in vain, and engines take only a few stop ids.
_LINE_ENDS = ("\n", ".\n", "\n\n", ".\n\n", ")\n", "]\n", "$\n")


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes: `beams` candidates, each continued in `width` ways per round, for `max_steps` rounds at most.

    A next step has `max_tokens` at most; `max_length` is the context of policy and reward model. `aggregation` makes a
    candidate's value of its step scores (selection/aggregate.py). `model` and `prm` name the engines.

    Raises:
      ValueError: a setting is out of its range.
    """

    max_length: int = unlisted(sys.maxsize)
    max_tokens: int = unlisted(64)
    tokenizer_digest: str = unlisted("")
    method: str = "beam"
    beams: int = 4
    width: int = 4
    lookahead: int = unlisted(0)
    max_steps: int = unlisted(16)
    temperature: float = unlisted(1.0)
    top_p: float = unlisted(1.0)
    aggregation: str = "last"
    model: str = unlisted("generator")
    prm: str = unlisted("prm")

    def __post_init__(self):
        for name, known in (("method", METHODS), ("aggregation", AGGREGATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"search: {name}={getattr(self, name)!r} is unknown: use one of {', '.join(known)}")
        for name, least in (("beams", 1), ("width", 1), ("max_steps", 1), ("max_tokens", 1), ("lookahead", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"search: {name}={getattr(self, name)}: set it to {least} or more")


@dataclass(frozen=True)
class Found:
    """What a search came to, the best first: the solutions that ended, or where none did those on their way; and the
    reward model's judgement of each.

    Tokens: `generated_tokens` were sampled, `scored_tokens` read by the reward model and `prompt_tokens` by the policy
    before the first step; what stands behind the same text is read once.
    """

    solutions: tuple[Solution, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    generated_tokens: int = 0
    scored_tokens: int = 0
    prompt_tokens: int = 0


def search(
    task: "Task", problem: Problem, tokenizer: "Tokenizer", lay_out: LayOut, settings: SearchSettings
) -> Program:
    """The program that searches for solutions of `problem`; returns what it Found.

    The first round samples beams * width steps in all. Candidates of a tree that say the same are one candidate, and
    those that have ended keep their place among the beams while their value lets them; the search ends when no beam
    goes on. `lay_out` (judges/conventions.py) says how the reward model reads a solution. Where what it gives for some
    steps begins what it gives for more of them, each step is read once; else the whole text is read again.

    Raises:
      ValueError: the prompt fills the context.
    """
    walk = _Walk(task, problem, tokenizer, lay_out, settings)
    trees = settings.beams if settings.method == "dvts" else 1
    kept = settings.beams // trees
    beams = [_Candidate(tree, walk.prompt, walk.read_first) for tree in range(trees)]
    if walk.room(beams[0]) < 1:
        raise ValueError(
            f"the prompt of problem {problem.id} has {len(walk.prompt.ids)} tokens and fills "
            f"max_length={settings.max_length}: raise it"
        )
    complete: list[_Candidate] = []
    for round_ in range(settings.max_steps):
        live = [beam for beam in beams if not beam.ended]
        if not live:
            break
        sampled = yield from walk.extend(live, settings.width * (kept if round_ == 0 else 1))
        grown = yield from walk.score(list({(c.tree, c.ids): c for c in sampled}.values()))
        if settings.lookahead:
            grown = yield from walk.look_ahead(grown)
        complete += [c for c in grown if c.ended == "stop"]
        ranked = sorted([beam for beam in beams if beam.ended] + grown, key=_rank)
        beams = [c for tree in range(trees) for c in [c for c in ranked if c.tree == tree][:kept]]
    best = sorted(complete or beams, key=_rank)
    solutions = tuple(walk.solution(c, k) for k, c in enumerate(best))
    return Found(
        solutions=solutions,
        judgements=tuple(_judgement(s, c.scores, settings.prm) for s, c in zip(solutions, best, strict=True)),
        generated_tokens=walk.generated_tokens,
        scored_tokens=walk.scored_tokens,
        prompt_tokens=len(walk.prompt.ids),
    )


def read_before_steps(lay_out: LayOut, problem: Problem) -> tuple[int, ...]:
    """The ids that a reward model reads before any step: up to where two solutions begin to differ."""
    one, other = (lay_out(problem, Solution("", problem.id, (step,), None, "stop"))[0] for step in ("A", "1"))
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(token for token, _ in pairs)


@dataclass(frozen=True)
class _Candidate:
    """A solution on its way, in a tree: the policy's text as a chain of pieces and the reward model's likewise; the
    sampled ids; the steps that were scored and their scores, what it is worth, and why it went no further ("" while it
    may)."""

    tree: int
    text: Prefix
    read: Prefix
    ids: tuple[int, ...] = ()
    steps: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    value: float | None = None
    ended: str = ""


def _rank(candidate: _Candidate) -> tuple[bool, float]:
    """Sorts the best first, and those without a value last."""
    return candidate.value is None, -(candidate.value or 0.0)


def _judgement(solution: Solution, scores: Sequence[float], judge: str) -> Judgement:
    """The scores as a judgement; a step that was cut off has none."""
    unread = (StepJudgement(),) * (len(solution.steps) - len(scores))
    return Judgement(solution.id, judge, (*(StepJudgement(score=score) for score in scores), *unread))


_Asking = Generator[list[Request], list[tuple[Completion, ...]], list[_Candidate]]


class _Walk:
    """What the rounds of one search share, and the tokens they have taken."""

    def __init__(
        self, task: "Task", problem: Problem, tokenizer: "Tokenizer", lay_out: LayOut, settings: SearchSettings
    ):
        self._task, self._problem, self._tokenizer = task, problem, tokenizer
        self._lay_out, self._settings = lay_out, settings
        self._end = end_ids(tokenizer)
        self._stop = tuple(dict.fromkeys((*self._end, *(encode(tokenizer, text)[-1] for text in _LINE_ENDS))))
        self.prompt = Prefix(tuple(encode_chat(tokenizer, solve.render(task, problem))))
        self.read_first = Prefix(read_before_steps(lay_out, problem))
        # What was read and the scores of the steps that were new, by sampled ids and the number of known steps.
        self._scored: dict[tuple[tuple[int, ...], int], tuple[Prefix, tuple[float, ...]]] = {}
        self.generated_tokens = 0
        self.scored_tokens = len(self.read_first.ids)

    def room(self, candidate: _Candidate) -> int:
        """How many tokens its next step may have."""
        used = len(self.prompt.ids) + len(candidate.ids)
        return min(self._settings.max_tokens, self._settings.max_length - used)

    def extend(self, parents: Sequence[_Candidate], width: int, greedy: bool = False) -> _Asking:
        """Every parent continued by a step in `width` ways, in their order, not yet scored. Where the context is full a
        parent stands for itself, ended."""
        how = self._settings
        answers = iter(
            (
                yield [
                    Sample(
                        model=how.model,
                        ids=(),
                        max_tokens=self.room(parent),
                        prefix=parent.text,
                        n=width,
                        temperature=0.0 if greedy else how.temperature,
                        top_p=1.0 if greedy else how.top_p,
                        stop=self._stop,
                    )
                    for parent in parents
                    if self.room(parent) > 0
                ]
            )
        )
        grown: list[_Candidate] = []
        for parent in parents:
            if self.room(parent) < 1:
                grown.append(replace(parent, ended="length"))
                continue
            completions = next(answers)
            self.generated_tokens += tokens_written(completions)
            grown += [self._continued(parent, completion) for completion in completions]
        return grown

    def score(self, candidates: Sequence[_Candidate]) -> _Asking:
        """The candidates with the scores of their new steps; a text that was scored before is not asked for again. A
        line may end several steps, or go on with the last one, which is then read again. A blank line is no step and
        leaves the value as it was; what was cut off has none."""
        scored, asked, places = list(candidates), {}, []
        for i, candidate in enumerate(candidates):
            partial = self.solution(candidate, 0)
            same = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(candidate.steps, partial.steps, strict=False)
            )
            known = sum(1 for _ in same)
            if known < len(candidate.steps):
                candidate = replace(candidate, steps=candidate.steps[:known], scores=candidate.scores[:known])
            if candidate.ended == "length":
                scored[i] = replace(candidate, value=None)
                continue
            if known == len(partial.steps):
                scored[i] = candidate
                continue
            ids, positions = self._lay_out(self._problem, partial)
            end = positions[-1] + 1
            if end > self._settings.max_length:
                scored[i] = replace(candidate, value=None, ended="length")
                continue
            places.append((i, replace(candidate, steps=partial.steps)))
            if (candidate.ids, known) not in self._scored:
                read = candidate.read.all_ids()
                behind = candidate.read if tuple(ids[: len(read)]) == read else None
                new = tuple(ids[len(read) if behind else 0 : end])
                asked[candidate.ids, known] = Score(self._settings.prm, new, tuple(positions[known:]), behind)
        answers = yield list(asked.values())
        for (key, request), (completion,) in zip(asked.items(), answers, strict=True):
            self.scored_tokens += len(request.ids)
            self._scored[key] = Prefix(request.ids, request.prefix), tuple(completion.scores)
        for i, candidate in places:
            read, new = self._scored[candidate.ids, len(candidate.scores)]
            scores = (*candidate.scores, *new)
            value = aggregate(scores, self._settings.aggregation)
            scored[i] = replace(candidate, read=read, scores=scores, value=value)
        return scored

    def look_ahead(self, candidates: Sequence[_Candidate]) -> _Asking:
        """The candidates with the values that greedy decoding comes to, `lookahead` steps further."""
        ahead = list(candidates)
        for _ in range(self._settings.lookahead):
            live = [i for i, candidate in enumerate(ahead) if not candidate.ended]
            longer = yield from self.extend([ahead[i] for i in live], 1, greedy=True)
            longer = yield from self.score(longer)
            for i, candidate in zip(live, longer, strict=True):
                ahead[i] = candidate
        return [replace(c, value=further.value) for c, further in zip(candidates, ahead, strict=True)]

    def solution(self, candidate: _Candidate, k: int) -> Solution:
        """A candidate as a record; one that did not end has the finish reason "length"."""
        steps, spans, _ = solve.split_solution(self._tokenizer, candidate.ids, self._end, self._task.split_steps)
        return Solution(
            id=f"{self._problem.id}/{k:03d}",
            problem_id=self._problem.id,
            steps=steps,
            answer=self._task.extract_answer(steps),
            finish_reason=candidate.ended or "length",
            token_ids=candidate.ids,
            spans=spans,
            tokenizer=self._settings.tokenizer_digest,
            prompt_tokens=len(self.prompt.ids),
        )

    def _continued(self, parent: _Candidate, completion: Completion) -> _Candidate:
        """`parent` and one line more: what was sampled behind its end is dropped."""
        ids, ended = completion.ids, "length"
        for i, token in enumerate(completion.ids):
            if token in self._end or "\n" in solve.decode(self._tokenizer, [token]):
                ids, ended = completion.ids[: i + 1], "stop" if token in self._end else ""
                break
        return replace(parent, text=Prefix(ids, parent.text), ids=(*parent.ids, *ids), ended=ended)
