"""The annotation study: judges against a world's truth and against each other, and what their labels buy.

compare_judges   every judge on the same solutions                    -> comparison.json, judgements/<variant>
label_value      a PRM from each judge's labels, from flipped truth   -> label_value.json, prm_<source>/export
annotation_study both, derived                                        -> metrics.json

A judge asked in its own way is a variant ("rollouts_8"), with a journal of its own.
"""

import dataclasses
import functools
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spare_jax.evaluation.accuracy import Pool, selection_metrics
from spare_jax.evaluation.baselines import length_scores, position_scores
from spare_jax.evaluation.missing import NO_TRUTH
from spare_jax.evaluation.process_errors import (
    FirstError,
    StepScores,
    choose_threshold,
    first_error,
    first_error_difference,
    first_error_metrics,
    first_false,
    judge_metrics,
    kappa,
    said_first_error,
    scores_of,
)
from spare_jax.evaluation.statistics import mean_or_none, ratio_or_none
from spare_jax.judges import ensemble
from spare_jax.judges.outcome import is_correct
from spare_jax.judges.spare import SpareSettings
from spare_jax.judges.tree_search import TreeSettings
from spare_jax.judges.truth import Flips, truth
from spare_jax.judges.verify import VerifySettings
from spare_jax.pipelines import prm
from spare_jax.pipelines.cells import cell
from spare_jax.pipelines.prm import RewardModelTraining, train_reward_model
from spare_jax.records import Case, Gold, Judgement, LabelledSolution, Problem, Solution, StepJudgement
from spare_jax.runs import ask, splits
from spare_jax.runs.ask import Judges
from spare_jax.runs.models import EngineSettings, RewardModel, WithJudge, WithJudges, WithPRM, load_to_train
from spare_jax.runs.run import Run, need_all_answers
from spare_jax.runs.stage import Stage, chosen
from spare_jax.selection.voting import candidates
from spare_jax.targets.labels import relabel
from spare_jax.tasks.task import world_of
from spare_jax.worlds.world import World

MEMBERS = ("spare_4", "rollouts_4")  # of the ensemble
EQUAL = "spare_8"  # SPARE with more votes, for about as many tokens as the ensemble
SOFT = "rollouts_8_soft"  # the labels of rollouts_8, of which a PRM learns the scores
TRUTH_SET = "dev"  # where thresholds and weights are learned


@dataclasses.dataclass(frozen=True)
class Study:
    """What is asked, and on what: `samples` solutions of each of the first `problems` test problems, of
    `held_out_problems` of each kind, and of `truth_problems` of dev, where thresholds and weights are learned.

    `votes` are SPARE's, at `vote_temperature`; the ensemble is of 4 and as many rollouts, for about as many tokens as 8
    take. `rollouts` are so many behind a step, `corrupted` the shares of false steps in a reference, and `flips` the
    rates at which right and wrong labels of the truth are flipped.
    """

    problems: int = 100
    held_out_problems: int = 20
    truth_problems: int = 60
    samples: int = 4
    votes: tuple[int, ...] = (4, 8)
    vote_temperature: float = 0.7
    rollouts: tuple[int, ...] = (1, 2, 4, 8, 16)
    corrupted: tuple[float, ...] = (0.1, 0.3)
    flips: tuple[float, ...] = (0.0, 0.15, 0.3)


@dataclasses.dataclass(frozen=True)
class StudyModels(WithJudge, WithPRM):
    """What judges ask, and what PRMs are trained from."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A judge of runs/ask.py, how it is asked, and perhaps on other references than the world's."""

    judge: str
    judges: Judges
    reference: Callable[[Case], Sequence[str]] | None = None


