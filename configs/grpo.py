"""Online RL: the generator is paid by a judge for what it samples (SPARK's stage III, arXiv 2512.03244).

    python -m spare_jax.main --config=configs/grpo.py                       verify pays, on the arithmetic world
    python -m spare_jax.main --config=configs/grpo.py:reward=selective      or rlvr, random, majority_vote, ...
    python -m spare_jax.main --config=configs/grpo.py:task=math,model=real \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR --config.models.verifier.path=HF_DIR
                                                                            the paper's settings

Rewards that run in one work directory (--workdir=DIR) share its problems. The policy is in policies/<reward>/export,
metrics per iteration in policies/<reward>/checkpoints/steps.jsonl, and metrics.json has what it solves (docs/grpo.md).
:runlocal is the same with few problems and iterations.
"""

from spare_jax.pipelines import online_rl
from spare_jax.runs import settings
from spare_jax.training.advantages import REWARDS

MODELS = ("embedded", "real")


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(
        argument, runlocal=False, task="arithmetic", model="embedded", reward="process_aware"
    )
    config = settings.default()
    config.task, config.grpo.reward = chosen["task"], chosen["reward"]
    if config.grpo.reward not in REWARDS:
        known = ", ".join(REWARDS)
        raise ValueError(f"config argument reward={config.grpo.reward!r} is unknown: choose among {known}")
    if chosen["model"] not in MODELS:
        raise ValueError(f"config argument model={chosen['model']!r} is unknown: choose among {', '.join(MODELS)}")
    config.stages = online_rl.PIPELINE
    if chosen["model"] == "real":
        settings.judge_with_real_models(config, laptop=False)
        settings.reinforce_real_models(config)
        config.data.train_problems = config.data.dev_problems = config.data.test_problems = None
        config.data.held_out_problems = 0
    else:
        settings.use_own_models_of_world(config)
        config.grpo.least_steps = 0  # the shortest stories take two steps
    if chosen["runlocal"]:
        settings.spark_in_small(config)
        config.data.held_out_problems = min(1, config.data.held_out_problems)
        config.verify.max_tokens = 320
    return config
