"""Any judge on PRMBench: is each step right, class of error by class of error?

    python -m spare_jax.main --config=configs/prmbench.py --config.data.path=FILE.jsonl --config.judge=reward_model \\
        --config.models.prm.path=HF_DIR

A row's reference is the solution before it was changed. metrics.json has the PRMScore, overall and per class, beside
calling every step right or wrong; a score is a label by config.threshold. :runlocal computes in float32 on short texts.
"""

from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="math")
    config = settings.default()
    config.task = chosen["task"]
    config.stages = ("benchmark",)
    config.data.format = "prmbench"
    settings.judge_with_real_models(config, laptop=bool(chosen["runlocal"]))
    return config
