"""SPARK, stage I, with the paper's settings (arXiv 2512.03244): 8K MATH problems, 8 solutions each by
Qwen2.5-14B-Instruct, 16 verifications of each by Qwen3-32B, without a reference.

    python -m spare_jax.main --config=configs/spark_math.py --config.data.path=DIR
    python -m spare_jax.main --config=configs/spark_math.py:guided --config.data.path=DIR
    python -m spare_jax.main --config=configs/spark_math.py --config.data.path=DIR \\
        --config.models.judge.path=endpoint:MODEL

A million verifications: a job for a slice of accelerators, or for a server (docs/judges.md). `guided` adds the control
whose verifier is shown the accepted answer. Not published, hence ours: the verifier's longest text, the rules of
config.spark, and all of its filter. :runlocal is the same with few problems and short texts.
"""

from spare_jax import settings, spark


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, guided=False)
    config = settings.default()
    config.task = "math"
    config.stages = spark.PIPELINE
    config.data.train_problems, config.data.dev_problems, config.data.test_problems = 8000, 400, 0
    settings.judge_with_real_models(config, laptop=False)
    config.models.generator.path = "Qwen/Qwen2.5-14B-Instruct"
    config.models.judge.path = "Qwen/Qwen3-32B"
    config.solve.update(samples=8, temperature=0.7, top_p=0.95, max_tokens=8192)
    config.verify.update(votes=16, temperature=0.8, top_p=0.95, max_tokens=8192)
    config.spark.critique = config.spark.merge = ""
    config.engine.max_length = 32_768
    if chosen["guided"]:
        spark.with_control(config)
    if chosen["runlocal"]:
        settings.verify_in_small(config)
        config.solve.max_tokens = config.verify.max_tokens = 1024
        config.engine.max_length = 4096
    return config
