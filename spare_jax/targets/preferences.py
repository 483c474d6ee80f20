"""Preference data: from the judged solutions of a problem to pairs of a better one and a worse one.

SPARE scores a solution by its outcome y and its mean step label (arXiv 2506.15498, the part on SPARE-ORPO). A rule says
which pairs are allowed:

outcome  the chosen answer is right and the rejected one wrong (Outcome-ORPO)
spare    as outcome, and the chosen solution has the higher mean step label (SPARE-ORPO)
step     after the same right steps, a right step against the first wrong step of a wrong solution; both solutions are
         cut after that step (Step-DPO, arXiv 2406.18629, section 3)

The pairs that are drawn for a problem depend on the seed and its id, not on the order of the records.
"""

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from spare_jax.formats import files
from spare_jax.keys import unlisted
from spare_jax.records import Gold, Judgement, LabelledSolution, Preference, Problem, Solution
from spare_jax.storage.store import WorkDir
from spare_jax.targets.labels import REFERENCE, reference_solution

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

CUT = "cut"  # the `finish_reason` of the first steps of a solution: no end-of-text token may follow them


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """Which pairs are made. A limit may be None. Below are the paper's values for train and, in brackets, for dev.

    The paper draws up to 10 (1) unique pairs of a problem, adds the reference as chosen against each distinct rejected
    solution, and resamples these to 10 (2) per problem. Here `sampled_pairs` limits the pairs of samples, and
    `pairs_per_problem` these together with the reference's, by a second draw without repetition. A problem with fewer
    pairs keeps all of them.

    `rule`: a key of RULES. `cap` limits the whole set (in the paper 19,500, 760): pairs are taken so that no problem
    has two fewer than another because of it. `reference_as_chosen`: the reference, with all steps right, is the chosen
    side against every distinct solution that the rule allows, also where no sample is right.
    """

    rule: str = unlisted("spare")
    sampled_pairs: int | None = 10
    pairs_per_problem: int | None = 10
    cap: int | None = None
    reference_as_chosen: bool = True
    seed: int = unlisted(0)

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule of preference pairs is {self.rule!r}: set it to one of {', '.join(RULES)}")


@dataclasses.dataclass(frozen=True)
class PairCounts:
    """How many problems, solutions and pairs there were, and why others were left out.

    `problems`: all; `not_sampled`: without solutions; `no_right`, `no_wrong`: none of the samples with an outcome is
    right, or wrong; `no_pair`: without a pair in the set.
    `solutions`: all; left out are `without_steps`, `not_judged` (the judge failed, or the outcome is undecided),
    `without_outcome`, and `duplicates` (the same text as another one, or as the reference). Of the others `unlabelled`:
    no step has a label; `unmatched`: wrong, and the rule allows no pair in which they are rejected.
    `candidates`: pairs that the rule allows; `over_limit`: of these not drawn for their problem; `over_cap`: not taken
    into the set; `pairs`: the rest; `reference_pairs`: of these with the reference as chosen.
    """

    problems: int = 0
    not_sampled: int = 0
    solutions: int = 0
    without_steps: int = 0
    not_judged: int = 0
    without_outcome: int = 0
    duplicates: int = 0
    unlabelled: int = 0
    unmatched: int = 0
    no_right: int = 0
    no_wrong: int = 0
    no_pair: int = 0
    candidates: int = 0
    over_limit: int = 0
    over_cap: int = 0
    pairs: int = 0
    reference_pairs: int = 0


@dataclasses.dataclass(frozen=True)
class Scored:
    """A solution with its outcome, and one label per step (None where unknown) or no labels."""

    solution: Solution
    outcome: bool
    labels: tuple[bool | None, ...] = ()

    @property
    def text(self) -> str:
        """The solution's text; solutions with the same text count once."""
        return "\n".join(self.solution.steps)

    @property
    def mean_label(self) -> float | None:
        """The share of right steps among those with a label; None where no step has one."""
        known = [label for label in self.labels if label is not None]
        return sum(known) / len(known) if known else None

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled wrong if all steps before it are labelled right, else None."""
        at = next((i for i, label in enumerate(self.labels) if label is not True), None)
        return at if at is not None and self.labels[at] is False else None


def outcome_allows(chosen: Scored, rejected: Scored) -> bool:
    """Outcome-ORPO's pairs: right against wrong (arXiv 2506.15498)."""
    return chosen.outcome and not rejected.outcome


