"""Tree search: the first error of a wrong solution by binary search over rollouts (OmegaPRM, arXiv 2406.06592).

A state is the first steps of a solution. While these are right, some rollout behind the state ends right; once they
contain an error, none does. So the first error lies between the last state with a right rollout and the first without,
and bisection finds it in log2(n) rounds. The wrong rollouts that are met on the way are solutions with an error too:
the tree keeps them, and further searches take the most promising one.
"""

import json
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from spare_jax.formats.fields import prompt
from spare_jax.judges.outcome import is_correct, require_answers
from spare_jax.judges.rollouts import NO_ROLLOUT, Continuation, RolloutSettings, continuation, share_right
from spare_jax.keys import unlisted
from spare_jax.programs import Completion, Program, Request, tokens_read, tokens_written
from spare_jax.prompts import solve
from spare_jax.prompts.chat import end_ids
from spare_jax.records import UNDECIDED, Gold, Judgement, Problem, Solution, StepJudgement, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

Piece = tuple[int, ...]
T = TypeVar("T")


# Which wrong rollout is searched next: the rollout r behind a state s with the greatest Q + U (after OmegaPRM, section
# 3.3), where Q = ALPHA^(1 - MC(s)) * BETA^(tokens(r) / LENGTH), MC(s) is the share of right rollouts behind s, and
# U = EXPLORATION * sqrt(all visits) / (1 + visits of s).
ALPHA, BETA, LENGTH, EXPLORATION = 0.5, 0.9, 500, 0.125


@dataclass(frozen=True)
class TreeSettings(RolloutSettings):
    """How a tree grows: how the policy continues a state, `samples` times each, and how many wrong solutions are
    searched, first the given one and then wrong rollouts."""

    searches: int = 1
    judge: str = unlisted("tree_search")


@dataclass
class _Candidate:
    """A wrong solution whose first steps are a state: the ids of its pieces, its steps, how many of these are the
    state's, and the tokens behind the state."""

    pieces: tuple[Piece, ...]
    steps: tuple[str, ...]
    known: int
    tokens: int


@dataclass
class _Tree:
    """What is known of each state, by the ids of its pieces: the share of right rollouts behind it, its steps, and how
    many rollouts behind it were searched; the wrong rollouts that were not searched; and the tokens spent."""

    policy: Continuation
    value: dict[tuple[Piece, ...], float] = field(default_factory=dict)
    steps: dict[tuple[Piece, ...], tuple[str, ...]] = field(default_factory=dict)
    visits: dict[tuple[Piece, ...], int] = field(default_factory=dict)
    wrong: list[_Candidate] = field(default_factory=list)
    prompt_tokens: int = 0
    generated_tokens: int = 0


def tree_search(
    task: "Task",
    problem: Problem,
    gold: Gold,
    solution: Solution,
    tokenizer: "Tokenizer",
    tokenizer_digest: str,
    settings: TreeSettings,
) -> Program:
    """The program that finds a wrong solution's first error, asking for one state's rollouts per round, and returns its
    Judgement.

    Steps before the first error are right, it and the steps behind it wrong. A step's score is the share of right
    rollouts behind it where the search has asked for these. A solution whose answer is right is not searched: all its
    steps are right, as in OmegaPRM. If no rollout behind a state counts (judges/rollouts.py), the first error is not
    found and the solution is not judged. The text holds all states of the tree as a row of OmegaPRM's flat format
    (docs/formats.md, `omegaprm`).

    Raises:
      RequestFailed: the policy could not be asked.
      ValueError: no accepted answer is known.
    """
    require_answers(gold, settings.judge)
    outcome = is_correct(task, gold, solution)
    tree = _Tree(continuation(task, problem, gold, tokenizer, settings))
    n_steps = len(solution.steps)
    first_error = n_steps
    scores: list[float | None] = [None] * n_steps
    if outcome is None:
        return not_judged(solution, settings.judge, UNDECIDED)
    if n_steps and not outcome:
        pieces = tuple(map(tuple, solve.piece_ids(tokenizer, solution, tokenizer_digest)))
        given = _Candidate(pieces, solution.steps, 0, sum(map(len, pieces)))
        searched = yield from _search(tree, given)
        if searched is None:
            spent = tree.prompt_tokens, tree.generated_tokens
            return not_judged(solution, settings.judge, NO_ROLLOUT, _flat(problem, gold, tree), *spent)
        first_error = searched
        for i in range(n_steps - 1):
            scores[i] = tree.value.get(pieces[: i + 1])
        scores[-1] = 0.0
        for _ in range(settings.searches - 1):
            chosen = _select(tree)
            if chosen is None:
                break
            yield from _search(tree, chosen)
    elif n_steps:
        scores[-1] = 1.0
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(StepJudgement(label=i < first_error, score=score) for i, score in enumerate(scores)),
        outcome=outcome,
        text=_flat(problem, gold, tree),
        prompt_tokens=tree.prompt_tokens,
        generated_tokens=tree.generated_tokens,
    )


