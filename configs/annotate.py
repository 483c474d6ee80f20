"""Label the steps of your own solutions, with any judge.

    python -m spare_jax.main --config=configs/annotate.py --config.data.path=FILE.jsonl --config.judge=alignment
    python -m spare_jax.main --config=configs/annotate.py --config.data.path=FILE.jsonl --config.judge=spare \\
        --config.models.judge.path=HF_DIR
    python -m spare_jax.main --config=configs/annotate.py:task=arithmetic --config.data.path=FILE.jsonl

FILE has one object per line: id, question, solution (a text, or a list of steps), perhaps reference (likewise) and
context (sentences). The work directory gets judgements/JUDGE.jsonl, trl_stepwise.jsonl (id, prompt, completions,
labels; a row per row, in its order) and report.html. docs/judges.md says what each judge needs and costs; `alignment`
needs no model. The task names the guidelines and how answers are compared (docs/tasks.md). :runlocal
computes in float32 on short texts.
"""

from spare_jax.pipelines import label_files, presets
from spare_jax.runs import settings, splits
from spare_jax.runs.stage import experiment


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="gsm8k")
    task = str(chosen["task"])
    judges = presets.tiny_judges() if task in splits.WORLDS else presets.real_judges(laptop=bool(chosen["runlocal"]))
    return experiment(
        {"annotate": label_files.STAGES["annotate"]},
        seed=0,
        task=task,
        judge="spare",
        data=label_files.SolutionData(format="plain"),
        models=presets.own_models(task),
        **judges,
    )
