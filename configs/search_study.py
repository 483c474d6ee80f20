"""The search study: search guided by a PRM against plain samples at equal tokens.

    python -m spare_jax.main --config=configs/search_study.py:seed=707
    python -m spare_jax.studies.collect docs/results/search.json WORKDIR

On the arithmetic world with the embedded models. metrics.json lies in the work directory; a run that was ended goes on.
:runlocal is the same with few problems.
"""

from ml_collections import ConfigDict

from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, seed=707)
    config = settings.default()
    config.seed = chosen["seed"]
    config.stages = ("solve", "judge", "train_prm", "sample", "search", "search_study")
    config.data.test_problems = 150
    config.data.held_out_problems = 0  # tiny-base solves next to none of them: there is nothing to search for
    config.annotate.measured_problems = config.annotate.control_problems = 0
    config.study = ConfigDict(
        dict(
            samples=64,  # plain samples of a test problem
            steps=dict(max_steps=12, max_tokens=40),  # of every search
            searches=dict(
                beam_2x2_min=dict(method="beam", beams=2, width=2, aggregation="min"),
                beam_4x4_last=dict(method="beam", beams=4, width=4, aggregation="last"),
                beam_4x4_min=dict(method="beam", beams=4, width=4, aggregation="min"),
                dvts_4x4_last=dict(method="dvts", beams=4, width=4, aggregation="last"),
                dvts_4x4_min=dict(method="dvts", beams=4, width=4, aggregation="min"),
                lookahead_4x4_last=dict(method="beam", beams=4, width=4, lookahead=1, aggregation="last"),
                lookahead_4x4_min=dict(method="beam", beams=4, width=4, lookahead=1, aggregation="min"),
            ),
        )
    )
    if chosen["runlocal"]:
        _small(config)
    return config


def _small(config) -> None:
    """The whole way in about a minute, for tests: the figures mean nothing."""
    config.data.train_problems = 12
    config.data.dev_problems = 4
    config.data.test_problems = 6
    config.solve.samples = 3
    config.study.samples = 5
    config.study.searches = ConfigDict(
        dict(
            beam_2x2_last=dict(method="beam", beams=2, width=2, aggregation="last"),
            dvts_2x2_min=dict(method="dvts", beams=2, width=2, lookahead=1, aggregation="min"),
        )
    )
    config.prm.train.update(epochs=1.0, batch_rows=4, eval_every=4, checkpoint_every=4)
