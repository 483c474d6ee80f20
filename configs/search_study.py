"""The search study: search guided by a PRM against plain samples at equal tokens.

    python -m spare_jax.main --config=configs/search_study.py:seed=707
    python -m spare_jax.studies.collect docs/results/search.json WORKDIR

On the arithmetic world with the embedded models. metrics.json lies in the work directory; a run that was ended goes on.
:runlocal is the same with few problems.
"""

from dataclasses import replace

from spare_jax.pipelines import presets, search_study
from spare_jax.pipelines.prm import Annotate
from spare_jax.pipelines.search_study import StepLimits, Study
from spare_jax.runs import settings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.beam import SearchSettings

SEARCHES = dict(
    beam_2x2_min=SearchSettings(method="beam", beams=2, width=2, aggregation="min"),
    beam_4x4_last=SearchSettings(method="beam", beams=4, width=4, aggregation="last"),
    beam_4x4_min=SearchSettings(method="beam", beams=4, width=4, aggregation="min"),
    dvts_4x4_last=SearchSettings(method="dvts", beams=4, width=4, aggregation="last"),
    dvts_4x4_min=SearchSettings(method="dvts", beams=4, width=4, aggregation="min"),
    lookahead_4x4_last=SearchSettings(method="beam", beams=4, width=4, lookahead=1, aggregation="last"),
    lookahead_4x4_min=SearchSettings(method="beam", beams=4, width=4, lookahead=1, aggregation="min"),
)


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, seed=707)
    # No problem is held out: tiny-base solves next to none of those, so there is nothing to search for.
    data = ProblemData(train_problems=480, dev_problems=60, test_problems=150)
    solve, trained = presets.TINY_SOLVE, presets.TINY_PRM
    study = Study(samples=64, steps=StepLimits(max_steps=12, max_tokens=40), searches=SEARCHES)
    if chosen["runlocal"]:  # the whole way in about a minute, for tests: the figures mean nothing
        data = ProblemData(train_problems=12, dev_problems=4, test_problems=6)
        solve = replace(solve, samples=3)
        searches = dict(
            beam_2x2_last=SearchSettings(method="beam", beams=2, width=2, aggregation="last"),
            dvts_2x2_min=SearchSettings(method="dvts", beams=2, width=2, lookahead=1, aggregation="min"),
        )
        study = replace(study, samples=5, searches=searches)
        train = replace(trained.train, epochs=1.0, batch_rows=4, eval_every=4, checkpoint_every=4)
        trained = replace(trained, train=train)
    return experiment(
        search_study.PIPELINE,
        seed=int(chosen["seed"]),
        task="arithmetic",
        data=data,
        models=presets.own_models("arithmetic"),
        solve=solve,
        annotate=Annotate(**vars(presets.TINY_ANNOTATE)),
        prm=trained,
        study=study,
    )
