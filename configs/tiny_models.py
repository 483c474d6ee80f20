"""The embedded models, from nothing: tokenizer, tiny-base, another base, its solutions, tiny-teacher.

    python -m spare_jax.main --config=configs/tiny_models.py        about 100 minutes on two CPU cores

Writes Hugging Face directories under models/ of the work directory; models/base and models/teacher are what
spare_jax/assets/ holds as tiny-base and tiny-teacher. README.md says how good they are. A phase of training names the
lengths and the number of its problems, all new ones, and its settings (training/loop.py).
"""

from ml_collections import ConfigDict

from spare_jax import settings

PHASE = dict(
    batch_rows=16, row_length=256, warmup=0.03, weight_decay=0.01, clip=1.0, eval_every=200, patience=1000,
    checkpoint_every=300,
)  # fmt: skip


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    config = ConfigDict()
    config.seed = 0
    config.task = "arithmetic"
    config.stages = ("tokenizer", "base", "other_base", "candidates", "teacher")
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    config.engine = settings.default().engine
    config.tokenizer = ConfigDict(dict(vocab_size=640))
    config.decoder = ConfigDict(
        dict(
            hidden_size=128, intermediate_size=384, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
            max_length=1024,
        )
    )  # fmt: skip
    config.base = ConfigDict(dict(seed=1, phases=_phases(3e-3, short=(400, 17_066), whole=(3200, 105_000))))
    config.other_base = ConfigDict(dict(seed=2, phases=_phases(2e-3, short=(400, 17_066), whole=(1600, 52_851))))
    config.candidates = ConfigDict(dict(problems=9000, samples=4, max_tokens=176))
    config.teacher = ConfigDict(
        dict(
            dev_problems=100,
            train=dict(
                batch_rows=8, row_length=640, epochs=1.0, learning_rate=2e-3, warmup=0.03, weight_decay=0.01, clip=1.0,
                eval_every=250, patience=1000, checkpoint_every=250,
            ),
        )
    )  # fmt: skip
    if chosen["runlocal"]:
        _small(config)
    return config


def _phases(rate: float, short: tuple[int, int], whole: tuple[int, int]) -> dict:
    """First problems of one and two steps, then of all lengths; (steps, problems) of both phases."""
    return {
        "1_short": PHASE | dict(
            lengths=(1, 2), max_distractors=1, steps=short[0], problems=short[1], learning_rate=3e-3,
        ),
        "2_whole": PHASE | dict(
            lengths=(1, 2, 3, 4, 5, 6), max_distractors=2, steps=whole[0], problems=whole[1], learning_rate=rate,
        ),
    }  # fmt: skip


def _small(config) -> None:
    """The whole way in a minute, for tests: the models it makes know nothing."""
    for base in (config.base, config.other_base):
        for phase in base.phases.values():
            phase.update(problems=40, steps=2, batch_rows=4, checkpoint_every=1)
    config.candidates.update(problems=6, samples=2, max_tokens=32)
    config.teacher.dev_problems = 2
    config.teacher.train.update(batch_rows=2, epochs=1.0)
