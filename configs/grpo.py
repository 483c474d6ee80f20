"""Online RL: the generator is paid by a judge for what it samples (SPARK's stage III, arXiv 2512.03244).

    python -m spare_jax.main --config=configs/grpo.py                       verify pays, on the arithmetic world
    python -m spare_jax.main --config=configs/grpo.py:reward=selective      or rlvr, random, majority_vote, ...
    python -m spare_jax.main --config=configs/grpo.py:task=math,model=real \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR --config.models.verifier.path=HF_DIR
                                                                            the paper's settings

The policy is in policies/grpo/export, metrics per iteration in policies/grpo/checkpoints/steps.jsonl (docs/grpo.md).
:runlocal is the same with few problems and iterations.
"""

from spare_jax import online_rl, settings
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
        _real_model(config)
    else:
        settings.use_own_models_of_world(config)
        config.grpo.least_steps = 0  # the shortest stories take two steps
    if chosen["runlocal"]:
        config.data.update(train_problems=8, dev_problems=2, test_problems=0)
        config.data.held_out_problems = min(1, config.data.held_out_problems)
        config.grpo.update(iterations=4, prompts=2, samples=4, watch_problems=2, watch_every=2, checkpoint_every=2)
        config.verify.max_tokens = 320
    return config


def _real_model(config) -> None:
    """The paper's settings of stage III, for a policy that writes in the task's form already."""
    settings.judge_with_real_models(config, laptop=False)
    config.data.train_problems = config.data.dev_problems = config.data.test_problems = None
    config.data.held_out_problems = 0
    config.grpo.update(prompts=256, samples=16, max_tokens=2048, iterations=200)
    config.grpo.train.update(row_length=4096, learning_rate=1e-6, accumulate=64, dtype="bfloat16", remat=True)
    config.grpo.judge = "generative"
    config.generative.max_tokens = 4096
