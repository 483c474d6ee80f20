"""A policy on six benchmarks of mathematics: MATH-500, AIME24, AIME25, AMC23, OlympiadBench, Minerva-Math.

    python -m spare_jax.main --config=configs/math_benchmarks.py --config.data.path=DIR \\
        --config.models.generator.path=HF_DIR

DIR holds a directory per benchmark (math500/math500.jsonl, aime24/test.jsonl, ...: docs/tasks.md). metrics.json has the
accuracy of each, greedy and as avg@k (k = config.solve.samples), and the means over the six, with 95 % intervals. A
part: --config.benchmarks="('aime24','amc23')". :runlocal takes four problems of each, two samples and short answers.
"""

from spare_jax.pipelines import math_benchmarks, presets
from spare_jax.runs import settings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings


def get_config(argument: str | None = None):
    small = bool(settings.parse_argument(argument, runlocal=False)["runlocal"])
    return experiment(
        math_benchmarks.PIPELINE,
        seed=0,
        task="math500",
        data=ProblemData(train_problems=0, dev_problems=0, test_problems=4 if small else None),
        engine=presets.LAPTOP_ENGINE if small else presets.REAL_ENGINE,
        solve=SolveSettings(samples=2 if small else 16, temperature=0.7, top_p=0.95, max_tokens=64 if small else 3072),
    )
