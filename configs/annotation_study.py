"""The annotation study on one world: judges against truth, and what their labels buy.

    python -m spare_jax.main --config=configs/annotation_study.py:world=arithmetic,seed=21
    python -m spare_jax.main --config=configs/annotation_study.py:world=multihop,seed=21
    python -m spare_jax.main --config=configs/annotation_study.py:world=spatial,seed=21
    python -m spare_jax.studies.collect docs/results/annotation.json WORKDIR...

Each writes metrics.json in its work directory; a run that was ended goes on. :runlocal is the same with few problems.
"""

from dataclasses import replace

from spare_jax.pipelines import annotation_study, presets
from spare_jax.runs import settings, splits
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", seed=21)
    world = str(chosen["world"])
    if world not in splits.WORLDS:
        raise ValueError(f"config argument world={world!r} is unknown: choose among {', '.join(splits.WORLDS)}")
    # With 160 problems a PRM learns nothing that its labels could show.
    data = ProblemData(train_problems=480, dev_problems=60, test_problems=200, held_out_problems=30)
    solve, study = presets.TINY_SOLVE, annotation_study.Study()
    # With 2 epochs, chance says which PRM gets to look things up (docs/results/annotation.md).
    train = replace(presets.TINY_PRM.train, epochs=4.0)
    if chosen["runlocal"]:  # the whole way in a few minutes, for tests: the figures mean nothing
        data = ProblemData(train_problems=12, dev_problems=6, test_problems=8, held_out_problems=2)
        solve = replace(solve, samples=3)
        study = replace(study, problems=4, held_out_problems=1, truth_problems=4, samples=2, rollouts=(1, 4, 8))
        study = replace(study, corrupted=(0.3,), flips=(0.0, 0.3))
        train = replace(train, epochs=1.0, batch_rows=4, eval_every=4, checkpoint_every=4)
    return experiment(
        annotation_study.PIPELINE,
        seed=int(chosen["seed"]),
        task=world,
        data=data,
        models=presets.own_models(world),
        solve=solve,
        annotate=presets.TINY_ANNOTATE,
        verify=presets.TINY_VERIFY,
        rollouts=presets.TINY_ROLLOUTS,
        prm=replace(presets.TINY_PRM, train=train),
        study=study,
    )
