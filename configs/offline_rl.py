"""Offline RL: SFT-1, its solutions judged by SPARE, preference pairs, a policy trained on them, its greedy answers.

    python -m spare_jax.main --config=configs/offline_rl.py                       SPARE-ORPO on the arithmetic world
    python -m spare_jax.main --config=configs/offline_rl.py:method=outcome_orpo   or sft1, sft2, dpo, step_dpo, iterated
    python -m spare_jax.main --config=configs/offline_rl.py:task=gsm8k,model=llama3_8b \\
        --config.data.path=DIR --config.models.generator.path=HF_DIR --config.models.judge.path=HF_DIR
                                                                                  the paper's settings

Methods that run in one work directory (--workdir=DIR) share SFT-1, its solutions and their labels. The policy is in
policies/<method>/export, the pairs are in preferences/ and, as TRL reads them, in trl_preference/. `iterated` goes on
from SPARE-ORPO's policy: it samples, SPARE annotates, ORPO trains, config.rounds times in all. :runlocal is the same
with few problems.
"""

from spare_jax.pipelines import offline_rl
from spare_jax.runs import settings

MODELS = ("embedded", "llama3_8b")


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic", model="embedded", method="spare_orpo")
    config = settings.default()
    config.task, config.method = chosen["task"], chosen["method"]
    if config.method not in offline_rl.METHODS:
        known = ", ".join(offline_rl.METHODS)
        raise ValueError(f"config argument method={config.method!r} is unknown: choose among {known}")
    if chosen["model"] not in MODELS:
        raise ValueError(f"config argument model={chosen['model']!r} is unknown: choose among {', '.join(MODELS)}")
    config.stages = offline_rl.PIPELINE
    config.annotate.measured_problems = config.annotate.control_problems = 0
    if chosen["model"] == "llama3_8b":
        _real_model(config)
    else:
        settings.use_own_models_of_world(config)
    if chosen["runlocal"]:
        settings.learn_offline_in_small(config)
    return config


def _real_model(config) -> None:
    """The paper's settings (arXiv 2506.15498, section 4 and appendix): QLoRA on Llama-3-8B-Instruct."""
    settings.judge_with_real_models(config, laptop=False)
    config.data.train_problems = config.data.dev_problems = config.data.test_problems = None
    config.data.held_out_problems = 0
    config.solve.samples = 20
    config.solve.max_tokens = 500
    config.pairs.train.cap, config.pairs.dev.cap = 19_500, 760
    for trained in (config.sft, config.policy):
        settings.train_real_model(trained)
    config.policy.train.row_length = 4096  # a pair of 2,048 each
    config.policy.train.batch_rows = 16