def variants(run: Run, judges: Judges, study: Study, sampled: Mapping[str, Sequence[Solution]]) -> dict[str, Variant]:
    """All ways in which the study asks, by name; `sampled` are each problem's solutions."""
    world = world_of(run.task)

    def spare(**changes: Any) -> Judges:
        # What a judge says itself: the last step's label is not overwritten by what only the accepted answer tells.
        annotate = dataclasses.replace(judges.annotate, last_step_is_outcome=False, **changes)
        return dataclasses.replace(judges, annotate=annotate)

    def rollouts(samples: int) -> Judges:
        return dataclasses.replace(judges, rollouts=dataclasses.replace(judges.rollouts, samples=samples))

    own = spare()
    found = {
        "spare": Variant("spare", own),
        **{f"spare_{k}": Variant("spare", spare(temperature=study.vote_temperature, votes=k)) for k in study.votes},
        **{f"rollouts_{k}": Variant("rollouts", rollouts(k)) for k in study.rollouts},
        "tree_search": Variant("tree_search", judges),
        "verify": Variant("verify", judges),
        "alignment": Variant("alignment", judges),
    }
    for share in study.corrupted:
        corrupted = functools.partial(_corrupted, world, share, run.seed)
        found[f"spare_corrupted_{100 * share:.0f}"] = Variant("spare", own, corrupted)
    found["spare_sampled_reference"] = Variant("spare", own, functools.partial(_sampled_reference, sampled))
    return found


def judge_variant(run: Run, stage: str, name: str, variant: Variant, cases: Sequence[Case]) -> list[Judgement]:
    """The judgements of a variant on `cases`, written as judgements/<name>, with its seconds beside them: None where a
    kill has parted them."""
    if variant.reference is not None:
        cases = [_with_reference(case, variant.reference(case)) for case in cases]
    begun_before, began = run.work.has_journal(stage, name), time.perf_counter()
    judgements = ask.ask(run, stage, ask.ready(run, variant.judge, variant.judges), cases, name)
    run.work.write(f"judgements/{name}", judgements)
    timing = f"judgements/{name}.seconds.json"
    if not begun_before:
        run.work.write_json(timing, (time.perf_counter() - began) / max(1, len(cases)))
    elif not (run.work.path / timing).exists():
        run.work.write_json(timing, None)
    return judgements


def _with_reference(case: Case, steps: Sequence[str]) -> Case:
    return dataclasses.replace(case, gold=dataclasses.replace(case.gold_for("spare"), steps=tuple(steps)))


def _sampled_reference(sampled: Mapping[str, Sequence[Solution]], case: Case) -> Sequence[str]:
    """Another sampled solution of the problem, with the most frequent answer if one has it: what there is to compare
    with where nobody has written a reference."""
    others = [s for s in sampled[case.problem.id] if s.id != case.solution.id and s.steps]
    answers = [s.answer for s in sampled[case.problem.id] if s.answer is not None]
    common = max(sorted(set(answers)), key=answers.count, default=None)
    chosen = next((s for s in others if s.answer == common), others[0] if others else None)
    return chosen.steps if chosen else ()


def _corrupted(world: World, share: float, seed: int, case: Case) -> Sequence[str]:
    """The reference, each step of which says something false with probability `share`."""
    gold = case.gold_for("spare")
    rng, steps = random.Random(f"corrupted/{seed}/{case.problem.id}"), list(gold.steps)
    for i in range(len(steps)):
        if rng.random() < share:
            steps[i] = _falsified(world, case.problem, gold, i, rng)
    return steps


_WORD = re.compile(r"\b[A-Z][a-z]+\b|\b\d+\b")


def _falsified(world: World, problem: Problem, gold: Gold, index: int, rng: random.Random) -> str:
    """A reference step with one name or number put in the place of another, so that the step is wrong."""
    step = gold.steps[index]
    text = " ".join((*problem.context, problem.question, *gold.steps))
    found = sorted(set(_WORD.findall(text)))
    for _ in range(100):
        old = rng.choice(list(_WORD.finditer(step)))
        new = rng.choice([w for w in found if w.isdigit() == old[0].isdigit()])
        changed = step[: old.start()] + new + step[old.end() :]
        judged = world.truth(problem, gold, (*gold.steps[:index], changed))
        if len(judged) == index + 1 and judged[-1].label is False:
            return changed
    return step


# compare_judges


