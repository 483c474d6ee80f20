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

from spare_jax.runs import settings, splits


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="gsm8k")
    config = settings.default()
    config.task = chosen["task"]
    config.stages = ("annotate",)
    config.data.format = "plain"
    if config.task in splits.WORLDS:
        settings.use_own_models_of_world(config)
    else:
        settings.judge_with_real_models(config, laptop=bool(chosen["runlocal"]))
    return config
