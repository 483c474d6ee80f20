"""Offline reinforcement learning: a policy learns from pairs of its own solutions (SPARE, arXiv 2506.15498, section 3).

sft           references of the train problems  -> problems.jsonl, gold.jsonl, policies/sft1/export
sample_policy SFT-1, train and dev problems     -> solutions.jsonl
judge         (prm.py)                          -> judgements/{outcome,truth,spare}.jsonl
pair          labels, by the method's rule      -> preferences/<method>_{train,dev}.jsonl, trl_preference/ likewise
train_policy  these, from SFT-1                 -> policies/<method>/export
greedy        that policy, test problems        -> solutions/<method>.jsonl
offline_rl    the method's figures, derived     -> policies/<method>/metrics.json, metrics.json

The last four are stages of a method: a work directory holds any number of methods, which share what stands before.
"""

import dataclasses
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.judges.truth import Flips, truth
from spare_jax.models import huggingface
from spare_jax.models.adapters import AdapterConfig
from spare_jax.models.huggingface import Checkpoint
from spare_jax.pipelines import policies, prm
from spare_jax.pipelines.cells import write_cell
from spare_jax.pipelines.prm import Annotate
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.records import Gold, Judgement, Preference, Problem, Solution
from spare_jax.runs import fit, solving, splits
from spare_jax.runs.models import EngineSettings, Generator, Model, WithJudge, load_to_ask, load_to_train
from spare_jax.runs.run import Run
from spare_jax.runs.settings import listed
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import Stage, chosen, execute
from spare_jax.solvers.sample import SolveSettings
from spare_jax.storage.jsonlines import digest
from spare_jax.storage.store import WorkDir
from spare_jax.targets import preferences
from spare_jax.targets.labels import reference_solution
from spare_jax.targets.preferences import PairSettings
from spare_jax.training import batches, loop, losses
from spare_jax.training.setup import TrainConfig

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Method:
    """How SFT-1 is trained further: on pairs by a rule of targets/preferences.py over a judge's labels, by a loss.

    `labels` names a file of judgements/, or is "noisy_truth": the truth with as many labels flipped as SPARE has wrong.
    The loss "sft" takes the reference of each pair's problem in its place: as many instances (SFT-2). An `iterated`
    method goes on in rounds. `rate` times the config's learning rate is the method's: DPO, whose loss has no term that
    holds on to the chosen text, unlearns to end a text at a rate that suits ORPO (docs/results/offline_rl.md).
    """

    loss: str
    rule: str = "spare"
    labels: str = "spare"
    iterated: bool = False
    rate: float = 1.0


SFT1 = "sft1"
_DPO_RATE = 0.1
METHODS: Mapping[str, Method | None] = {
    SFT1: None,
    "sft2": Method("sft"),
    "outcome_orpo": Method("orpo", rule="outcome", labels="outcome"),
    "spare_orpo": Method("orpo"),
    "truth_orpo": Method("orpo", labels="truth"),
    "noisy_truth_orpo": Method("orpo", labels="noisy_truth"),
    "dpo": Method("dpo", rate=_DPO_RATE),
    "step_dpo": Method("dpo", rule="step", rate=_DPO_RATE),
    "iterated": Method("orpo", iterated=True),
}
ROUND = "spare_orpo"  # the method of a later round


