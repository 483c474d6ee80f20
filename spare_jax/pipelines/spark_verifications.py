"""SPARK, stage I: synthetic verifications to train a generative verifier on (arXiv 2512.03244, stage I).

sample_solutions      train and dev problems        -> solutions.jsonl
verify_solutions      + solutions                   -> verifications/reference_free.jsonl
verify_guided         + solutions, gold             -> verifications/reference_guided.jsonl (a control)
verify_by_agreement   solutions                     -> verifications/agreement.jsonl (a control)
targets               verifications                 -> judgements/targets_<mode>.jsonl, .counts.json beside it,
                                                       verifications/critiques.jsonl
spark_data            all records, gold; derived    -> verifications/metrics.json, metrics.json

Before them prm.py's load_problems. M solutions of a problem are verified N times each. A mode makes one target of
the N verifications of a solution, or none. Before spark_data, which measures, only verify_guided reads the gold: it is
no input of any other stage, and a run without the controls does not have that stage. What is learnt from the targets:
spark_reward_models.py.
"""

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spare_jax.evaluation.missing import NO_TRUTH
from spare_jax.evaluation.process_errors import (
    first_error_interval,
    first_false,
    judge_metrics,
    label_changes,
    said_first_error,
)
from spare_jax.evaluation.statistics import ratio_or_none
from spare_jax.judges.agreement import agreement
from spare_jax.judges.meta_critique import MetaCritiqueSettings, meta_critique
from spare_jax.judges.outcome import outcome
from spare_jax.judges.truth import truth
from spare_jax.judges.verify import VerifySettings, verifications
from spare_jax.pipelines import prm
from spare_jax.pipelines.cells import write_cell
from spare_jax.prompts.generative import format_critique
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement, not_judged
from spare_jax.runs import ask, solving, splits
from spare_jax.runs.models import EngineSettings, Generator, WithJudge, load_to_ask
from spare_jax.runs.run import Run, answer
from spare_jax.runs.stage import Stage, chosen
from spare_jax.solvers.sample import SolveSettings
from spare_jax.targets import consistency, quality
from spare_jax.targets.consistency import Choice, ConsistencySettings
from spare_jax.targets.quality import QualityFilter
from spare_jax.tasks.task import Task

FREE, GUIDED, AGREEMENT, CRITIQUES = (
    f"verifications/{name}" for name in ("reference_free", "reference_guided", "agreement", "critiques")
)
SAMPLED = ("train", "dev")  # the splits whose problems are solved
PARTS = ("critique", "merged")  # what a meta-critique writes, as its judges' names end


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way from the N verifications of a solution to one target: what is verified, by which rule one is chosen, and
    whether the chosen one is criticised and written anew."""

    rule: Callable[[Sequence[Judgement], ConsistencySettings], Choice]
    critique: bool = False
    verifications: str = FREE


MODES: Mapping[str, Mode] = {
    "single": Mode(consistency.single),
    "outcome_consistency": Mode(consistency.outcome_consistency),
    "step_consistency": Mode(consistency.step_consistency),
    "meta_critique": Mode(consistency.single, critique=True),
    "hybrid": Mode(consistency.step_consistency, critique=True),
    "reference_guided": Mode(consistency.step_consistency, verifications=GUIDED),
    "agreement": Mode(consistency.single, verifications=AGREEMENT),
}
"""Two are controls. "reference_guided" differs from step-level consistency in what the verifier was shown, and in
nothing else; "agreement" has asked no verifier."""


@dataclasses.dataclass(frozen=True)
class TargetSettings(ConsistencySettings):
    """Which targets are made of the verifications, and how: `targets` are names of MODES. `critique` and `merge` are
    what the verifier is asked then; empty: prompts/meta_critique.py's. `filter` says which texts are good enough."""

    targets: tuple[str, ...] = ("single", "outcome_consistency", "step_consistency", "meta_critique", "hybrid")
    critique: str = ""
    merge: str = ""
    filter: QualityFilter = QualityFilter()

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.targets if name not in MODES]:
            raise ValueError(f"config.spark.targets names {unknown[0]!r}: choose among {', '.join(MODES)}")

    @property
    def modes(self) -> dict[str, Mode]:
        """The modes by name."""
        return {name: MODES[name] for name in self.targets}


# sample_solutions


def sample_solutions(run: Run, models: Generator, engine: EngineSettings, solve: SolveSettings) -> list[str]:
    """Sample `solve.samples` solutions of every train and dev problem."""
    problems = [p for p in run.work.read("problems") if splits.split_of(p.id) in SAMPLED]
    solving.solve(run, "sample_solutions", load_to_ask(run, models.generator), problems, engine, solve)
    return ["solutions.jsonl"]


