"""The default config, as small as it can be with every stage in it."""

import pathlib
import runpy

ROOT = pathlib.Path(__file__).parent.parent

# One size of engine for all runs of embedded models, so that it is compiled once and then found in the cache.
ENGINE = {"slots": 8, "max_length": 512, "prefill_tokens": 1024}


def config_of(name: str, argument: str | None = None):
    """The config of a file in configs/."""
    return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](argument)


def small_config(seed: int = 0):
    """Some seconds of work on the embedded models."""
    config = config_of("prm_math", "runlocal")
    config.seed = seed
    config.data.train_problems = config.data.test_problems = 6
    config.data.dev_problems = 3
    config.data.held_out_problems = 1
    config.solve.samples = 2
    config.engine.update(ENGINE)
    config.annotate.max_tokens = 64
    config.annotate.measured_problems = 3
    config.annotate.control_problems = 2
    config.prm.train.batch_rows = 2
    config.prm.train.eval_every = 2
    config.prm.train.checkpoint_every = 2
    return config