_Asking = Generator[list[Request], list[tuple[Completion, ...]], T]


def _search(tree: _Tree, candidate: _Candidate) -> _Asking[int | None]:
    """The index of a wrong solution's first error, from 0, asking for one state's rollouts at a time; None where no
    rollout behind a state counts."""
    right, wrong = candidate.known, len(candidate.steps)  # states: how many steps have been taken
    while wrong - right > 1:
        middle = (right + wrong) // 2
        state = candidate.pieces[:middle]
        if state not in tree.value:
            yield from _estimate(tree, state, candidate.steps[:middle])
        value = tree.value.get(state)
        if value is None:
            return None
        right, wrong = (middle, wrong) if value > 0 else (right, middle)
    return wrong - 1


def _estimate(tree: _Tree, state: tuple[Piece, ...], steps: tuple[str, ...]) -> _Asking[None]:
    """Ask for the rollouts behind a state, and keep its value and the wrong ones. A state has no value if it fills the
    context or none of its rollouts counts."""
    request = tree.policy.request(state)
    if request is None:
        return
    (completions,) = yield [request]
    tree.prompt_tokens += tokens_read(request, completions)
    tree.generated_tokens += tokens_written(completions)
    tokenizer = tree.policy.tokenizer
    for completion in completions:
        if tree.policy.ended_right(completion) is False:
            texts, spans, _ = solve.split_solution(
                tokenizer, completion.ids, end_ids(tokenizer), tree.policy.task.split_steps
            )
            pieces = map(tuple, solve.cut_pieces(completion.ids, spans))
            tree.wrong.append(_Candidate((*state, *pieces), (*steps, *texts), len(steps), len(completion.ids)))
    value = share_right(tree.policy, completions)
    if value is not None:
        tree.steps[state], tree.value[state] = steps, value


def _select(tree: _Tree) -> _Candidate | None:
    """Remove and return the most promising wrong rollout, behind states that have right rollouts too and with two or
    more steps of its own; None where there is none."""
    total = sum(tree.visits.values())

    def promise(candidate: _Candidate) -> float:
        state = candidate.pieces[: candidate.known]
        likely, short = ALPHA ** (1 - tree.value[state]), BETA ** (candidate.tokens / LENGTH)
        return likely * short + EXPLORATION * math.sqrt(total) / (1 + tree.visits.get(state, 0))

    among = [c for c in tree.wrong if tree.value[c.pieces[: c.known]] > 0 and len(c.steps) > c.known + 1]
    if not among:
        return None
    chosen = max(among, key=promise)
    tree.wrong.remove(chosen)
    state = chosen.pieces[: chosen.known]
    tree.visits[state] = tree.visits.get(state, 0) + 1
    return chosen


def _flat(problem: Problem, gold: Gold, tree: _Tree) -> str:
    """All states with their values, as a row of the format `omegaprm`; empty where none was estimated."""
    if not tree.value:
        return ""
    question = prompt(problem)
    reasoning = [
        {"solution_prefix": "\n\n".join((question, *tree.steps[state])), "mc_value": value}
        for state, value in tree.value.items()
    ]
    row = {"question": question, "final_answer": gold.answers[0], "reasoning_steps": reasoning}
    return json.dumps(row, ensure_ascii=False)
