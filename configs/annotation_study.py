"""The annotation study on one world: judges against truth, and what their labels buy.

    python -m spare_jax.main --config=configs/annotation_study.py:world=arithmetic,seed=21
    python -m spare_jax.main --config=configs/annotation_study.py:world=multihop,seed=21
    python -m spare_jax.main --config=configs/annotation_study.py:world=spatial,seed=21
    python -m spare_jax.studies.collect docs/results/annotation.json WORKDIR...

Each writes metrics.json in its work directory; a run that was ended goes on. :runlocal is the same with few problems.
"""

from ml_collections import ConfigDict

from spare_jax.runs import settings, splits


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", seed=21)
    config = settings.default()
    config.seed = chosen["seed"]
    config.task = chosen["world"]
    if config.task not in splits.WORLDS:
        raise ValueError(f"config argument world={config.task!r} is unknown: choose among {', '.join(splits.WORLDS)}")
    settings.use_own_models_of_world(config)
    config.stages = ("solve", "compare_judges", "label_value", "annotation_study")
    config.data.train_problems = 480  # with 160 a PRM learns nothing that its labels could show
    config.data.dev_problems = 60
    config.data.test_problems = 200
    config.data.held_out_problems = 30
    config.prm.train.epochs = 4.0  # with 2, chance says which PRM gets to look things up (docs/results/annotation.md)
    config.study = ConfigDict(
        dict(
            problems=100,  # of the test problems, whose solutions are judged
            held_out_problems=20,  # of each kind
            truth_problems=60,  # of dev: where thresholds and weights are learned
            samples=4,  # solutions of each problem that are judged
            votes=(4, 8),  # SPARE's; the ensemble is of 4 and as many rollouts, for about as many tokens as 8 take
            vote_temperature=0.7,
            rollouts=(1, 2, 4, 8, 16),
            corrupted=(0.1, 0.3),
            flips=(0.0, 0.15, 0.3),
        )
    )
    if chosen["runlocal"]:
        _small(config)
    return config


def _small(config) -> None:
    """The whole way in a few minutes, for tests: the figures mean nothing."""
    config.data.train_problems = 12
    config.data.dev_problems = 6
    config.data.test_problems = 8
    config.data.held_out_problems = 2
    config.solve.samples = 3
    config.study.update(problems=4, held_out_problems=1, truth_problems=4, samples=2, rollouts=(1, 4, 8))
    config.study.update(corrupted=(0.3,), flips=(0.0, 0.3))
    config.prm.train.update(epochs=1.0, batch_rows=4, eval_every=4, checkpoint_every=4)
