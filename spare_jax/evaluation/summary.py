"""metrics.json of the main job, from its records alone.

Solutions that were not judged are in no figure; beside each figure is how many are missing (missing.py).
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
    """The content of metrics.json.

    Args:
      problems, solutions: of every split.
      judgements: judge -> solution id -> judgement; empty for a judge that was not asked.
      policy: how missed and unknown steps were labelled.
      seed: of tie-breaking and bootstraps.
      n_samples: solutions that were asked of each problem.
      groups: problem id -> its split or, where held out, "held_out-<kind>".
      equal: the task's `answers_equal`; equal answers are one answer in a vote.

    Returns:
      Nested objects; rates are fractions, what is undefined is None. A problem without solutions, because sampling
      failed, is missing from every figure.
    """
    of_problem: dict[str, list[Solution]] = {p.id: [] for p in problems}
    for solution in solutions:
        of_problem[solution.problem_id].append(solution)

    def of_split(split: str) -> dict[str, list[Solution]]:
        return {i: sampled for i, sampled in of_problem.items() if groups[i].split("-")[0] == split}

    test, held_out, dev = of_split("test"), of_split(HELD_OUT), of_split("dev")
    kinds = sorted({groups[i] for i in held_out})
    pools, held_out_pools = (_pools(split, judgements, equal) for split in (test, held_out))
    rankers = _rankers(dev, test, judgements)
    selection = _selection(pools, rankers, seed)
    headline, refused = _headline(selection)
    reasons = refused | ({} if judgements["truth"] else {"judges": _NO_TRUTH, "prm": _NO_TRUTH})
    return {
        "seed": seed,
        "n_problems": sum(bool(sampled) for sampled in test.values()),
        "n_samples": n_samples,
        "headline": headline,
        "policy": {
            **_policy(pools),
            "out_of_distribution": {
                **_policy(held_out_pools),
                **{
                    kind.removeprefix(f"{HELD_OUT}-"): _policy(
                        [pool for pool in held_out_pools if groups[pool.problem_id] == kind]
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
            "out_of_distribution": _selection(held_out_pools, _rankers(dev, held_out, judgements), seed),
        },
        "prm": {
            **_process(dev, test, judgements, seed),
            "out_of_distribution": _process(dev, held_out, judgements, seed),
        },
        **({"reasons": reasons} if reasons else {}),
        "curves": accuracy_curves(pools, rankers, _scoring(test, judgements), seed),
    }


def counts(problems: Sequence[Problem], solutions: Sequence[Solution], groups: Mapping[str, str]) -> dict[str, int]:
    """The numbers of problems per group and of solutions, for the report."""
    per_group = Counter(f"{groups[p.id].replace('_', ' ')} problems" for p in problems)
    return {**dict(sorted(per_group.items())), "solutions": len(solutions)}


def _policy(pools: Sequence[Pool]) -> dict[str, Any]:
    """pass@1, the number of problems in it, and the problems and solutions that are missing."""
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
    """The headlines of the page, and the reasons of those that are refused (missing.headlines)."""
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
        {
            path: (figure["mean"], figure["n"], figure["missing"])
            for path, figure in figures.items()
            if figure is not None
        }
    )


def _pools(test: Groups, judgements: Judgements, equal: Equal) -> list[Pool]:
    """The candidates of each problem; equal answers have one text."""
    return [
        Pool(
            problem_id,
            candidates([s.answer for s in sampled], equal),
            tuple(judgements["outcome"][s.id].outcome for s in sampled),
            tuple(len(s.token_ids) for s in sampled),
            sampled[0].prompt_tokens if sampled else 0,
        )
        for problem_id, sampled in test.items()
    ]


def _rankers(dev: Groups, test: Groups, judgements: Judgements) -> dict[str, list[list[list[float | None] | None]]]:
    """Step scores by ranker: [problem][candidate][step], None for a candidate that the ranker failed on. An outcome
    model, the likelihood and the number of steps give a list of one; the two baselines are fitted on dev."""
    rankers: dict[str, list[list[list[float | None] | None]]] = {
        name: [[_scores(judgements[name][s.id], name) for s in sampled] for sampled in test.values()]
        for name in RANKERS
        if judgements.get(name)
    }
    if all(s.mean_logprob is not None for sampled in test.values() for s in sampled):
        rankers["likelihood"] = [[[math.exp(s.mean_logprob or 0.0)] for s in sampled] for sampled in test.values()]
    seen = [s for sampled in dev.values() for s in sampled if s.steps]
    outcomes, truth = judgements["outcome"], judgements["truth"]
    if seen and truth:
        labels = [[step.label for step in truth[s.id].steps] for s in seen]
        rankers["position_only"] = [
            [list(steps) for steps in position_scores(labels, [len(s.steps) for s in sampled])]
            for sampled in test.values()
        ]
    if seen:
        ends = [(len(s.steps), outcomes[s.id].outcome) for s in seen]
        rankers["length_only"] = [
            [[score] for score in length_scores(ends, [len(s.steps) for s in sampled])] for sampled in test.values()
        ]
    return rankers


def _scores(judgement: Judgement, judge: str) -> list[float | None] | None:
    if judgement.failure:
        return None
    scores = [step.score for step in judgement.steps]
    return scores[-1:] if judge == "orm" else scores


def _scoring(test: Groups, judgements: Judgements) -> dict[str, list[list[int | None]]]:
    """Tokens that reward models read and generated, [problem][candidate], None where it failed; other rankers need no
    tokens beyond those of sampling."""

    def tokens(judgement: Judgement) -> int | None:
        return None if judgement.failure else judgement.prompt_tokens + judgement.generated_tokens

    return {
        name: [[tokens(judgements[name][s.id]) for s in sampled] for sampled in test.values()]
        for name in RANKERS
        if judgements.get(name)
    }


def _selection(pools: Sequence[Pool], rankers: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return selection_metrics(pools, rankers, seed) if any(pool.answers for pool in pools) else {}


def _judge(judgements: Judgements, judge: str, test: Groups, policy: LabelPolicy) -> dict[str, Any]:
    """The judge's own labels, without what the outcome knows, against the truth where there is one."""
    own = dataclasses.replace(policy, last_step_is_outcome=False)
    judged = [s for sampled in test.values() for s in sampled if s.id in judgements[judge]]
    labelled = [relabel(judgements[judge][s.id], own)[0] for s in judged]
    unknown = {s.id: Judgement(s.id, "unknown", (StepJudgement(),) * len(s.steps)) for s in judged}
    truths = [judgements["truth"].get(s.id, unknown[s.id]) for s in judged]
    measured = judge_metrics(labelled, truths)
    if not judgements["truth"]:
        return measured
    true_first = [first_false([step.label for step in truth.steps], NO_TRUTH) for truth in truths]
    right = [judgements["outcome"][s.id].outcome for s in judged]
    first = [said_first_error(judgement, len(s.steps)) for judgement, s in zip(labelled, judged, strict=True)]
    return measured | {"right_answer_wrong_process": right_answer_wrong_process(first, true_first, right)}


