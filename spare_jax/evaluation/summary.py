"""metrics.json from a run's records, and nothing else.

What was not judged is in no figure; beside each stands what is missing (missing.py).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spare_jax.evaluation.accuracy import Pool, pass_at_1, selection_metrics
from spare_jax.evaluation.baselines import length_scores, position_scores
from spare_jax.evaluation.curves import accuracy_curves
from spare_jax.evaluation.explanations import explanation_agreement, reference_right
from spare_jax.evaluation.missing import NO_SOLUTION, NO_TRUTH, UNDECIDED, headlines, tally
from spare_jax.evaluation.process_errors import (
    StepScores,
    first_error,
    first_false,
    judge_metrics,
    right_answer_wrong_process,
    said_first_error,
    scores_of,
)
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, Problem, Solution, StepJudgement
from spare_jax.selection.voting import candidates
from spare_jax.targets.labels import LabelPolicy, relabel

JUDGES = (
    "outcome", "truth", "spare", "spare_no_reference", "spare_wrong_reference", "spare_on_reference", "prm", "orm",
    "prm_at_init",
)  # fmt: skip
RANKERS = ("prm", "orm", "prm_at_init")
HELD_OUT = "held_out"
_NO_TRUTH = "the truth of single steps is not known for this task"

Judgements = Mapping[str, Mapping[str, Judgement]]
Groups = Mapping[str, Sequence[Solution]]
Equal = Callable[[str | None, Sequence[str]], bool | None]


def metrics(
    problems: Sequence[Problem],
    solutions: Sequence[Solution],
    judgements: Judgements,
    policy: LabelPolicy,
    *,
    seed: int,
    n_samples: int,
    groups: Mapping[str, str],
    equal: Equal,
) -> dict[str, Any]:
    """All that metrics.json holds.

    Args:
      problems, solutions: of every split.
      judgements: by judge, then by solution; a judge that was not asked has none.
      policy: how missed and unknown steps were labelled.
      groups: each problem's split or, where held out, "held_out-<kind>".
      equal: the task's `answers_equal`; votes count answers that are equal once.

    Returns:
      Nested objects; every rate is a fraction, what is undefined is None. A problem without any solution, because
      sampling it failed, is missing from every figure.
    """
    of_problem: dict[str, list[Solution]] = {p.id: [] for p in problems}
    for solution in solutions:
        of_problem[solution.problem_id].append(solution)

    def pool_of(prefix: str) -> dict[str, list[Solution]]:
        return {i: found for i, found in of_problem.items() if groups[i].split("-")[0] == prefix}

    test, held_out, dev = pool_of("test"), pool_of(HELD_OUT), pool_of("dev")
    kinds = sorted({groups[i] for i in held_out})
    selection = _selection(dev, test, judgements, seed, equal)
    headline, refused = _headline(selection)
    reasons = refused | ({} if judgements["truth"] else {"judges": _NO_TRUTH, "prm": _NO_TRUTH})
    return {
        "seed": seed,
        "n_problems": sum(bool(found) for found in test.values()),
        "n_samples": n_samples,
        "headline": headline,
        "policy": {
            **_policy(test, judgements, equal),
            "out_of_distribution": {
                **_policy(held_out, judgements, equal),
                **{
                    kind.removeprefix(f"{HELD_OUT}-"): _policy(
                        {i: s for i, s in held_out.items() if groups[i] == kind}, judgements, equal
                    )
                    for kind in kinds
                },
            },
        },
        "judges": {
            "spare": _judge(judgements, "spare", test, policy) | _self_knowledge(judgements, test, policy),
            "spare_out_of_distribution": _judge(judgements, "spare", held_out, policy),
            "spare_no_reference": _judge(judgements, "spare_no_reference", test, policy),
            "spare_wrong_reference": _judge(judgements, "spare_wrong_reference", test, policy),
        },
        "selection": {
            **selection,
            "out_of_distribution": _selection(dev, held_out, judgements, seed, equal),
        },
        "prm": {
            **_process(dev, test, judgements, seed),
            "out_of_distribution": _process(dev, held_out, judgements, seed),
        },
        **({"reasons": reasons} if reasons else {}),
        "curves": accuracy_curves(
            _pools(test, judgements, equal), _rankers(dev, test, judgements), _scoring(test, judgements), seed
        ),
    }


def counts(problems: Sequence[Problem], solutions: Sequence[Solution], groups: Mapping[str, str]) -> dict[str, int]:
    """Problems and solutions per group, for the report."""
    found = Counter(f"{groups[p.id].replace('_', ' ')} problems" for p in problems)
    return {**dict(sorted(found.items())), "solutions": len(solutions)}


def _policy(groups: Groups, judgements: Judgements, equal: Equal) -> dict[str, Any]:
    """pass@1, over how many problems, and what is missing of problems and of their solutions."""
    pools = _pools(groups, judgements, equal)
    outcomes = [outcome for pool in pools for outcome in pool.outcomes]
    return {
        "pass_at_1": pass_at_1(pools),
        "n": sum(bool(pool.decided) for pool in pools),
        "missing": tally(
            None if pool.decided else UNDECIDED if pool.outcomes else NO_SOLUTION for pool in pools
        ),
        "solutions": len(outcomes),
        "undecided_solutions": outcomes.count(None),
    }  # fmt: skip


def _headline(selection: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The figures that the page begins with, as `headlines` has them."""
    if not selection:
        return {}, {}
    intervals = selection["intervals"]
    figures = {
        "policy.pass_at_1": intervals["one_sample"],
        "selection.majority": intervals["majority"],
        "selection.prm.weighted.last": intervals.get("prm"),
        "selection.prm_minus_majority.mean": selection.get("prm_minus_majority"),
    }
    return headlines(
        {path: (one["mean"], one["n"], one["missing"]) for path, one in figures.items() if one is not None}
    )