@dataclasses.dataclass(frozen=True)
class SFT:
    """How a policy learns from references first. `neftune_alpha` is the noise on the embeddings (arXiv 2310.05914), 0
    none."""

    neftune_alpha: float = 5.0
    lora: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Which pairs a policy learns from, and which ones choose the best of its checkpoints."""

    train: PairSettings = PairSettings()
    dev: PairSettings = PairSettings(sampled_pairs=1, pairs_per_problem=2)


@dataclasses.dataclass(frozen=True)
class PolicyTraining:
    """How a policy learns from pairs; both texts of a pair lie in one row."""

    orpo_beta: float = 0.2
    dpo_beta: float = 0.1
    lora: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()


def _method(name: str) -> Method | None:
    if name not in METHODS:
        raise ValueError(f"config.method={name!r} is unknown: choose among {', '.join(METHODS)}")
    return METHODS[name]


def _problems(run: Run, data: ProblemData) -> tuple[list[Problem], dict[str, Gold]]:
    """The problems of the run, written down, and their gold by id."""
    loaded = prm.problems_of(run, data)
    return loaded.problems, {gold.problem_id: gold for gold in loaded.gold}


def _of(problems: Sequence[Problem], *names: str) -> list[Problem]:
    return [problem for problem in problems if splits.split_of(problem.id) in names]


def _generator(run: Run, models: Generator, method: str, rounds: int = 1) -> Model:
    """That policy; where there is none, in a round that begins with another, the generator of the run."""
    path = run.work.path / _policy(method, rounds)
    return Model(str(path)) if path.exists() else models.generator


def _policy(method: str, rounds: int = 1) -> str:
    """Where the policy of a method lies after so many rounds, in the work directory."""
    return f"policies/{method}/export" if rounds == 1 else f"{_round(method, rounds)}/policies/{ROUND}/export"


def _round(method: str, number: int) -> str:
    return f"policies/{method}/rounds/{number}"


# sft


def sft(run: Run, data: ProblemData, models: Generator, sft: SFT) -> list[str]:
    """SFT-1: supervised fine-tuning of the generator on the references of the train problems."""
    problems, gold = _problems(run, data)
    start = load_to_train(run, models.generator, lora=sft.lora, dtype=sft.train.dtype)
    rows = [
        batches.pack([_reference(run, start, p, gold[p.id]) for p in _of(problems, split)], sft.train.row_length)
        for split in ("train", "dev")
    ]
    loss = losses.LanguageModelLoss(sft.neftune_alpha)
    return [
        "problems.jsonl",
        "gold.jsonl",
        *fit.fine_tune(run, "sft", f"policies/{SFT1}", start, loss, rows, sft.train),
    ]


def _reference(run: Run, start: Checkpoint, problem: Problem, gold: Gold) -> batches.Example:
    """What SFT learns of a problem: its reference behind the prompt."""
    prompt = encode_chat(start.tokenizer, solve.render(run.task, problem))
    completion = _completion(start, reference_solution(run.task, gold))
    return batches.completion_example([*prompt, *completion], len(prompt))


# sample_policy


def sample_policy(
    run: Run, data: ProblemData, models: Generator, engine: EngineSettings, solve: SolveSettings
) -> list[str]:
    """Sample solutions of all train and dev problems by SFT-1."""
    problems, _ = _problems(run, data)
    policy = load_to_ask(run, _generator(run, models, SFT1))
    solving.solve(run, "sample_policy", policy, _of(problems, "train", "dev"), engine, solve)
    return ["problems.jsonl", "gold.jsonl", "solutions.jsonl"]


# pair


def pair(run: Run, method: str, pairs: Pairs) -> list[str]:
    """The method's pairs, of the train and of the dev problems."""
    name, rule = method, _method(method)
    if rule is None:
        return []
    problems, by_id, gold, solutions = run.records()
    judgements = _labels(run, rule, by_id, gold, solutions)
    written = []
    for split, how in (("train", pairs.train), ("dev", pairs.dev)):
        settings = dataclasses.replace(how, rule=rule.rule, seed=run.seed)
        of_split = {problem.id: problem for problem in _of(problems, split)}
        found, counts = preferences.preference_pairs(run.task, of_split, gold, solutions, judgements, settings)
        file = f"{name}_{split}"
        if counts.not_judged:
            logger.warning(
                "pair: %d of %d %s solutions were not judged and are in no pair",
                counts.not_judged, counts.solutions, split,
            )  # fmt: skip
        if left_out := preferences.write(run.work, file, found):
            logger.warning("pair: %d pairs with a blank step are not in trl_preference/%s.jsonl", left_out, file)
        run.work.write_json(f"preferences/{file}.counts.json", dataclasses.asdict(counts))
        written += [f"preferences/{file}.jsonl", f"preferences/{file}.counts.json", f"trl_preference/{file}.jsonl"]
    return written


def _labels(
    run: Run,
    method: Method,
    problems: Mapping[str, Problem],
    gold: Mapping[str, Gold],
    solutions: Sequence[Solution],
) -> Mapping[str, Judgement]:
    """The judgements that the method's rule reads, by solution."""
    if method.labels != "noisy_truth":
        return run.judgements(method.labels)
    flips = _flips(run)
    judged = (truth(run.task, problems[s.problem_id], gold[s.problem_id], s, flips) for s in solutions)
    return {judgement.solution_id: judgement for judgement in judged}


