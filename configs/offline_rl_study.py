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

from dataclasses import replace

from spare_jax.pipelines import offline_rl, presets
from spare_jax.runs import settings, splits
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", method="spare_orpo", seed=21)
    world, method = str(chosen["world"]), str(chosen["method"])
    for key, known in (("world", splits.WORLDS), ("method", offline_rl.METHODS)):
        if chosen[key] not in known:
            raise ValueError(f"config argument {key}={chosen[key]!r} is unknown: choose among {', '.join(known)}")
    parts = presets.tiny_offline_rl()
    parts["solve"] = replace(parts["solve"], samples=10)
    parts["data"] = replace(parts["data"], test_problems=2000)  # a difference of .02 shows
    if chosen["runlocal"]:
        parts = presets.offline_rl_in_small(parts)
    return experiment(
        offline_rl.PIPELINE,
        seed=int(chosen["seed"]),
        task=world,
        method=method,
        models=presets.own_models(world),
        **parts,
    )