def _pools(test: Groups, judgements: Judgements, equal: Equal) -> list[Pool]:
    """The problems' candidates as selection sees them; equal answers have one text."""
    outcomes = judgements["outcome"]
    pools = []
    for problem_id, found in test.items():
        right = tuple(outcomes[s.id].outcome for s in found)
        pools.append(
            Pool(
                problem_id,
                candidates([s.answer for s in found], equal),
                right,
                tuple(len(s.token_ids) for s in found),
                found[0].prompt_tokens if found else 0,
            )
        )
    return pools


def _rankers(dev: Groups, test: Groups, judgements: Judgements) -> dict[str, list[list[list[float | None] | None]]]:
    """Step scores by ranker: [problem][candidate][step], None for a candidate that the ranker failed on. An outcome
    model and the likelihood give one number, and so does the length; the two baselines learn from dev."""
    rankers: dict[str, list[list[list[float | None] | None]]] = {
        name: [[_scores(judgements[name][s.id], name) for s in found] for found in test.values()]
        for name in RANKERS
        if judgements.get(name)
    }
    if all(s.mean_logprob is not None for found in test.values() for s in found):
        rankers["likelihood"] = [[[math.exp(s.mean_logprob or 0.0)] for s in found] for found in test.values()]
    seen = [s for found in dev.values() for s in found if s.steps]
    outcomes, truth = judgements["outcome"], judgements["truth"]
    if seen and truth:
        labels = [[step.label for step in truth[s.id].steps] for s in seen]
        rankers["position_only"] = [
            [list(steps) for steps in position_scores(labels, [len(s.steps) for s in found])] for found in test.values()
        ]
    if seen:
        ends = [(len(s.steps), outcomes[s.id].outcome) for s in seen]
        rankers["length_only"] = [
            [[score] for score in length_scores(ends, [len(s.steps) for s in found])] for found in test.values()
        ]
    return rankers


def _scores(judgement: Judgement, judge: str) -> list[float | None] | None:
    if judgement.failure:
        return None
    scores = [step.score for step in judgement.steps]
    return scores[-1:] if judge == "orm" else scores