# verify_solutions, verify_guided, verify_by_agreement


def verify_solutions(run: Run, models: WithJudge, engine: EngineSettings, verify: VerifySettings) -> list[str]:
    """Verify every solution that has steps `verify.votes` times, without its reference."""
    return _verify(run, "verify_solutions", ask.verifier(run, models, engine, verify), FREE, {})


def verify_guided(run: Run, models: WithJudge, engine: EngineSettings, verify: VerifySettings) -> list[str]:
    """The same with the accepted answers in the prompt."""
    answers = {gold.problem_id: gold.answers for gold in run.work.read("gold")}
    return _verify(run, "verify_guided", ask.verifier(run, models, engine, verify), GUIDED, answers)


def verify_by_agreement(run: Run) -> list[str]:
    """Verify every solution that has steps by how the solutions of its problem agree; nobody is asked."""
    of_problem = defaultdict(list)
    for solution in run.work.read("solutions"):
        of_problem[solution.problem_id].append(solution)
    seed, equal = run.seed, run.task.answers_equal
    run.work.write(AGREEMENT, (said for of in of_problem.values() for said in agreement(of, seed, equal)))
    return [f"{AGREEMENT}.jsonl"]


def _verify(run: Run, stage: str, asked: ask.Verifier, kind: str, answers: Mapping[str, Sequence[str]]) -> list[str]:
    problems, solutions = _problems(run), {s.id: s for s in run.work.read("solutions") if s.steps}
    settings = dataclasses.replace(asked.settings, judge="verification")
    started = {
        s.id: functools.partial(
            verifications,
            run.task,
            problems[s.problem_id],
            s,
            asked.tokenizer,
            settings,
            answers.get(s.problem_id, ()),
        )
        for s in solutions.values()
    }

    def failed(solution_id: str, why: str) -> tuple[Judgement, ...]:
        return (not_judged(solutions[solution_id], "verification_000", why),)

    found = answer(run, stage, "", asked.engines, started, failed)
    run.work.write(kind, (said for several in found for said in several))
    return [f"{kind}.jsonl"]


def _problems(run: Run) -> dict[str, Problem]:
    return {problem.id: problem for problem in run.work.read("problems")}


# targets


def targets(
    run: Run, models: WithJudge, engine: EngineSettings, verify: VerifySettings, spark: TargetSettings
) -> list[str]:
    """The targets of every mode, and what became of the solutions in it."""
    choices = {name: _choices(run, mode, spark) for name, mode in spark.modes.items()}
    kept = [c.kept for name, of_mode in choices.items() if MODES[name].critique for c in of_mode if c.kept]
    critiques: list[Judgement] = []
    if kept:
        verifier = ask.verifier(run, models, engine, verify)
        settings = MetaCritiqueSettings(verifier.settings, spark.critique, spark.merge)
        critiques = _criticise(run, verifier, settings, {said.id: said for said in kept})
    run.work.write(CRITIQUES, critiques)
    written = [f"{CRITIQUES}.jsonl"]
    for name, of_mode in choices.items():
        file = f"judgements/targets_{name}"
        kept, counts = make_targets(name, of_mode, {said.id: said for said in critiques}, spark.filter)
        run.work.write(file, kept)
        run.work.write_json(f"{file}.counts.json", dataclasses.asdict(counts))
        written += [f"{file}.jsonl", f"{file}.counts.json"]
    return written


@dataclasses.dataclass(frozen=True)
class TargetCounts:
    """What became of the solutions in one mode, and what it took.

    `solutions` = `kept` + all of `dropped`, by reason: those of consistency.REASONS and of quality.REASONS; "failed"
    are those without any verification that could be read, and those whose critique failed. `voted` says of how many
    solutions so many verifications could be read, by that number: of N each, fewer where some failed. `tied` and
    `unmatched` count the solutions whose vote ended even or whose consensus nobody met, dropped or not. `passes` are
    the texts that the verifier wrote for this mode and `tokens` all that it read and wrote for them, a prompt once for
    the texts behind it.
    """

    solutions: int
    kept: int
    dropped: dict[str, int]
    voted: dict[str, int]
    tied: int
    unmatched: int
    passes: int
    tokens: int


