"""The study of SPARK on the arithmetic world from one seed: labels, reward models, reinforcement learning.

    python -m spare_jax.main --workdir=DIR --config=configs/spark_study.py:part=labels,seed=31
    python -m spare_jax.main --workdir=DIR \\
        --config=configs/spark_study.py:part=verifiers,cell=step_consistency_prm_cot,seed=31
    python -m spare_jax.main --workdir=DIR --config=configs/spark_study.py:part=rl,cell=process_aware,seed=31
    python -m spare_jax.studies.collect docs/results/spark.json DIR/verifications DIR/verifiers/* DIR/policies/*

All parts of a seed share a directory. `labels` makes the targets of every mode, the two controls among them, from what
tiny-verifier verifies; a cell of `verifiers` is <mode>_<kind>, of `rl` a reward, paid by the reward model of the cell
above (docs/spark.md). :runlocal is the same with few problems.
"""

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import presets, spark_cells, spark_verifications
from spare_jax.runs import settings
from spare_jax.runs.models import EngineSettings, Model
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, part="labels", cell="", seed=31)
    part, cell, task = str(chosen["part"]), str(chosen["cell"]), "arithmetic"
    stages = spark_cells.stages(part, cell, controls=True)
    models = presets.own_models(task, verifies=True)
    data = ProblemData(train_problems=240, dev_problems=40, test_problems=1000)
    engine = EngineSettings(max_length=2048)  # a critique stands behind a verification
    verify = replace(presets.TINY_VERIFY, votes=8, temperature=0.8, top_p=0.95, max_tokens=320)
    parts: dict[str, Any] = dict(models=models, engine=engine, solve=presets.TINY_SOLVE)
    if part == "labels":
        targets = (*presets.TINY_TARGETS.targets, *spark_verifications.CONTROLS)
        parts |= dict(data=data, verify=verify, spark=replace(presets.TINY_TARGETS, targets=targets))
    elif part == "verifiers":
        mode, kind = spark_cells.VERIFIERS[cell]
        verifier = replace(presets.TINY_VERIFIER, targets=mode, kind=kind)
        # Sixteen samples of each of these are judged; a policy answers a problem once.
        verifier = replace(verifier, test_problems=150, train=replace(verifier.train, row_length=1024))
        # As in the paper a reward model starts from an instruct model. What learns from agreement must not have seen
        # truth.
        if mode == "agreement":
            train = replace(verifier.train, batch_rows=4, epochs=4.0, optimizer="muon", learning_rate=2e-3)
            verifier = replace(verifier, train=train)
        else:
            models = replace(models, generative=Model("tiny-verifier"))
        parts |= dict(
            models=models, generative=presets.TINY_GENERATIVE, verifier=verifier, prm=presets.TINY_PRM
        )  # fmt: skip
    else:
        grpo = replace(presets.TINY_GRPO, reward=cell, judge="generative", iterations=60, prompts=16)
        # What a policy does unwatched is the question, so the alarm is off. The shortest stories take two steps.
        unwatched = {**grpo.alarms, "paid_wrongly": replace(grpo.alarms["paid_wrongly"], threshold=1.0)}
        train = replace(grpo.train, row_length=320, accumulate=4, learning_rate=1e-4)
        grpo = replace(grpo, watch_problems=40, least_steps=0, alarms=unwatched, train=train)
        models = replace(models, generative=spark_cells.paying(cell))
        parts |= presets.tiny_judges() | dict(data=data, models=models, verify=verify, grpo=grpo)
    if chosen["runlocal"]:
        parts = presets.spark_in_small(parts)
    return experiment(stages, seed=int(chosen["seed"]), task=task, **parts)