def _scoring(test: Groups, judgements: Judgements) -> dict[str, list[list[int | None]]]:
    """Tokens that a reward model read, and wrote if it does, per candidate, None where it failed; the others come with
    the sample."""

    def tokens(said: Judgement) -> int | None:
        return None if said.failure else said.prompt_tokens + said.generated_tokens

    return {
        name: [[tokens(judgements[name][s.id]) for s in found] for found in test.values()]
        for name in RANKERS
        if judgements.get(name)
    }


def _selection(dev: Groups, test: Groups, judgements: Judgements, seed: int, equal: Equal) -> dict[str, Any]:
    if not any(test.values()):
        return {}
    return selection_metrics(_pools(test, judgements, equal), _rankers(dev, test, judgements), seed)


def _judge(judgements: Judgements, judge: str, test: Groups, policy: LabelPolicy) -> dict[str, Any]:
    """The judge's own labels, without what the outcome knows, against the truth where there is one."""
    own = dataclasses.replace(policy, last_step_is_outcome=False)
    found = [s for several in test.values() for s in several if s.id in judgements[judge]]
    said = [relabel(judgements[judge][s.id], own)[0] for s in found]
    unknown = {s.id: Judgement(s.id, "unknown", (StepJudgement(),) * len(s.steps)) for s in found}
    real = [judgements["truth"].get(s.id, unknown[s.id]) for s in found]
    measured = judge_metrics(said, real)
    if not judgements["truth"]:
        return measured
    truth = [first_false([step.label for step in judgement.steps], NO_TRUTH) for judgement in real]
    right = [judgements["outcome"][s.id].outcome for s in found]
    first = [said_first_error(judgement, len(s.steps)) for judgement, s in zip(said, found, strict=True)]
    return measured | {"right_answer_wrong_process": right_answer_wrong_process(first, truth, right)}


def _self_knowledge(judgements: Judgements, test: Groups, policy: LabelPolicy) -> dict[str, Any]:
    """Whether SPARE's labels follow from its explanations and from the reference: `explanation_agreement` on the test
    solutions, `reference_right`, and by how much its step accuracy falls on the controls' solutions with another
    problem's reference."""
    own = dataclasses.replace(policy, last_step_is_outcome=False)
    measured = {s.id for several in test.values() for s in several}

    def said(judge: str) -> dict[str, Judgement]:
        return {i: relabel(j, own)[0] for i, j in judgements[judge].items()}

    spare = {i: judgement for i, judgement in said("spare").items() if i in measured}
    control = said("spare_wrong_reference")
    truths = list(judgements["truth"].values())
    with_reference, with_wrong = (
        judge_metrics([found[i] for i in control if i in found], truths)["step_accuracy"] if truths else None
        for found in (spare, control)
    )
    drop = None if with_reference is None or with_wrong is None else with_reference - with_wrong
    return {
        **explanation_agreement(spare.values()),
        **reference_right(said("spare_on_reference").values()),
        "wrong_reference_drop": drop,
    }


def _process(dev: Groups, test: Groups, judgements: Judgements, seed: int) -> dict[str, Any]:
    """First errors and calibration of the PRM; threshold and baselines come from dev."""
    truth, prm = judgements["truth"], judgements["prm"]
    if not truth or not prm or not any(test.values()):
        return dict.fromkeys(("threshold", "judge", "position_only", "length_only"))

    def side(groups: Groups) -> tuple[list[StepScores], Part]:
        found = [s for several in groups.values() for s in several if s.steps]
        return [scores_of(prm[s.id]) for s in found], Part(
            [s.problem_id for s in found],
            [[step.label for step in truth[s.id].steps] for s in found],
            [[len(step) for step in s.steps] for s in found],
            [judgements["outcome"][s.id].outcome for s in found],
        )

    (dev_scores, dev_part), (scores, part) = side(dev), side(test)
    threshold, chosen_on = choose_on(dev_part, "dev", dev_scores)
    said = [first_error(steps, threshold) for steps in scores]
    return {
        "threshold": threshold,
        "threshold_chosen_on": chosen_on,
        **measure(said, part, baseline_guesses(dev_part, part), seed),
        **measure_scores(scores, part),
    }