def make_targets(
    name: str, choices: Sequence[Choice], critiques: Mapping[str, Judgement], quality_filter: QualityFilter
) -> tuple[list[Judgement], TargetCounts]:
    """The targets of a mode, whose judge is "targets_<name>", and its counts.

    Args:
      choices: one per solution.
      critiques: by their ids, the critique and the merged verification of every choice, where the mode has any.
    """
    critiques = critiques if MODES[name].critique else {}
    kept: list[Judgement] = []
    dropped: dict[str, int] = dict.fromkeys((*consistency.REASONS, *quality.REASONS), 0)
    asked: list[Judgement] = []
    for choice in choices:
        written = [critiques[i] for part in PARTS if choice.kept and (i := f"{choice.kept.id}_{part}") in critiques]
        asked += [*choice.read, *written]
        target = written[-1] if written else choice.kept
        if target is None:
            dropped[choice.dropped] += 1
        elif any(said.failure for said in written):
            dropped[consistency.FAILED] += 1
        elif refused := quality_filter.refuses(target, choice.agreement):
            dropped[refused] += 1
        else:
            texts = [said.text for said in (choice.kept, *written) if said]
            text = format_critique(*texts) if written else target.text
            kept.append(dataclasses.replace(target, judge=f"targets_{name}", text=text))
    counts = TargetCounts(
        solutions=len(choices),
        kept=len(kept),
        dropped=dropped,
        voted={str(n): count for n, count in sorted(Counter(choice.voted for choice in choices).items())},
        tied=sum(choice.tied for choice in choices),
        unmatched=sum(choice.unmatched for choice in choices),
        passes=sum(_is_written(said) for said in asked) if MODES[name].verifications != AGREEMENT else 0,
        tokens=sum(said.prompt_tokens + said.generated_tokens for said in asked),
    )
    return kept, counts


def _is_written(said: Judgement) -> bool:
    """Whether a verifier wrote it, be it nothing; a server may not say of how many tokens a text is."""
    return bool(said.text) or said.generated_tokens > 0


def _choices(run: Run, mode: Mode, rules: ConsistencySettings) -> list[Choice]:
    """What the mode's rule makes of every solution's verifications."""
    of_solution = defaultdict(list)
    for said in run.work.read(mode.verifications):
        of_solution[said.solution_id].append(said)
    return [mode.rule(several, rules) for several in of_solution.values()]


def _criticise(
    run: Run, asked: ask.Verifier, settings: MetaCritiqueSettings, chosen: Mapping[str, Judgement]
) -> list[Judgement]:
    """The critiques and merged verifications of chosen verifications, which are given by their ids: what two modes have
    chosen is criticised once."""
    problems, solutions = _problems(run), {s.id: s for s in run.work.read("solutions")}
    started = {}
    for verification_id, said in sorted(chosen.items()):
        solution = solutions[said.solution_id]
        started[verification_id] = functools.partial(
            meta_critique, run.task, problems[solution.problem_id], solution, said, asked.tokenizer, settings
        )

    def failed(verification_id: str, why: str) -> tuple[Judgement, ...]:
        said = chosen[verification_id]
        return (not_judged(solutions[said.solution_id], f"{said.judge}_merged", why),)

    return [said for several in answer(run, "targets", "", asked.engines, started, failed) for said in several]


# spark_data


def spark_data(
    run: Run, models: WithJudge, solve: SolveSettings, verify: VerifySettings, spark: TargetSettings
) -> list[str]:
    """Stage I in figures: of every mode what became of the solutions, what a problem took, how good the targets are."""
    problems, by_id, gold, solutions = run.records()
    verified = [s for s in solutions if s.steps]
    sampled = {s.problem_id for s in solutions}
    not_sampled = [p.id for p in problems if splits.split_of(p.id) in SAMPLED and p.id not in sampled]
    n_problems = len(sampled)
    truths = {s.id: known(run.task, by_id[s.problem_id], gold[s.problem_id], s) for s in verified}
    problem_of = {s.id: s.problem_id for s in solutions}
    of_mode = {}
    for name, mode in spark.modes.items():
        counts = run.work.read_json(f"judgements/targets_{name}.counts.json")
        found = list(run.judgements(f"targets_{name}").values())
        of_mode[name] = {
            **counts,
            "kept_share": ratio_or_none(counts["kept"], len(solutions)),
            "passes_per_problem": ratio_or_none(counts["passes"], n_problems),
            "tokens_per_problem": ratio_or_none(counts["tokens"], n_problems),
            "quality": _quality(run, found, truths, problem_of),
            "critique": _critique_changes(run, mode, spark, truths) if mode.critique else None,
        }
    measured = {
        "problems": n_problems,
        "not_sampled": len(not_sampled),
        "solutions": len(solutions),
        "verified": len(verified),
        "targets": of_mode,
    }
    return write_cell(run, "verifications", models, dict(solve=solve, verify=verify, spark=spark), measured)