def spare_allows(chosen: Scored, rejected: Scored) -> bool:
    """SPARE-ORPO's pairs: the chosen solution is better in both outcome and mean step label (arXiv 2506.15498). Where a
    mean is unknown there is no pair."""
    better, worse = chosen.mean_label, rejected.mean_label
    return outcome_allows(chosen, rejected) and better is not None and worse is not None and better > worse


def step_allows(chosen: Scored, rejected: Scored) -> bool:
    """Step-DPO's pairs on the first error of a wrong solution: `chosen` has the same steps before it and another step
    in its place, all labelled right.

    Step-DPO samples new continuations of the right steps and takes one that ends right; here one of the samples at hand
    is taken, whose step the judge labels right. It must continue the same steps: a step after other steps might be
    preferred for what comes before it.
    """
    at = rejected.first_error
    if rejected.outcome or at is None or len(chosen.labels) <= at:
        return False
    better, worse = chosen.solution.steps, rejected.solution.steps
    return all(chosen.labels[: at + 1]) and better[:at] == worse[:at] and better[at] != worse[at]


RULES: dict[str, Callable[[Scored, Scored], bool]] = {
    "outcome": outcome_allows,
    "spare": spare_allows,
    "step": step_allows,
}


def preference_pairs(
    task: "Task",
    problems: Mapping[str, Problem],
    golds: Mapping[str, Gold],
    solutions: Iterable[Solution],
    judgements: Mapping[str, Judgement],
    settings: PairSettings,
) -> tuple[list[Preference], PairCounts]:
    """The preferences of a split, sorted by problem and then by id, and the counts.

    Args:
      problems: of the split, by id; solutions of other problems are ignored.
      golds: by problem id; where one is missing or has no steps the problem has no reference.
      judgements: by solution id, one of every solution, labelled under the policy already; their outcome is y. The rule
        "outcome" needs no step labels. A solution that was not judged is neither chosen nor rejected.

    Raises:
      RecordError: a judgement has another number of labels than its solution has steps.
      ValueError: a solution has no judgement.
    """
    counts = Counter[str](problems=len(problems))
    of_problem: dict[str, list[Solution]] = {problem_id: [] for problem_id in sorted(problems)}
    for solution in solutions:
        if solution.problem_id in of_problem:
            of_problem[solution.problem_id].append(solution)
    counts["not_sampled"] = sum(not sampled for sampled in of_problem.values())
    drawn = []
    for problem_id, sampled in of_problem.items():
        problem, gold = problems[problem_id], golds.get(problem_id)
        reference = None
        if settings.reference_as_chosen and gold and gold.steps:
            steps = reference_solution(task, gold)
            reference = Scored(steps, True, (True,) * len(steps.steps))
        samples = _distinct(problem, sampled, judgements, reference, counts)
        drawn.append(_of_problem(problem, samples, reference, settings, counts))
    kept = _capped(drawn, settings)
    counts["pairs"] = len(kept)
    counts["over_cap"] = sum(map(len, drawn)) - len(kept)
    counts["no_pair"] = len(problems) - len({pair.problem.id for pair in kept})
    counts["reference_pairs"] = sum(_of_reference(pair) for pair in kept)
    return sorted(kept, key=lambda pair: (pair.problem.id, pair.id)), PairCounts(**counts)


def write(work: WorkDir, name: str, pairs: Iterable[Preference]) -> int:
    """Write pairs as preferences/<name>.jsonl, and in TRL's format as trl_preference/<name>.jsonl.

    Returns:
      How many pairs are not in TRL's file because a step is blank or has a line end in it.
    """
    pairs = list(pairs)
    work.write(f"preferences/{name}", pairs)
    return files.write(work.path / "trl_preference" / f"{name}.jsonl", "trl_preference", pairs)


def allowed_pairs(
    problem: Problem, chosen: Sequence[Scored], rejected: Sequence[Scored], rule: str
) -> dict[tuple[str, str], Preference]:
    """The pairs that the rule allows, by the texts of chosen and rejected; of pairs with equal texts the first."""
    pairs: dict[tuple[str, str], Preference] = {}
    for better, worse in itertools.product(chosen, rejected):
        if RULES[rule](better, worse):
            at = worse.first_error if rule == "step" else None
            if at is not None:
                better, worse = (_first_steps(scored, at + 1) for scored in (better, worse))
            scores = _scores(better.labels), _scores(worse.labels)
            pair = Preference(problem, better.solution, worse.solution, *scores, shared_steps=at or 0)
            pairs.setdefault((better.text, worse.text), pair)
    return pairs


