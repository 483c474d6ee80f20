"""Settings that several configs have in common: of embedded models, and of real ones."""

from dataclasses import replace
from typing import Any

from spare_jax.judges.generative import GenerativeSettings
from spare_jax.judges.spare import SpareSettings
from spare_jax.judges.tree_search import TreeSettings
from spare_jax.judges.verify import VerifySettings
from spare_jax.models.adapters import AdapterConfig
from spare_jax.pipelines.offline_rl import SFT, PolicyTraining
from spare_jax.pipelines.online_rl import OnlineRL, Updates
from spare_jax.pipelines.prm import Annotate, RewardModelTraining
from spare_jax.pipelines.spark_reward_models import VerifierTraining
from spare_jax.pipelines.spark_verifications import TargetSettings
from spare_jax.prompts import annotate, meta_critique, verify
from spare_jax.runs.models import EngineSettings, Model, Models
from spare_jax.runs.splits import ProblemData
from spare_jax.solvers.sample import SolveSettings
from spare_jax.training.setup import TrainConfig
from spare_jax.training.watch import Alarm

_OWN_MODELS = {  # base, teacher, verifier
    "arithmetic": ("tiny-base", "tiny-teacher", "tiny-verifier"),
    "multihop": ("multihop-base", "multihop-teacher", "multihop-teacher"),
    "spatial": ("spatial-base", "spatial-teacher", "spatial-teacher"),
}


def own_models(world: str, verifies: bool = False) -> Models:
    """The embedded models of a world, as the judge its teacher, or the one that `verifies` as SPARK asks; of another
    task none, they are left to be named."""
    base, teacher, verifier = _OWN_MODELS.get(world, ("", "", ""))
    return Models(generator=Model(base), judge=Model(verifier if verifies else teacher))


# What tiny models were trained to read and write.
TINY_SOLVE = SolveSettings(samples=8, max_tokens=176)
TINY_ANNOTATE = SpareSettings(guidelines=annotate.BRIEF_GUIDELINES, exemplars=0, max_tokens=448)
TINY_VERIFY = VerifySettings(guidelines=verify.BRIEF_GUIDELINES, max_tokens=640)
TINY_GENERATIVE = GenerativeSettings(max_tokens=640)
TINY_ROLLOUTS = TreeSettings(max_tokens=176)

# A world has no end, so the numbers of its problems are given.
WORLD_DATA = ProblemData(train_problems=480, dev_problems=60, test_problems=300, held_out_problems=40)


def tiny_judges() -> dict[str, Any]:
    """How judges ask tiny models, by the parts of a config."""
    return dict(
        annotate=TINY_ANNOTATE, verify=TINY_VERIFY, generative=TINY_GENERATIVE, rollouts=TINY_ROLLOUTS
    )  # fmt: skip


def real_judges(laptop: bool) -> dict[str, Any]:
    """How judges ask models that the user names: with their guidelines whole, exemplars and room; on a `laptop` in
    float32, with the room for short texts alone."""
    return dict(
        annotate=REAL_ANNOTATE,
        verify=VerifySettings(max_tokens=1500),
        generative=GenerativeSettings(max_tokens=1500),
        rollouts=TreeSettings(max_tokens=500),
        engine=LAPTOP_ENGINE if laptop else REAL_ENGINE,
    )


# The paper draws exemplars for every solution anew; solutions of one of 32 draws share their prompts.
REAL_ANNOTATE = SpareSettings(exemplars=5, draws=32, max_tokens=1500)
REAL_ENGINE = EngineSettings(slots=64, max_length=6144, dtype="bfloat16")
LAPTOP_ENGINE = EngineSettings(slots=8, max_length=2048)

# The paper's training (arXiv 2506.15498, section 4 and appendix), for 3B to 8B parameters: QLoRA.
REAL_LORA = AdapterConfig(rank=64, quantize="nf4")
REAL_TRAIN = TrainConfig(batch_rows=32, row_length=2048, dtype="bfloat16", remat="full")


