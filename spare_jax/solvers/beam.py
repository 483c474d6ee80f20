"""Search guided by a process reward model, step by step: beam search, diverse trees, lookahead.

A candidate is a solution or the beginning of one. In every round each beam, a candidate that was kept, is continued by
several next steps; the reward model scores each new step; and the best candidates are kept:

beam       one tree, in which the best `beams` candidates are kept (arXiv 2408.03314, section 5.2)
dvts       diverse verifier tree search: `beams` independent trees, in each of which the best candidate is kept
           (Beeching, Tunstall and Rush, "Scaling test-time compute with open models", 2024)
lookahead  with either: a candidate's value is that of its greedy continuation by `lookahead` steps (2408.03314, 5.2)
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

# The last tokens of these texts commonly end a line; they are the stop ids of a step, since engines take only a few. A
# line that ends in another token is cut behind it once it has been sampled, and the tokens behind it are wasted.
_LINE_ENDS = ("\n", ".\n", "\n\n", ".\n\n", ")\n", "]\n", "$\n")


@dataclass(frozen=True)
class SearchSettings:
    """How a search proceeds.

    Attributes:
      max_length: the context of policy and reward model, in tokens.
      max_tokens: most tokens of a step.
      tokenizer_digest: of the policy's tokenizer, noted in the solutions.
      method, lookahead: see the module's description.
      beams, width: candidates that are kept per round, and continuations of each.
      max_steps: most rounds.
      aggregation: how step scores become a candidate's value (selection/aggregate.py).
      model, prm: the names of the policy's and the reward model's engines.

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
class SearchResult:
    """The solutions of a search, best first, and the reward model's judgement of each.

    They are those that ended; if none did, the unfinished candidates. `generated_tokens` were sampled, `scored_tokens`
    read by the reward model and `prompt_tokens` by the policy before the first step; a text that several candidates
    begin with counts once.
    """

    solutions: tuple[Solution, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    generated_tokens: int = 0
    scored_tokens: int = 0
    prompt_tokens: int = 0


def search(
    task: "Task", problem: Problem, tokenizer: "Tokenizer", lay_out: LayOut, settings: SearchSettings
) -> Program:
    """The program that searches for solutions of `problem`; returns a SearchResult.

    The first round samples beams * width steps in all. Equal candidates of a tree are one candidate. A candidate that
    has ended stays among the beams as long as it is among the best; the search is over when all beams have ended.

    Args:
      lay_out: how the reward model reads a solution (judges/conventions.py). If the ids of a solution's first steps
        begin the ids of more steps, each step is read by the reward model once; else the whole text is read again.

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
    return SearchResult(
        solutions=solutions,
        judgements=tuple(_judgement(s, c.scores, settings.prm) for s, c in zip(solutions, best, strict=True)),
        generated_tokens=walk.generated_tokens,
        scored_tokens=walk.scored_tokens,
        prompt_tokens=len(walk.prompt.ids),
    )


def read_before_steps(lay_out: LayOut, problem: Problem) -> tuple[int, ...]:
    """The ids that a reward model reads before the first step: those with which the ids of two solutions begin."""
    one, other = (lay_out(problem, Solution("", problem.id, (step,), None, "stop"))[0] for step in ("A", "1"))
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(token for token, _ in pairs)


@dataclass(frozen=True)
class _Candidate:
    """A solution or the beginning of one."""

    tree: int
    text: Prefix  # prompt and sampled ids, as the policy reads them, a piece per step
    read: Prefix  # what the reward model has read of it, a piece per request
    ids: tuple[int, ...] = ()  # the sampled ids
    steps: tuple[str, ...] = ()  # that have been scored
    scores: tuple[float, ...] = ()  # one per scored step
    value: float | None = None
    ended: str = ""  # the finish reason; empty while it may be continued


def _rank(candidate: _Candidate) -> tuple[bool, float]:
    """A key that sorts the greatest value first and candidates without a value last."""
    return candidate.value is None, -(candidate.value or 0.0)


def _judgement(solution: Solution, scores: Sequence[float], judge: str) -> Judgement:
    """The Judgement with these scores of the first steps; a last step that was cut off has none."""
    unread = (StepJudgement(),) * (len(solution.steps) - len(scores))
    return Judgement(solution.id, judge, (*(StepJudgement(score=score) for score in scores), *unread))


_Asking = Generator[list[Request], list[tuple[Completion, ...]], list[_Candidate]]


class _Walk:
    """What the rounds of one search share, and the tokens that they have spent."""

    def __init__(
        self, task: "Task", problem: Problem, tokenizer: "Tokenizer", lay_out: LayOut, settings: SearchSettings
    ):
        self._task, self._problem, self._tokenizer = task, problem, tokenizer
        self._lay_out, self._settings = lay_out, settings
        self._end = end_ids(tokenizer)
        self._stop = tuple(dict.fromkeys((*self._end, *(encode(tokenizer, text)[-1] for text in _LINE_ENDS))))
        self.prompt = Prefix(tuple(encode_chat(tokenizer, solve.render(task, problem))))
        self.read_first = Prefix(read_before_steps(lay_out, problem))
        # By sampled ids and number of steps known before: what the reward model has read, and the new steps' scores.
        self._scored: dict[tuple[tuple[int, ...], int], tuple[Prefix, tuple[float, ...]]] = {}
        self.generated_tokens = 0
        self.scored_tokens = len(self.read_first.ids)

    def room(self, candidate: _Candidate) -> int:
        """How many tokens its next step may have."""
        used = len(self.prompt.ids) + len(candidate.ids)
        return min(self._settings.max_tokens, self._settings.max_length - used)

    def extend(self, parents: Sequence[_Candidate], width: int, greedy: bool = False) -> _Asking:
        """Every parent continued by one step in `width` ways, not yet scored; a parent whose context is full becomes
        one candidate, ended."""
        settings = self._settings
        answers = iter(
            (
                yield [
                    Sample(
                        model=settings.model,
                        ids=(),
                        max_tokens=self.room(parent),
                        prefix=parent.text,
                        n=width,
                        temperature=0.0 if greedy else settings.temperature,
                        top_p=1.0 if greedy else settings.top_p,
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
        """The candidates with the scores of their new steps; a text is scored only once.

        A sampled line may complete several steps, or continue the last one, which is then scored again. A blank line is
        no step and leaves the value as it is; a candidate that was cut off has no value.
        """
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
        """The candidates with the values of their greedy continuations by `lookahead` steps."""
        ahead = list(candidates)
        for _ in range(self._settings.lookahead):
            live = [i for i, candidate in enumerate(ahead) if not candidate.ended]
            longer = yield from self.extend([ahead[i] for i in live], 1, greedy=True)
            longer = yield from self.score(longer)
            for i, candidate in zip(live, longer, strict=True):
                ahead[i] = candidate
        return [replace(c, value=further.value) for c, further in zip(candidates, ahead, strict=True)]

    def solution(self, candidate: _Candidate, k: int) -> Solution:
        """A candidate as solution number k; an unfinished one has the finish reason "length"."""
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
        """`parent` and one line more; ids that were sampled behind the line's end are dropped."""
        ids, ended = completion.ids, "length"
        for i, token in enumerate(completion.ids):
            if token in self._end or "\n" in solve.decode(self._tokenizer, [token]):
                ids, ended = completion.ids[: i + 1], "stop" if token in self._end else ""
                break
        return replace(parent, text=Prefix(ids, parent.text), ids=(*parent.ids, *ids), ended=ended)