def compare_judges(
    run: Run,
    models: WithJudge,
    engine: EngineSettings,
    annotate: SpareSettings,
    verify: VerifySettings,
    rollouts: TreeSettings,
    study: Study,
) -> list[str]:
    """Ask every variant about the same solutions, combine them, and measure all of them against the truth."""
    roles = WithJudges(generator=models.generator, judge=models.judge)
    judges = Judges(models=roles, engine=engine, annotate=annotate, verify=verify, rollouts=rollouts)
    problems, by_id, gold, solutions = run.records()
    groups = _groups(study, problems, by_id, gold, solutions)
    truths = {group: [_truth(run, case) for case in cases] for group, cases in groups.items()}
    sampled: dict[str, list[Solution]] = defaultdict(list)
    for solution in solutions:
        sampled[solution.problem_id].append(solution)
    judged: dict[str, dict[str, list[Judgement]]] = {group: {} for group in groups}
    seconds: dict[str, float | None] = {}
    written = ["comparison.json"]
    for name, variant in variants(run, judges, study, sampled).items():
        of = groups if name in (*MEMBERS, EQUAL) else {g: f for g, f in groups.items() if g != TRUTH_SET}
        everything = [case for cases in of.values() for case in cases]
        answers = iter(judge_variant(run, "compare_judges", name, variant, everything))
        for group, cases in of.items():
            judged[group][name] = [next(answers) for _ in cases]
        seconds[name] = run.work.read_json(f"judgements/{name}.seconds.json")
        written.append(f"judgements/{name}.jsonl")
    combined, learned = _combined(judged, truths)
    comparison: dict[str, Any] = {"truth_set": learned, "seconds_per_solution": seconds}
    for group in groups:
        if group != TRUTH_SET:
            everyone = judged[group] | combined[group]
            comparison[group] = _compare(everyone, truths[group], groups[group], run.seed)
    run.work.write_json("comparison.json", comparison)
    return written


def _groups(study: Study, problems, by_id, gold, solutions) -> dict[str, list[Case]]:
    """The judged solutions in distribution, out of it, and of the truth set; the first few of each problem."""
    limits = {"test": study.problems, splits.HELD_OUT: study.held_out_problems, TRUTH_SET: study.truth_problems}
    names = {"test": "in_distribution", splits.HELD_OUT: "out_of_distribution", TRUTH_SET: TRUTH_SET}
    chosen: dict[str, str] = {}
    taken: dict[str, int] = defaultdict(int)
    for problem in problems:
        split, group = splits.split_of(problem.id), splits.group_of(problem.id)
        if split in limits and taken[group] < limits[split]:
            taken[group] += 1
            chosen[problem.id] = names[split]
    found: dict[str, list[Case]] = {name: [] for name in names.values()}
    seen: dict[str, int] = defaultdict(int)
    for s in solutions:
        if s.problem_id in chosen and s.steps and seen[s.problem_id] < study.samples:
            seen[s.problem_id] += 1
            found[chosen[s.problem_id]].append(Case(by_id[s.problem_id], s, gold[s.problem_id]))
    return found


def _truth(run: Run, case: Case, flips: Flips | None = None) -> Judgement:
    return truth(run.task, case.problem, case.gold_for("truth"), case.solution, flips)


def _is_correct(run: Run, case: Case) -> bool | None:
    return is_correct(run.task, case.gold_for("outcome"), case.solution)


def _combined(
    judged: Mapping[str, Mapping[str, list[Judgement]]], truths: Mapping[str, list[Judgement]]
) -> tuple[dict[str, dict[str, list[Judgement]]], dict[str, Any]]:
    """The ensembles of every group, and what the truth set taught: weights and thresholds."""
    combined: dict[str, dict[str, list[Judgement]]] = {group: {} for group in judged}
    learned: dict[str, Any] = {"solutions": len(truths[TRUTH_SET])}
    for name, members in (("ensemble_weighted", MEMBERS), ("spare_calibrated", (EQUAL,))):
        of_truth_set = {member: judged[TRUTH_SET][member] for member in members}
        weights, cut = ask.learn_ensemble(of_truth_set, truths[TRUTH_SET])
        learned[name] = {"weights": dataclasses.asdict(weights), "threshold": cut}
        for group, of in judged.items():
            combined[group][name] = _combine(of, members, "weighted", name, weights=weights, threshold=cut)
    for rule in ("agreement", "union", "intersection"):
        for group, of in judged.items():
            combined[group][f"ensemble_{rule}"] = _combine(of, MEMBERS, rule, f"ensemble_{rule}")
    for group, of in judged.items():
        # As training takes SPARE's labels: the last step's is the outcome, which the accepted answer tells.
        combined[group]["spare_with_outcome"] = [_with_outcome(j, "spare_with_outcome") for j in of[EQUAL]]
    return combined, learned


