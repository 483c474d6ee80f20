"""Any judge on PRMBench: is each step right, class of error by class of error?

    python -m spare_jax.main --config=configs/prmbench.py --config.data.path=FILE.jsonl --config.judge=reward_model \\
        --config.models.prm.path=HF_DIR

A row's reference is the solution before it was changed. metrics.json has the PRMScore, overall and per class, beside
calling every step right or wrong; a score is a label by config.threshold. :runlocal computes in float32 on short texts.
"""

from spare_jax.pipelines import label_files, presets
from spare_jax.runs import settings
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="math")
    task = str(chosen["task"])
    return experiment(
        {"benchmark": label_files.STAGES["benchmark"]},
        seed=0,
        task=task,
        judge="spare",
        data=label_files.SolutionData(format="prmbench"),
        **presets.real_judges(laptop=bool(chosen["runlocal"])),
    )
