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

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import offline_rl, presets
from spare_jax.pipelines.prm import Annotate
from spare_jax.runs import settings
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings
from spare_jax.targets.preferences import PairSettings

MODELS = ("embedded", "llama3_8b")


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, task="arithmetic", model="embedded", method="spare_orpo")
    task, method = str(chosen["task"]), str(chosen["method"])
    if method not in offline_rl.METHODS:
        known = ", ".join(offline_rl.METHODS)
        raise ValueError(f"config argument method={method!r} is unknown: choose among {known}")
    if chosen["model"] not in MODELS:
        raise ValueError(f"config argument model={chosen['model']!r} is unknown: choose among {', '.join(MODELS)}")
    real = chosen["model"] == "llama3_8b"
    parts = _real_model() if real else {**presets.tiny_offline_rl(), "models": presets.own_models(task)}
    if chosen["runlocal"]:
        parts = presets.offline_rl_in_small(parts)
    return experiment(offline_rl.PIPELINE, seed=0, task=task, method=method, **parts)


def _real_model() -> dict[str, Any]:
    """The paper's settings (arXiv 2506.15498, section 4 and appendix): QLoRA on Llama-3-8B-Instruct."""
    return dict(
        data=ProblemData(),
        engine=presets.REAL_ENGINE,
        solve=SolveSettings(samples=20, max_tokens=500),
        annotate=Annotate(**vars(presets.REAL_ANNOTATE)),
        sft=offline_rl.SFT(lora=presets.REAL_LORA, train=presets.REAL_TRAIN),
        pairs=offline_rl.Pairs(
            train=PairSettings(cap=19_500), dev=PairSettings(sampled_pairs=1, pairs_per_problem=2, cap=760)
        ),
        policy=offline_rl.PolicyTraining(
            lora=presets.REAL_LORA,
            train=replace(presets.REAL_TRAIN, row_length=4096, batch_rows=16),  # a pair of 2,048 each
        ),
        rounds=3,
    )
