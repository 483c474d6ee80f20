"""The study of offline RL: one method on one world from one seed.

    python -m spare_jax.main --workdir=DIR \\
        --config=configs/offline_rl_study.py:world=arithmetic,method=spare_orpo,seed=21
    python -m spare_jax.studies.collect docs/results/offline_rl.json DIR/policies/spare_orpo ...
    python -m spare_jax.studies.offline_rl_tables docs/results/offline_rl.json

The methods are those of spare_jax/pipelines/offline_rl.py; of one world and seed they share a directory, and what
stands before them. metrics.json, in the directory and for good in its policies/<method>, has `greedy.accuracy` and
`greedy.wrong_process`, the share of right answers that a wrong step has reached. :runlocal is the same with few
problems.
"""

from spare_jax.pipelines import offline_rl
from spare_jax.runs import settings, splits


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", method="spare_orpo", seed=21)
    config = settings.default()
    config.seed, config.task, config.method = chosen["seed"], chosen["world"], chosen["method"]
    for key, known in (("world", splits.WORLDS), ("method", offline_rl.METHODS)):
        if chosen[key] not in known:
            raise ValueError(f"config argument {key}={chosen[key]!r} is unknown: choose among {', '.join(known)}")
    settings.use_own_models_of_world(config)
    config.stages = offline_rl.PIPELINE
    config.annotate.measured_problems = config.annotate.control_problems = 0
    config.solve.samples = 10
    config.data.test_problems = 2000  # a difference of .02 shows
    if chosen["runlocal"]:
        settings.learn_offline_in_small(config)
    return config
