"""SPARK, stage I: solutions verified several times without a reference, and targets made of the verifications.

    python -m spare_jax.main --config=configs/spark.py                 on the arithmetic world, in about three minutes
    python -m spare_jax.main --config=configs/spark.py:controls        with the two controls
    python -m spare_jax.main --config=configs/spark.py:task=multihop

The models are embedded ones. On the arithmetic world tiny-verifier verifies; on the others a teacher does that was not
trained to, and the targets are whole texts and little else.
configs/spark_math.py asks real models, configs/spark_study.py goes on. The targets of a mode are
judgements/targets_<mode>.jsonl; metrics.json has what became of the solutions, what a problem took, and the targets
against the world's truth (docs/spark.md). :runlocal is the same with few problems.
"""

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import presets, spark_verifications
from spare_jax.runs import settings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic", controls=False)
    task, controls = str(chosen["task"]), bool(chosen["controls"])
    added = spark_verifications.CONTROLS if controls else ()
    parts: dict[str, Any] = dict(
        data=ProblemData(train_problems=48, dev_problems=8, test_problems=0),
        models=presets.own_models(task, verifies=True),
        solve=SolveSettings(samples=4, max_tokens=176),
        # The critique has to fit behind a verification.
        verify=replace(presets.TINY_VERIFY, votes=4, temperature=0.8, top_p=0.95, max_tokens=240),
        spark=replace(presets.TINY_TARGETS, targets=(*presets.TINY_TARGETS.targets, *added)),
    )
    if chosen["runlocal"]:
        parts = presets.spark_in_small(parts)
    return experiment(spark_verifications.pipeline(controls), seed=0, task=task, **parts)
