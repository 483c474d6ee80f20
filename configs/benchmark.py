"""Any judge on a benchmark of judges: ProcessBench (where is the first error?) or PRMBench (is each step right?).

    python -m spare_jax.main --config=configs/benchmark.py --config.data.path=gsm8k.jsonl --config.judge=alignment
    python -m spare_jax.main --config=configs/benchmark.py:task=math --config.data.path=Qwen/ProcessBench \\
        --config.judge=reward_model --config.models.prm.path=HF_DIR
    python -m spare_jax.main --config=configs/benchmark.py:format=prmbench,task=math --config.data.path=FILE.jsonl \\
        --config.judge=reward_model --config.models.prm.path=HF_DIR

Judges that compare with a reference need ProcessBench rows with a `reference_solution` (docs/judges.md); PRMBench rows
have one, the solution before it was changed. metrics.json has the score, its parts and the trivial baselines. On
ProcessBench every k-th row, 100 of them, is the dev part, where thresholds are chosen; on PRMBench the threshold is
config.threshold. Of a hub id of ProcessBench the split is the task's name (config.data.split). :runlocal computes in
float32 on short texts.
"""

from spare_jax import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="gsm8k", format="processbench")
    config = settings.default()
    config.task = chosen["task"]
    config.stages = ("benchmark",)
    config.data.format = chosen["format"]
    if chosen["format"] == "processbench":
        config.data.split = chosen["task"]
    settings.judge_with_real_models(config, laptop=bool(chosen["runlocal"]))
    return config