def _combine(of: Mapping[str, list[Judgement]], members: Sequence[str], rule: str, name: str = "", **how):
    several = zip(*(of[member] for member in members), strict=True)
    return [ensemble.combine(judgements, rule, judge=name or rule, **how) for judgements in several]


def _with_outcome(judgement: Judgement, judge: str) -> Judgement:
    steps = judgement.steps
    if steps and judgement.outcome is not None:
        steps = (*steps[:-1], dataclasses.replace(steps[-1], label=judgement.outcome))
    return dataclasses.replace(judgement, steps=steps, judge=judge)


def _compare(
    judged: Mapping[str, list[Judgement]], truths: list[Judgement], cases: list[Case], seed: int
) -> dict[str, Any]:
    """A group's part of comparison.json."""
    real = [first_false(_labels([j]), NO_TRUTH) for j in truths]
    problem_of = [case.problem.id for case in cases]

    def difference(ours: str, theirs: str) -> dict[str, Any]:
        a, b = ([said_first_error(j, _n_steps(j)) for j in judged[name]] for name in (ours, theirs))
        return first_error_difference(a, b, real, problem_of, seed)

    # The last of them tells whether knowing the accepted answer, as rollouts do, is all that the ensemble adds.
    rivals = (*MEMBERS, EQUAL, "spare_calibrated", "spare_with_outcome")
    return {
        "solutions": len(cases),
        "problems": len(set(problem_of)),
        "steps_right": ratio_or_none(sum(s.label is True for j in truths for s in j.steps), sum(map(_n_steps, truths))),
        "judges": {
            name: judge_metrics(of, truths)
            | {"generated_per_solution": mean_or_none([j.generated_tokens for j in of if not j.failure])}
            for name, of in judged.items()
        },
        "never_wrong": first_error_metrics([None] * len(real), real),
        "always_first": first_error_metrics([0] * len(real), real),
        "aligned": {name: _aligned(judged[name], truths) for name in ("spare", "spare_sampled_reference")},
        "kappa": {
            a: {b: kappa(_labels(judged[a]), _labels(judged[b])) for b in judged if b != a}
            for a in judged
        },
        "ensemble_minus": {rival: difference("ensemble_weighted", rival) for rival in rivals},
    }  # fmt: skip


def _n_steps(judgement: Judgement) -> int:
    return len(judgement.steps)


def _labels(judgements: Iterable[Judgement]) -> list[bool | None]:
    return [step.label for judgement in judgements for step in judgement.steps]


def _aligned(judgements: Sequence[Judgement], truths: Sequence[Judgement]) -> dict[str, Any]:
    """Step accuracy by how many reference steps the judge aligned a step with: none, one, several."""
    hits: dict[str, list[bool]] = {"none": [], "one": [], "several": []}
    for judgement, real in zip(judgements, truths, strict=True):
        for said, step in zip(judgement.steps, real.steps, strict=True):
            if not said.missed and said.label is not None and step.label is not None:
                kind = ("none", "one", "several")[min(2, len(said.reference))]
                hits[kind].append(said.label == step.label)
    return {kind: {"n": len(of), "step_accuracy": ratio_or_none(sum(of), len(of))} for kind, of in hits.items()}


# label_value