def _flips(run: Run) -> Flips:
    """How often SPARE calls a right step wrong, and a wrong one right, on this run's solutions; 0 of steps that there
    are none of.

    Raises:
      ValueError: there are such steps and SPARE has labelled none of them, so nobody knows.
    """
    known = run.judgements("truth")
    errs: dict[bool, list[bool]] = {True: [], False: []}
    there: set[bool] = set()
    for solution_id, judgement in run.judgements("spare").items():
        for real, step in zip(known[solution_id].steps, judgement.steps, strict=True):
            if real.label is not None:
                there.add(real.label)
                if step.label is not None:
                    errs[real.label].append(step.label is not real.label)
    for kind in there:
        if not errs[kind]:
            raise ValueError(
                f"noisy_truth: SPARE has labelled no step that is {'right' if kind else 'wrong'}, so how often it errs "
                "there is not known: judge the solutions again, or choose another method"
            )
    return Flips(mean_or_none(errs[True]) or 0.0, mean_or_none(errs[False]) or 0.0, run.seed)


# train_policy


def train_policy(
    run: Run,
    method: str,
    rounds: int,
    data: ProblemData,
    models: WithJudge,
    engine: EngineSettings,
    solve: SolveSettings,
    annotate: Annotate,
    pairs: Pairs,
    sft: SFT,
    policy: PolicyTraining,
) -> list[str]:
    """Train SFT-1 further by the method's loss on its pairs; where the method is iterated, round after round, which
    takes all that their stages take."""
    name, rule = method, _method(method)
    if rule is None:
        return []
    train = dataclasses.replace(policy.train, learning_rate=policy.train.learning_rate * rule.rate, seed=run.seed)
    start = load_to_train(run, _generator(run, models, SFT1), lora=policy.lora, dtype=train.dtype)
    learnt = [run.work.read(f"preferences/{name}_{split}") for split in ("train", "dev")]
    if rule.loss == "sft":
        gold, loss = run.records()[2], losses.LanguageModelLoss(sft.neftune_alpha)
        texts = [[_reference(run, start, pair.problem, gold[pair.problem.id]) for pair in of] for of in learnt]
        rows = [batches.pack(of, train.row_length) for of in texts]
    else:
        loss = losses.ORPOLoss(policy.orpo_beta) if rule.loss == "orpo" else losses.DPOLoss(policy.dpo_beta)
        rows = [batches.pack_pairs([_as_ids(run, start, pair) for pair in of], train.row_length) for of in learnt]
        if rule.loss == "dpo":
            rows = [loop.with_reference(train, start.model, of, run.mesh) for of in rows]
    written = fit.fine_tune(run, f"train_policy {name}", f"policies/{name}", start, loss, rows, train)
    if rule.iterated:
        parts = dict(
            data=data, engine=engine, solve=solve, annotate=annotate, pairs=pairs, sft=sft, policy=policy, rounds=rounds
        )
        written += _go_on(run, method, rounds, models, parts)
    return written


def _go_on(run: Run, method: str, rounds: int, models: WithJudge, parts: Mapping[str, Any]) -> list[str]:
    """The rounds after the first, each in a work directory of its own: the policy of the last one samples, SPARE
    annotates, and ORPO makes the next. What failed in them has failed in this stage, which asks again as they do."""
    written, label = [], STAGES["train_policy"].label("train_policy", {"method": method})
    stages = chosen(("sample_policy", "judge", "pair", "train_policy"), {**prm.STAGES, **STAGES})
    for number in range(2, rounds + 1):
        work = WorkDir(run.work.path / _round(method, number))
        _begin_round(work, run.work.path / _policy(method, number - 1))
        begun = dataclasses.replace(models, generator=_generator(run, models, method, number - 1))
        config = listed({**parts, "models": begun, "method": ROUND, "seed": run.seed, "task": run.task.name})
        inner = dataclasses.replace(run, work=work, failures={}, asked=Counter())
        execute(inner, stages, config)
        run.asked[label] += inner.asked.total()
        for stage, failed in inner.failures.items():
            told = {f"rounds/{number}/{stage}/{program_id}": failure for program_id, failure in failed.items()}
            run.failures.setdefault(label, {}).update(told)
        written.append(_policy(method, number))
    return written


