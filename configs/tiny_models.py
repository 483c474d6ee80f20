"""The embedded models, from nothing: tokenizer, tiny-base, another base, its solutions, tiny-teacher.

    python -m spare_jax.main --config=configs/tiny_models.py        about 100 minutes on two CPU cores

Writes Hugging Face directories under models/ of the work directory; models/base and models/teacher are what
spare_jax/assets/ holds as tiny-base and tiny-teacher. README.md says how good they are. A phase of training names the
lengths and the number of its problems, all new ones, and its settings (training/loop.py).
"""

from ml_collections import ConfigDict

from spare_jax import settings
from spare_jax.worlds import arithmetic as world

PHASE = dict(
    batch_rows=4, row_length=320, learning_rate=2e-3, warmup=0.02, weight_decay=0.01, clip=1.0, eval_every=500,
    patience=1000, checkpoint_every=1000,
)  # fmt: skip
# First problems of one and two steps, then of all lengths, then more of these. A row holds some 2.3 problems.
SHORT = PHASE | dict(split="pretraining-2", lengths=(1, 2), max_distractors=1, problems=42_000, steps=3000)
ALL = PHASE | dict(lengths=world.TRAIN.lengths, max_distractors=world.TRAIN.max_distractors)
WHOLE = ALL | dict(split="pretraining-6", problems=40_000, steps=4000)
MORE = ALL | dict(split="pretraining-more", problems=45_000, steps=5000)


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    config: settings.Config = ConfigDict()
    config.seed = 0
    config.task = "arithmetic"
    config.stages = ("tokenizer", "base", "other_base", "candidates", "teacher")
    config.mesh = settings.mesh_entry()
    config.engine = settings.default().engine
    config.tokenizer = ConfigDict(dict(vocab_size=640))
    config.decoder = ConfigDict(
        dict(
            hidden_size=128, intermediate_size=384, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
            max_length=1024,
        )
    )  # fmt: skip
    config.base = ConfigDict(dict(seed=1, phases={"1_short": SHORT, "2_whole": WHOLE, "3_more": MORE}))
    config.other_base = ConfigDict(dict(seed=2, phases={"1_short": SHORT, "2_whole": WHOLE}))
    config.candidates = ConfigDict(dict(problems=5000, samples=4, temperature=0.8, max_tokens=176))
    config.teacher = ConfigDict(
        dict(
            dev_problems=100,
            train=dict(
                batch_rows=4, row_length=640, steps=1300, learning_rate=2e-3, warmup=0.03, weight_decay=0.01, clip=1.0,
                eval_every=250, patience=1000, checkpoint_every=250,
            ),
        )
    )  # fmt: skip
    if chosen["runlocal"]:
        _small(config)
    return config


def _small(config) -> None:
    """The whole way in a minute, for tests: the models it makes know nothing."""
    for base in (config.base, config.other_base):
        for phase in base.phases.values():
            phase.update(problems=40, steps=2, batch_rows=4, checkpoint_every=1)
    config.candidates.update(problems=6, samples=2, max_tokens=32)
    config.teacher.dev_problems = 2
    config.teacher.train.update(batch_rows=2, steps=2)