def label_value(
    run: Run,
    models: StudyModels,
    engine: EngineSettings,
    annotate: SpareSettings,
    verify: VerifySettings,
    rollouts: TreeSettings,
    prm: RewardModelTraining,
    study: Study,
) -> list[str]:
    """Train a PRM on every source of labels over the same solutions, and measure what each buys over majority."""
    roles = WithJudges(generator=models.generator, judge=models.judge)
    judges = Judges(models=roles, engine=engine, annotate=annotate, verify=verify, rollouts=rollouts)
    _, by_id, gold, solutions = run.records()

    def of_split(*names: str) -> list[Case]:
        chosen = (s for s in solutions if splits.split_of(s.problem_id) in names and s.steps)
        return [Case(by_id[s.problem_id], s, gold[s.problem_id]) for s in chosen]

    learnt, ranked = of_split("train", "dev"), of_split("dev", "test", splits.HELD_OUT)
    truths = [_truth(run, case) for case in learnt]
    sources = _sources(run, judges, study, learnt, truths)
    need_all_answers(run, "label_value")
    start = load_to_train(run, models.prm, models.generator, lora=prm.lora, dtype=prm.train.dtype)
    table: dict[str, Any] = {}
    for source, labels in sources.items():
        labelled = [
            LabelledSolution(case.problem, case.solution, j, case.gold)
            for case, j in zip(learnt, labels, strict=True)
            if not j.failure
        ]
        sets = {
            split: [item for item in labelled if splits.split_of(item.problem.id) == split]
            for split in ("train", "dev")
        }
        how = dataclasses.replace(prm, targets="scores") if source == SOFT else prm
        train_reward_model(run, "label_value", start, how, "prm", f"prm_{source}", sets)
        exported = RewardModel(f"prm_{source}/export")
        variant = Variant("reward_model", dataclasses.replace(judges, models=dataclasses.replace(roles, prm=exported)))
        scored = judge_variant(run, "label_value", f"prm_{source}", variant, ranked)
        table[source] = {"labels": judge_metrics(labels, truths), **_worth(run, ranked, scored)}
    table["position_only"] = _worth(run, ranked, _by_position(learnt, truths, ranked))
    table["length_only"] = _worth(run, ranked, _by_length(run, learnt, ranked))
    run.work.write_json("label_value.json", table)
    return ["label_value.json"]


def _sources(
    run: Run, judges: Judges, study: Study, learnt: Sequence[Case], truths: Sequence[Judgement]
) -> dict[str, list[Judgement]]:
    """Labels of the same solutions by their source. Every one of them knows the outcome."""
    found = variants(run, judges, study, {})
    outcomes = [_is_correct(run, case) for case in learnt]

    def asked(name: str) -> list[Judgement]:
        return judge_variant(run, "label_value", f"labels_{name}", found[name], learnt)

    spare = [relabel(j, judges.annotate)[0] for j in asked("spare")]
    judged = {"labels_spare": spare, "labels_rollouts_8": asked("rollouts_8")}
    in_truth_set = [splits.split_of(case.problem.id) == TRUTH_SET for case in learnt]
    weights = ensemble.fit(
        {name: {j.solution_id: j for j in of} for name, of in judged.items()},
        {real.solution_id: real for real, known in zip(truths, in_truth_set, strict=True) if known},
    )
    sources = {
        "spare": spare,
        "rollouts_8": judged["labels_rollouts_8"],
        SOFT: judged["labels_rollouts_8"],
        "tree_search": asked("tree_search"),
        "verify": [_with_outcome(j, "verify") for j in asked("verify")],
        "ensemble": _combine(judged, tuple(judged), "weighted", "ensemble", weights=weights),
        "truth": list(truths),
        "outcome_copied": [
            dataclasses.replace(real, steps=(StepJudgement(label=right),) * len(real.steps))
            for real, right in zip(truths, outcomes, strict=True)
        ],
        "shuffled": _shuffled(truths, run.seed),
    }
    for correct in study.flips:
        for incorrect in study.flips:
            if correct or incorrect:
                flips = Flips(correct, incorrect, run.seed)
                sources[f"truth_{100 * correct:.0f}_{100 * incorrect:.0f}"] = [
                    _truth(run, case, flips) for case in learnt
                ]
    return {
        name: [j if j.failure else dataclasses.replace(j, outcome=right) for j, right in zip(of, outcomes, strict=True)]
        for name, of in sources.items()
    }


def _shuffled(truths: Sequence[Judgement], seed: int) -> list[Judgement]:
    """The true labels, dealt anew among the steps that stand at the same place of solutions as long."""
    dealt: dict[tuple[int, int], list[bool | None]] = defaultdict(list)
    for j in truths:
        for i, step in enumerate(j.steps):
            dealt[len(j.steps), i].append(step.label)
    for place, labels in dealt.items():
        random.Random(f"shuffled/{seed}/{place}").shuffle(labels)
    return [
        dataclasses.replace(
            j, steps=tuple(StepJudgement(label=dealt[len(j.steps), i].pop()) for i in range(len(j.steps)))
        )
        for j in truths
    ]