def _begin_round(work: WorkDir, policy: Path) -> None:
    """Make the directory of a round that begins with `policy`, or keep it where it was begun with the same one: what
    stands before a round is made anew when its gaps are filled."""
    begun = {"policy": digest(policy) if policy.exists() else ""}
    if work.path.exists() and not ((work.path / "begun.json").exists() and work.read_json("begun.json") == begun):
        shutil.rmtree(work.path)
    work.path.mkdir(parents=True, exist_ok=True)
    work.write_json("begun.json", begun)


def _as_ids(run: Run, start: Checkpoint, preference: Preference) -> batches.Pair:
    """A preference as token ids; the steps that its solutions share are part of the prompt (Step-DPO), as the chosen
    one has them."""
    prompt = encode_chat(start.tokenizer, solve.render(run.task, preference.problem))
    digest, shared = huggingface.tokenizer_digest(start.tokenizer), preference.shared_steps
    given = [token for piece in solve.piece_ids(start.tokenizer, preference.chosen, digest)[:shared] for token in piece]
    chosen, rejected = (_completion(start, s, shared) for s in (preference.chosen, preference.rejected))
    return batches.Pair([*prompt, *given], chosen, rejected)


def _completion(start: Checkpoint, solution: Solution, shared: int = 0) -> list[int]:
    """The ids of a solution behind its first `shared` steps, and the end of the text unless it was cut off."""
    pieces = solve.piece_ids(start.tokenizer, solution, huggingface.tokenizer_digest(start.tokenizer))
    cut_off = solution.finish_reason in ("length", preferences.CUT)
    return [
        *(token for piece in pieces[shared:] for token in piece),
        *(() if cut_off else end_ids(start.tokenizer)[:1]),
    ]


# greedy


def greedy(
    run: Run, method: str, rounds: int, models: Generator, engine: EngineSettings, solve: SolveSettings
) -> list[str]:
    """One solution of every test and held-out problem by the method's policy, at temperature 0."""
    rule = _method(method)
    generator = _generator(run, models, method, rounds if rule and rule.iterated else 1)
    label = STAGES["greedy"].label("greedy", {"method": method})
    return policies.solve(run, label, load_to_ask(run, generator), engine, solve, method)


# offline_rl


def offline_rl(
    run: Run,
    method: str,
    models: WithJudge,
    solve: SolveSettings,
    sft: SFT,
    pairs: Pairs,
    policy: PolicyTraining,
) -> list[str]:
    """metrics.json of the method: what it learned from, and how its policy solves."""
    measured: dict[str, Any] = {"method": method}
    files = {"pairs": f"preferences/{method}_train.counts.json", "training": f"policies/{method}/training.json"}
    for part, file in files.items():
        measured[part] = run.work.read_json(file) if (run.work.path / file).exists() else None
    settings = dict(solve=solve, sft=sft, pairs=pairs, policy=policy)
    return write_cell(run, f"policies/{method}", models, settings, measured | policies.figures(run, method))


STAGES = {
    "sft": Stage(sft),
    "sample_policy": Stage(sample_policy, reads=("policies/sft1/export",)),
    "pair": Stage(
        pair,
        prm.RECORDS,
        reads=("judgements/outcome.jsonl", "judgements/truth.jsonl", "judgements/spare.jsonl"),
        per=("method",),
    ),
    "train_policy": Stage(
        train_policy,
        ("problems.jsonl", "gold.jsonl"),
        reads=("policies/sft1/export", "preferences/{method}_train.jsonl", "preferences/{method}_dev.jsonl"),
        per=("method",),
    ),
    "greedy": Stage(
        greedy,
        ("problems.jsonl",),
        reads=("policies/{method}/export", "policies/{method}/rounds"),
        per=("method",),
    ),
    "offline_rl": Stage(offline_rl, needs=("gold.jsonl", "solutions/{method}.jsonl"), derived=True, per=("method",)),
}

PIPELINE = chosen(
    ("sft", "sample_policy", "judge", "pair", "train_policy", "greedy", "offline_rl"), {**prm.STAGES, **STAGES}
)