def _self_knowledge(judgements: Judgements, test: Groups, policy: LabelPolicy) -> dict[str, Any]:
    """Whether SPARE's labels agree with its explanations (on test solutions) and with the reference, and by how much
    its step accuracy falls, on the solutions of the control, when it is given another problem's reference."""
    own = dataclasses.replace(policy, last_step_is_outcome=False)
    test_ids = {s.id for sampled in test.values() for s in sampled}

    def labelled(judge: str) -> dict[str, Judgement]:
        return {i: relabel(j, own)[0] for i, j in judgements[judge].items()}

    spare = {i: judgement for i, judgement in labelled("spare").items() if i in test_ids}
    control = labelled("spare_wrong_reference")
    truths = list(judgements["truth"].values())
    with_reference, with_wrong = (
        judge_metrics([judged[i] for i in control if i in judged], truths)["step_accuracy"] if truths else None
        for judged in (spare, control)
    )
    drop = None if with_reference is None or with_wrong is None else with_reference - with_wrong
    return {
        **explanation_agreement(spare.values()),
        **reference_right(labelled("spare_on_reference").values()),
        "wrong_reference_drop": drop,
    }


def _process(dev: Groups, test: Groups, judgements: Judgements, seed: int) -> dict[str, Any]:
    """First errors and calibration of the PRM; its threshold and the baselines are fitted on dev."""
    truth, prm = judgements["truth"], judgements["prm"]
    if not truth or not prm or not any(test.values()):
        return dict.fromkeys(("threshold", "judge", "position_only", "length_only"))

    def side(groups: Groups) -> tuple[list[StepScores], Part]:
        with_steps = [s for sampled in groups.values() for s in sampled if s.steps]
        return [scores_of(prm[s.id]) for s in with_steps], Part(
            [s.problem_id for s in with_steps],
            [[step.label for step in truth[s.id].steps] for s in with_steps],
            [[len(step) for step in s.steps] for s in with_steps],
            [judgements["outcome"][s.id].outcome for s in with_steps],
        )

    (dev_scores, dev_part), (scores, part) = side(dev), side(test)
    threshold, chosen_on = choose_on(dev_part, "dev", dev_scores)
    predicted = [first_error(steps, threshold) for steps in scores]
    return {
        "threshold": threshold,
        "threshold_chosen_on": chosen_on,
        **measure(predicted, part, baseline_guesses(dev_part, part), seed),
        **measure_scores(scores, part),
    }
