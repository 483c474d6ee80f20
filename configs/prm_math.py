"""SPARE end to end: solve, annotate against references, train a PRM and an ORM, rank, evaluate, report.

    python -m spare_jax.main --config=configs/prm_math.py                    about 5 minutes on two CPU cores
    python -m spare_jax.main --config=configs/prm_math.py:runlocal           the same in small, under a minute
    python -m spare_jax.main --config=configs/prm_math.py:task=gsm8k \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR         real problems, a real model
    python -m spare_jax.main --config=configs/prm_math.py:task=multihop      another world, or spatial

The worlds' problems are generated and their models are embedded; the default is the arithmetic world.
"""

from spare_jax.runs import settings, splits


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic")
    config = settings.default()
    config.task = chosen["task"]
    if config.task in splits.WORLDS:
        settings.use_own_models_of_world(config)
    else:
        _real_model(config)
    if chosen["runlocal"]:
        _small(config)
    return config


def _real_model(config) -> None:
    """The paper's settings (arXiv 2506.15498, section 4 and appendix), for a model of 3B to 8B parameters."""
    config.models.generator.path = ""
    config.models.judge.path = ""
    config.data.train_problems = config.data.dev_problems = config.data.test_problems = None
    config.data.held_out_problems = 0
    config.solve.samples = 20
    config.solve.max_tokens = 500
    config.annotate.guidelines = ""
    config.annotate.exemplars = 5
    config.annotate.draws = 32  # of exemplars, so that prompts share them; the paper draws for every solution anew
    config.annotate.max_tokens = 1500
    config.engine.slots = 64
    config.engine.max_length = 6144
    config.engine.dtype = "bfloat16"
    settings.train_real_model(config.prm)


def _small(config) -> None:
    """A form of any task that ends in a minute with a tiny model: for a first look and for tests."""
    config.data.train_problems = 24
    config.data.dev_problems = 8
    config.data.test_problems = 24
    config.data.held_out_problems = 4 if config.task in splits.WORLDS else 0
    config.solve.samples = 4
    config.annotate.measured_problems = 8
    config.annotate.control_problems = 4
    config.prm.train.batch_rows = 8
    config.prm.train.eval_every = 4
    config.prm.train.checkpoint_every = 4