def tiny_train(row_length: int, epochs: float, learning_rate: float, **changes: Any) -> TrainConfig:
    """How a tiny model is trained: all of its weights, and in few rows."""
    settings: dict[str, Any] = dict(batch_rows=8, warmup=0.05, clip=1.0, checkpoint_every=100) | changes
    return TrainConfig(row_length=row_length, epochs=epochs, learning_rate=learning_rate, **settings)


def tiny_offline_rl() -> dict[str, Any]:
    """Offline RL on a world with its own models, by the parts of a config."""
    return dict(
        data=WORLD_DATA,
        solve=TINY_SOLVE,
        annotate=Annotate(**vars(TINY_ANNOTATE)),
        sft=SFT(train=tiny_train(384, epochs=1.0, learning_rate=1e-4)),
        policy=PolicyTraining(train=tiny_train(640, epochs=1.0, learning_rate=3e-4)),
        rounds=3,
    )


def offline_rl_in_small(parts: dict[str, Any]) -> dict[str, Any]:
    """The same parts as a tiny model does them in about a minute: for a first look and for tests."""
    held_out = min(2, parts["data"].held_out_problems)
    trained = {
        name: replace(parts[name], train=replace(parts[name].train, batch_rows=4, eval_every=2, checkpoint_every=2))
        for name in ("sft", "policy")
    }
    data = ProblemData(train_problems=16, dev_problems=8, test_problems=12, held_out_problems=held_out)
    return parts | trained | dict(data=data, solve=replace(parts["solve"], samples=4), rounds=2)


# SPARK on a world (docs/spark.md, docs/grpo.md).
TINY_TARGETS = TargetSettings(critique=meta_critique.BRIEF_CRITIQUE, merge=meta_critique.BRIEF_MERGE)
TINY_VERIFIER = VerifierTraining(brief=True, train=tiny_train(640, epochs=1.0, learning_rate=3e-4))
TINY_PRM = RewardModelTraining(train=tiny_train(384, epochs=2.0, learning_rate=1e-3))
ALARMS = {
    "unjudged": Alarm("judge/failed", 0.5, patience=3, action="abort"),  # the share of solutions without a judgement
    "appended": Alarm("format/second_problem", 0.2, patience=3, action="roll_back"),
    "paid_wrongly": Alarm("held_out/false_reward", 0.5, patience=1, action="stop"),
}
TINY_GRPO = OnlineRL(
    iterations=40,
    prompts=8,
    samples=8,
    max_tokens=176,
    alarms=ALARMS,
    train=Updates(row_length=512, learning_rate=3e-5, weight_decay=0.0, clip=1.0),
)
# The paper's (arXiv 2512.03244, stage III), for a policy that writes in the task's form already.
REAL_GRPO = OnlineRL(
    iterations=200,
    prompts=256,
    samples=16,
    max_tokens=2048,
    judge="generative",
    alarms=ALARMS,
    train=Updates(
        row_length=4096,
        learning_rate=1e-6,
        weight_decay=0.0,
        clip=1.0,
        accumulate=64,
        dtype="bfloat16",
        remat="full",
    ),
)


def spark_in_small(parts: dict[str, Any]) -> dict[str, Any]:
    """Parts of SPARK's pipelines, as many as are there, as a tiny model does them in about a minute each: for a first
    look and for tests."""
    small: dict[str, Any] = {}
    for name, of in parts.items():
        if name == "data":
            small[name] = replace(of, train_problems=8, dev_problems=2, test_problems=4)
        elif name == "solve":
            small[name] = replace(of, samples=2)
        elif name == "verify":
            small[name] = replace(of, votes=3)
        elif name in ("verifier", "prm"):
            small[name] = replace(of, train=replace(of.train, batch_rows=2, eval_every=2, checkpoint_every=2))
        elif name == "grpo":
            small[name] = replace(
                of, iterations=4, prompts=2, samples=4, watch_problems=2, watch_every=2, checkpoint_every=2
            )
    return parts | small
