"""A policy on six benchmarks of mathematics: MATH-500, AIME24, AIME25, AMC23, OlympiadBench, Minerva-Math.

    python -m spare_jax.main --config=configs/math_benchmarks.py --config.data.path=DIR \\
        --config.models.generator.path=HF_DIR

DIR holds a directory per benchmark (math500/math500.jsonl, aime24/test.jsonl, ...: docs/tasks.md). metrics.json has the
accuracy of each, greedy and as avg@k (k = config.solve.samples), and the means over the six, with 95 % intervals. A
part: --config.benchmarks="('aime24','amc23')". :runlocal takes four problems of each, two samples and short answers.
"""

from spare_jax.pipelines import math_benchmarks
from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    config = settings.default()
    config.task = "math500"
    config.stages = math_benchmarks.PIPELINE
    config.data.train_problems = config.data.dev_problems = 0
    config.data.test_problems = 4 if chosen["runlocal"] else None
    settings.judge_with_real_models(config, laptop=bool(chosen["runlocal"]))
    config.solve.samples = 2 if chosen["runlocal"] else 16
    config.solve.max_tokens = 64 if chosen["runlocal"] else 3072
    config.solve.temperature, config.solve.top_p = 0.7, 0.95
    return config