def _by_position(learnt: Sequence[Case], truths: Sequence[Judgement], ranked: Sequence[Case]) -> list[Judgement]:
    """Every step scored by its place alone, as the truth of the training solutions has it."""
    seen = [
        [step.label for step in real.steps]
        for case, real in zip(learnt, truths, strict=True)
        if splits.split_of(case.problem.id) == "train"
    ]
    found = position_scores(seen, [_length(case) for case in ranked])
    return [
        Judgement(case.solution.id, "position_only", tuple(StepJudgement(score=score) for score in steps))
        for case, steps in zip(ranked, found, strict=True)
    ]


def _by_length(run: Run, learnt: Sequence[Case], ranked: Sequence[Case]) -> list[Judgement]:
    """Every step scored by how often training solutions as long end right."""
    seen = [(_length(case), _is_correct(run, case)) for case in learnt if splits.split_of(case.problem.id) == "train"]
    found = length_scores(seen, [_length(case) for case in ranked])
    return [
        Judgement(case.solution.id, "length_only", (StepJudgement(score=score),) * _length(case))
        for case, score in zip(ranked, found, strict=True)
    ]


def _length(case: Case) -> int:
    return len(case.solution.steps)


def _worth(run: Run, ranked: Sequence[Case], scored: Sequence[Judgement]) -> dict[str, Any]:
    """What step scores buy: the gain over majority in and out of distribution, and the first errors they find."""
    result: dict[str, Any] = {}
    sides = {"dev": "dev", "test": "in_distribution", splits.HELD_OUT: "out_of_distribution"}
    scores: dict[str, list[StepScores]] = {side: [] for side in sides.values()}
    real: dict[str, list[FirstError]] = {side: [] for side in sides.values()}
    pools: dict[str, dict[str, list[tuple[Case, Judgement]]]] = {side: {} for side in sides.values()}
    for case, judgement in zip(ranked, scored, strict=True):
        side = sides[splits.split_of(case.problem.id)]
        scores[side].append(scores_of(judgement))
        real[side].append(first_false(_labels([_truth(run, case)]), NO_TRUTH))
        pools[side].setdefault(case.problem.id, []).append((case, judgement))
    threshold = choose_threshold(scores["dev"], real["dev"])
    for side in ("in_distribution", "out_of_distribution"):
        of_side = [
            Pool(
                problem_id,
                candidates([case.solution.answer for case, _ in found], run.task.answers_equal),
                tuple(_is_correct(run, case) for case, _ in found),
            )
            for problem_id, found in pools[side].items()
        ]
        steps = [
            [None if j.failure else [step.score for step in j.steps] for _, j in found]
            for found in pools[side].values()
        ]
        selection = selection_metrics(of_side, {"prm": steps}, run.seed)
        result[side] = {
            "majority": selection["majority"],
            "oracle": selection["oracle"],
            "weighted": selection["prm"]["weighted"],
            "best_of_n": selection["prm"]["best_of_n"],
            "minus_majority": selection["prm_minus_majority"],
            "n": selection["n"],
            "first_error": first_error_metrics([first_error(s, threshold) for s in scores[side]], real[side]),
        }
    return result


# annotation_study


def annotation_study(run: Run, models: WithJudge, study: Study) -> list[str]:
    """metrics.json: the parts that have been measured, and what they were taken with."""
    parts = {part: run.work.path / f"{part}.json" for part in ("comparison", "label_value")}
    measured = {part: run.work.read_json(path.name) if path.exists() else None for part, path in parts.items()}
    run.work.write_json("metrics.json", cell(run, models, study, measured))
    return ["metrics.json"]


STAGES = {
    "compare_judges": Stage(compare_judges, prm.RECORDS),
    "label_value": Stage(label_value, prm.RECORDS),
    "annotation_study": Stage(annotation_study, reads=("comparison.json", "label_value.json"), derived=True),
}

PIPELINE = chosen(("solve", "compare_judges", "label_value", "annotation_study"), {**prm.STAGES, **STAGES})
