"""Score solutions of your own with a process reward model.

    python -m spare_jax.main --config=configs/score.py --config.data.path=FILE.jsonl --config.models.prm.path=DIR \\
        [--config.models.prm.convention=NAME]
    python -m spare_jax.main --config=configs/score.py:runlocal ...      in float32 with short texts: a laptop

FILE has one object per line: id, question, solution (a text, or a list of steps). Another format of docs/formats.md is
named by --config.data.format. scores.jsonl of the work directory has one line per solution in the file's order: id,
steps, scores (null for steps beyond the context), solution_score. NAME is one of docs/models.md; models trained here
need none.
"""

from spare_jax.pipelines import label_files
from spare_jax.runs import settings
from spare_jax.runs.models import EngineSettings
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False)
    engine = (
        EngineSettings(max_length=1024) if chosen["runlocal"] else EngineSettings(max_length=4096, dtype="bfloat16")
    )
    return experiment(
        {"score": label_files.STAGES["score"]},
        seed=0,
        task="gsm8k",  # models trained here read this task's instruction before the question
        data=label_files.SolutionData(format="plain"),
        engine=engine,
    )