def _distinct(
    problem: Problem,
    solutions: Iterable[Solution],
    judgements: Mapping[str, Judgement],
    reference: Scored | None,
    counts: Counter[str],
) -> list[Scored]:
    """A problem's solutions with their scores, sorted by id: of equal texts the first, none equal to the reference."""
    texts, outcomes = {reference.text} if reference else set(), set()
    kept = []
    for solution in sorted(solutions, key=lambda s: s.id):
        counts["solutions"] += 1
        if (judgement := judgements.get(solution.id)) is None:
            raise ValueError(f"solution {solution.id!r} has no judgement to make pairs by: run the stage judge first")
        if not solution.steps:
            counts["without_steps"] += 1
            continue
        if judgement.failure:
            counts["not_judged"] += 1
            continue
        if judgement.outcome is None:
            counts["without_outcome"] += 1
            continue
        outcomes.add(judgement.outcome)
        labels = LabelledSolution(problem, solution, judgement).labels if judgement.steps else ()
        scored = Scored(solution, judgement.outcome, labels)
        if scored.text in texts:
            counts["duplicates"] += 1
            continue
        texts.add(scored.text)
        kept.append(scored)
    counts["no_right"] += outcomes == {False}
    counts["no_wrong"] += outcomes == {True}
    return kept


def _of_problem(
    problem: Problem, samples: Sequence[Scored], reference: Scored | None, settings: PairSettings, counts: Counter[str]
) -> list[Preference]:
    """The pairs that are drawn for one problem, in the order in which they are drawn."""
    sampled = allowed_pairs(problem, samples, samples, settings.rule)
    added = allowed_pairs(problem, [reference] if reference else [], samples, settings.rule)
    added = {texts: pair for texts, pair in added.items() if texts not in sampled}
    key = f"preferences/{settings.seed}/{problem.id}"
    rng = random.Random(key.encode(errors="surrogatepass"))
    drawn = _draw([*sampled.values()], settings.sampled_pairs, rng)
    drawn = _draw([*drawn, *added.values()], settings.pairs_per_problem, rng)
    wrong = [scored for scored in samples if not scored.outcome]
    allows, pool = RULES[settings.rule], [*samples, *([reference] if reference else [])]
    counts["unlabelled"] += sum(scored.mean_label is None for scored in samples)
    counts["unmatched"] += sum(not any(allows(chosen, rejected) for chosen in pool) for rejected in wrong)
    counts["candidates"] += len(sampled) + len(added)
    counts["over_limit"] += len(sampled) + len(added) - len(drawn)
    return drawn


def _draw(pairs: Sequence[Preference], limit: int | None, rng: random.Random) -> list[Preference]:
    """Up to `limit` pairs at random; each next one has the solutions that the pairs drawn before used least."""
    left, drawn, used = list(pairs), [], Counter[str]()
    rng.shuffle(left)
    while left and len(drawn) != limit:
        least = min(range(len(left)), key=lambda i: used[left[i].chosen.id] + used[left[i].rejected.id])
        drawn.append(left.pop(least))
        used.update((drawn[-1].chosen.id, drawn[-1].rejected.id))
    return drawn


def _capped(drawn: Sequence[Sequence[Preference]], settings: PairSettings) -> list[Preference]:
    """The first pair of every problem, then the second ones, and so on up to `settings.cap`; of the last round some at
    random."""
    rng = random.Random(f"preferences/{settings.seed}")
    places = [(place, rng.random(), pair) for pairs in drawn for place, pair in enumerate(pairs)]
    return [pair for _, _, pair in sorted(places, key=lambda item: item[:2])[: settings.cap]]


def _first_steps(scored: Scored, n: int) -> Scored:
    """The first `n` steps of a solution, with their ids and labels."""
    solution = scored.solution
    spans = solution.spans[:n] if len(solution.spans) == len(solution.steps) else ()
    cut = dataclasses.replace(
        solution,
        id=f"{solution.id}[:{n}]",
        steps=solution.steps[:n],
        answer=None,
        finish_reason=CUT,
        token_ids=solution.token_ids[: spans[-1][1]] if spans else (),
        spans=spans,
        mean_logprob=None,
    )
    return dataclasses.replace(scored, solution=cut, labels=scored.labels[:n])


def _scores(labels: Iterable[bool | None]) -> tuple[float | None, ...]:
    return tuple(None if label is None else float(label) for label in labels)


def _of_reference(pair: Preference) -> bool:
    return pair.chosen.id.removeprefix(pair.problem.id).partition("[")[0] == REFERENCE
