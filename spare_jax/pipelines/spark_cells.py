"""SPARK's three stages in one work directory: the parts that a config names, and the cells of each.

labels     the targets of the modes                       (spark_verifications.py)  metrics.json in verifications/
verifiers  a reward model per <mode>_<kind>               (spark_reward_models.py)  in verifiers/<cell>/
rl         a policy per reward                            (online_rl.py)            in policies/<cell>/

In part `rl` what asks a generative reward model asks the one that was trained as the cell PAYS.
"""

from spare_jax.pipelines import online_rl, spark_reward_models, spark_verifications
from spare_jax.runs.models import Model
from spare_jax.runs.stage import Stage
from spare_jax.training.advantages import REWARDS

PAYS = "step_consistency_prm_cot"
VERIFIERS = {
    f"{name}_{kind}": (name, kind)
    for name, mode in spark_verifications.MODES.items()
    for kind in spark_reward_models.KINDS
    if kind != "prm_critique" or mode.critique
}
CELLS = {"labels": ("",), "verifiers": tuple(VERIFIERS), "rl": tuple(REWARDS)}


def stages(part: str, cell: str, controls: bool) -> dict[str, Stage]:
    """The stages of a part; `labels` has one cell, whose name is empty, with its `controls` or without.

    Raises:
      ValueError: there is no such part or cell.
    """
    if part not in CELLS:
        raise ValueError(f"config argument part={part!r} is unknown: choose among {', '.join(CELLS)}")
    if cell not in CELLS[part]:
        known = ", ".join(CELLS[part]) or "none, part labels has no cells"
        raise ValueError(f"config argument cell={cell!r} is unknown: choose among {known}")
    pipelines = {
        "labels": spark_verifications.pipeline(controls),
        "verifiers": spark_reward_models.PIPELINE,
        "rl": online_rl.PIPELINE,
    }
    return pipelines[part]


def paying(reward: str) -> Model:
    """The generative reward model of a reward's cell: the one that PAYS, none where the reward asks no judge."""
    return Model(f"verifiers/{PAYS}/export" if REWARDS[reward].verdicts == "judge" else "")
