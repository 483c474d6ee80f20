"""Train a PRM, and an ORM beside it, on a file of labelled solutions.

    python -m spare_jax.main --config=configs/prm_labels.py --config.data.labels=FILE.jsonl \\
        --config.data.format=trl_stepwise --config.models.prm.path=HF_DIR
    python -m spare_jax.main --config=configs/prm_labels.py:runlocal --config.data.labels=FILE.jsonl

The formats are those of docs/formats.md; a Parquet file, a directory or a hub id serves as well. A tenth of the
problems is the dev set. The PRM is in prm/export of the work directory. The second line trains tiny-base, in a minute
for some hundred solutions.
"""

from dataclasses import replace

from spare_jax.models.adapters import AdapterConfig
from spare_jax.pipelines import presets, prm
from spare_jax.runs import settings
from spare_jax.runs.models import Models, RewardModel
from spare_jax.runs.splits import LabelData
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    trained = prm.RewardModelTraining(labels="labels", lora=presets.REAL_LORA, train=presets.REAL_TRAIN)
    if chosen["runlocal"]:
        small = dict(batch_rows=8, row_length=512, learning_rate=1e-3, eval_every=4, checkpoint_every=4)
        train = replace(trained.train, **small, dtype="float32", remat="none")
        trained = replace(trained, lora=AdapterConfig(), train=train)
    return experiment(
        prm.FROM_LABELS,
        seed=0,
        task="gsm8k",  # the reward model's text begins with this task's instruction
        data=LabelData(format="trl_stepwise"),
        models=Models(prm=RewardModel("tiny-base" if chosen["runlocal"] else "")),
        prm=trained,
    )
