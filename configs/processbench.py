"""Any judge on ProcessBench: where is the first error, by its word and by the people's?

    python -m spare_jax.main --config=configs/processbench.py --config.data.path=gsm8k.jsonl --config.judge=alignment
    python -m spare_jax.main --config=configs/processbench.py:task=math --config.data.path=Qwen/ProcessBench \\
        --config.judge=reward_model --config.models.prm.path=HF_DIR

Judges that compare with a reference need rows with a `reference_solution` (docs/judges.md). metrics.json has the F1,
its parts and the trivial baselines; every k-th row, 100 of them, is the dev part, where thresholds are chosen. Of a hub
id the split is the task's name. :runlocal computes in float32 on short texts.
"""

from spare_jax.pipelines import label_files, presets
from spare_jax.runs import settings
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="gsm8k")
    task = str(chosen["task"])
    return experiment(
        {"benchmark": label_files.STAGES["benchmark"]},
        seed=0,
        task=task,
        judge="spare",
        data=label_files.SolutionData(format="processbench", split=task),
        **presets.real_judges(laptop=bool(chosen["runlocal"])),
    )
