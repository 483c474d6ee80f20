"""Online RL: the generator is paid by a judge for what it samples (SPARK's stage III, arXiv 2512.03244).

    python -m spare_jax.main --config=configs/grpo.py                       verify pays, on the arithmetic world
    python -m spare_jax.main --config=configs/grpo.py:reward=selective      or rlvr, random, majority_vote, ...
    python -m spare_jax.main --config=configs/grpo.py:task=math,model=real \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR --config.models.generative.path=HF_DIR
                                                                            the paper's settings

Rewards that run in one work directory (--workdir=DIR) share its problems. The policy is in policies/<reward>/export,
metrics per iteration in policies/<reward>/checkpoints/steps.jsonl, and metrics.json has what it solves (docs/grpo.md).
:runlocal is the same with few problems and iterations.
"""

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import online_rl, presets
from spare_jax.runs import settings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings
from spare_jax.training.advantages import REWARDS

MODELS = ("embedded", "real")


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(
        argument, runlocal=False, task="arithmetic", model="embedded", reward="process_aware"
    )
    task, reward = str(chosen["task"]), str(chosen["reward"])
    if reward not in REWARDS:
        known = ", ".join(REWARDS)
        raise ValueError(f"config argument reward={reward!r} is unknown: choose among {known}")
    if chosen["model"] not in MODELS:
        raise ValueError(f"config argument model={chosen['model']!r} is unknown: choose among {', '.join(MODELS)}")
    parts: dict[str, Any]
    if chosen["model"] == "real":
        parts = presets.real_judges(laptop=False)
        generative = replace(parts["generative"], max_tokens=4096)
        solve, grpo = SolveSettings(samples=8, max_tokens=176), replace(presets.REAL_GRPO, reward=reward)
        parts |= dict(data=ProblemData(), generative=generative, solve=solve, grpo=grpo)
    else:
        grpo = replace(presets.TINY_GRPO, reward=reward, least_steps=0)  # the shortest stories take two steps
        parts = presets.tiny_judges() | dict(
            data=presets.WORLD_DATA, models=presets.own_models(task), solve=presets.TINY_SOLVE, grpo=grpo
        )
    if chosen["runlocal"]:
        parts = presets.spark_in_small(parts)
        parts["data"] = replace(parts["data"], held_out_problems=min(1, parts["data"].held_out_problems))
        parts["verify"] = replace(parts["verify"], max_tokens=320)
    return experiment(online_rl.PIPELINE, seed=0, task=task, **parts)
