"""Train a PRM, and an ORM beside it, on a file of labelled solutions.

    python -m spare_jax.main --config=configs/prm_labels.py --config.data.labels=FILE.jsonl \\
        --config.data.format=trl_stepwise --config.models.prm.path=HF_DIR
    python -m spare_jax.main --config=configs/prm_labels.py:runlocal --config.data.labels=FILE.jsonl

The formats are those of docs/formats.md; a Parquet file, a directory or a hub id serves as well. A tenth of the
problems is the dev set. The PRM is in prm/export of the work directory. The second line trains tiny-base, in a minute
for some hundred solutions.
"""

from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    config = settings.default()
    config.task = "gsm8k"  # the reward model's text begins with this task's instruction
    config.stages = ("labels", "train_prm")
    config.data.train_problems = config.data.dev_problems = None
    config.prm.labels = "labels"
    config.models.generator.path = ""
    settings.train_real_model(config.prm)
    if chosen["runlocal"]:
        config.models.prm.path = "tiny-base"
        config.prm.lora.update(rank=0, quantize="")
        config.prm.train.update(
            batch_rows=8, row_length=512, learning_rate=1e-3, eval_every=4, checkpoint_every=4, dtype="float32",
            remat="none",
        )  # fmt: skip
    return config