def known(task: Task, problem: Problem, gold: Gold, solution: Solution) -> Judgement:
    """All that is known of a solution: whether its answer is right, and in a world every step."""
    if task.world:
        return truth(task, problem, gold, solution)
    unknown = (StepJudgement(),) * len(solution.steps)
    return dataclasses.replace(outcome(task, gold, solution), steps=unknown)


def answer_quality(said: Sequence[Judgement], real: Sequence[Judgement]) -> dict[str, float | None]:
    """How often judgements call an answer right, over those that say either, and how often they are right in what they
    call it, over those of them of which the truth is known; `n` are the former, `n_known` the latter."""
    pairs = [(a.outcome, b.outcome) for a, b in zip(said, real, strict=True) if a.outcome is not None]
    known = [a == b for a, b in pairs if b is not None]
    return {
        "n": len(pairs),
        "says_right": ratio_or_none(sum(bool(a) for a, _ in pairs), len(pairs)),
        "n_known": len(known),
        "outcome_accuracy": ratio_or_none(sum(known), len(known)),
    }


def _quality(
    run: Run, targets: Sequence[Judgement], truths: Mapping[str, Judgement], problem_of: Mapping[str, str]
) -> dict[str, Any]:
    """Targets against what is known; None where that is nothing. The positive class is "error"."""
    measured = answer_quality(targets, [truths[said.solution_id] for said in targets])
    if not run.task.world:
        return measured | dict.fromkeys((*_STEP_QUALITY, "first_error_f1_interval"))
    said = judge_metrics(targets, list(truths.values()))
    interval = first_error_interval(
        [said_first_error(target, len(target.steps)) for target in targets],
        [first_false(_step_labels([truths[target.solution_id]]), NO_TRUTH) for target in targets],
        [problem_of[target.solution_id] for target in targets],
        run.seed,
    )
    return measured | {key: said[key] for key in _STEP_QUALITY} | {"first_error_f1_interval": interval}


_STEP_QUALITY = (
    "step_accuracy", "error_precision", "error_recall", "correct_precision", "correct_recall", "first_error_f1",
    "n_solutions", "n_steps",
)  # fmt: skip


def _critique_changes(
    run: Run, mode: Mode, rules: ConsistencySettings, truths: Mapping[str, Judgement]
) -> dict[str, Any]:
    """Verdicts on steps and on answers before and after the critique, of all that were merged."""
    merged = {said.id: said for said in run.work.read(CRITIQUES)}
    before: list[Judgement] = []
    after: list[Judgement] = []
    for choice in _choices(run, mode, rules):
        found = merged.get(f"{choice.kept.id}_merged") if choice.kept else None
        if choice.kept and found and not found.failure:
            before.append(choice.kept)
            after.append(found)
    real = [truths[said.solution_id] for said in before]
    old, new = _step_labels(before), _step_labels(after)
    answers = ([said.outcome for said in of] for of in (before, after, real))
    return {"steps": label_changes(old, new, _step_labels(real)), "answers": label_changes(*answers)}


def _step_labels(judgements: Sequence[Judgement]) -> list[bool | None]:
    return [step.label for said in judgements for step in said.steps]


_SOLUTIONS = ("problems.jsonl", "solutions.jsonl")
_CONTROLS = (f"{GUIDED}.jsonl", f"{AGREEMENT}.jsonl")

STAGES = {
    "sample_solutions": Stage(sample_solutions, ("problems.jsonl",)),
    "verify_solutions": Stage(verify_solutions, _SOLUTIONS),
    "verify_guided": Stage(verify_guided, (*_SOLUTIONS, "gold.jsonl")),
    "verify_by_agreement": Stage(verify_by_agreement, ("solutions.jsonl",)),
    "targets": Stage(targets, (*_SOLUTIONS, f"{FREE}.jsonl"), reads=_CONTROLS),
    "spark_data": Stage(spark_data, needs=(*_SOLUTIONS, "gold.jsonl", f"{FREE}.jsonl"), derived=True),
}

CONTROLS = ("reference_guided", "agreement")  # modes


def pipeline(controls: bool) -> dict[str, Stage]:
    """The stages in their order, with those of the CONTROLS or without."""
    asked = ("verify_guided", "verify_by_agreement") if controls else ()
    names = ("load_problems", "sample_solutions", "verify_solutions", *asked, "targets", "spark_data")
    return chosen(names, {**prm.STAGES, **STAGES})
