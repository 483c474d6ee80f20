"""SPARE end to end: solve, annotate against references, train a PRM and an ORM, rank, evaluate, report.

    python -m spare_jax.main --config=configs/prm_math.py                    five to ten minutes on two CPU cores
    python -m spare_jax.main --config=configs/prm_math.py:runlocal           the same in small, under a minute
    python -m spare_jax.main --config=configs/prm_math.py:task=gsm8k \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR         real problems, a real model
    python -m spare_jax.main --config=configs/prm_math.py:task=multihop      another world, or spatial

The worlds' problems are generated and their models are embedded; the default is the arithmetic world.
"""

from dataclasses import replace

from spare_jax.pipelines import presets, prm
from spare_jax.runs import settings, splits
from spare_jax.runs.models import EngineSettings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic")
    task = str(chosen["task"])
    if task in splits.WORLDS:
        data, engine, solve = presets.WORLD_DATA, EngineSettings(), presets.TINY_SOLVE
        annotate = prm.Annotate(**vars(presets.TINY_ANNOTATE), measured_problems=60, control_problems=30)
        trained = prm.RewardModelTraining(train=presets.tiny_train(384, epochs=2.0, learning_rate=1e-3))
    else:  # the paper's settings (arXiv 2506.15498, section 4 and appendix), for a model of 3B to 8B parameters
        data, engine, solve = ProblemData(), presets.REAL_ENGINE, SolveSettings(samples=20, max_tokens=500)
        annotate = prm.Annotate(**vars(presets.REAL_ANNOTATE), measured_problems=60, control_problems=30)
        trained = prm.RewardModelTraining(lora=presets.REAL_LORA, train=presets.REAL_TRAIN)
    if chosen["runlocal"]:  # ends in a minute with a tiny model, of any task: for a first look and for tests
        held_out = 4 if task in splits.WORLDS else 0
        data = ProblemData(train_problems=24, dev_problems=8, test_problems=24, held_out_problems=held_out)
        solve = replace(solve, samples=4)
        annotate = replace(annotate, measured_problems=8, control_problems=4)
        trained = replace(trained, train=replace(trained.train, batch_rows=8, eval_every=4, checkpoint_every=4))
    return experiment(
        prm.PIPELINE,
        seed=0,
        task=task,
        data=data,
        models=presets.own_models(task),
        engine=engine,
        solve=solve,
        annotate=annotate,
        prm=trained,
    )
