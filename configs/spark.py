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

from spare_jax.pipelines import spark_verifications
from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic", controls=False)
    config = settings.default()
    config.task = chosen["task"]
    config.stages = spark_verifications.PIPELINE
    config.data.train_problems, config.data.dev_problems, config.data.test_problems = 48, 8, 0
    config.data.held_out_problems = 0
    config.solve.samples = 4
    config.verify.update(votes=4, temperature=0.8, top_p=0.95, max_tokens=240)  # the critique has to fit behind it
    settings.use_own_models_of_world(config, verifies=True)
    if chosen["controls"]:
        spark_verifications.with_controls(config)
    if chosen["runlocal"]:
        settings.spark_in_small(config)
    return config
