"""SPARK with the paper's settings (arXiv 2512.03244) on MATH: 8 solutions of each problem by Qwen2.5-14B-Instruct, 16
verifications of each by Qwen3-32B, reward models from Qwen2.5-14B-Instruct, a policy from Qwen2.5-Math-7B.

    python -m spare_jax.main --workdir=DIR --config=configs/spark_math.py --config.data.path=MATH
    python -m spare_jax.main --workdir=DIR --config=configs/spark_math.py --config.data.path=MATH \\
        --config.models.judge.path=endpoint:MODEL
    python -m spare_jax.main --workdir=DIR \\
        --config=configs/spark_math.py:part=verifiers,cell=step_consistency_prm_cot
    python -m spare_jax.main --workdir=DIR --config.data.path=MATH \\
        --config=configs/spark_math.py:part=rl,cell=process_aware --config.models.policy.path=HF_DIR

A million verifications: a job for a slice of accelerators, or for a server (docs/judges.md). Parts and cells are those
of configs/spark_study.py; `controls` adds those of part labels. Not published, hence ours: the verifier's longest
text, the rules of config.spark and all of its filter, the training of reward models, the number of iterations. The
paper's policy learnt its format from 113K solutions first, and had 17K problems: name such a policy, and here it has
the problems of stage I. :runlocal is the same with few problems and short texts.
"""

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import presets, prm, spark_cells, spark_reward_models, spark_verifications
from spare_jax.runs import settings
from spare_jax.runs.models import Model, Models
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import experiment
from spare_jax.solvers.sample import SolveSettings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, part="labels", cell="", controls=False)
    part, cell, controls = str(chosen["part"]), str(chosen["cell"]), bool(chosen["controls"])
    stages = spark_cells.stages(part, cell, controls)
    models = Models(
        generator=Model("Qwen/Qwen2.5-14B-Instruct"),
        judge=Model("Qwen/Qwen3-32B"),
        generative=Model("Qwen/Qwen2.5-14B-Instruct"),
        policy=Model("Qwen/Qwen2.5-Math-7B"),
    )
    judges = presets.real_judges(laptop=False)
    data = ProblemData(train_problems=8000, dev_problems=400, test_problems=500)
    engine = replace(presets.REAL_ENGINE, max_length=32_768)
    solve = SolveSettings(samples=8, temperature=0.7, top_p=0.95, max_tokens=8192)
    verify = replace(judges["verify"], votes=16, temperature=0.8, top_p=0.95, max_tokens=8192)
    generative = replace(judges["generative"], max_tokens=4096)
    parts: dict[str, Any] = dict(models=models, engine=engine, solve=solve)
    if part == "labels":
        added = spark_verifications.CONTROLS if controls else ()
        spark = spark_verifications.TargetSettings()
        parts |= dict(data=data, verify=verify, spark=replace(spark, targets=(*spark.targets, *added)))
    elif part == "verifiers":
        mode, kind = spark_cells.VERIFIERS[cell]
        train = replace(presets.REAL_TRAIN, row_length=8192)
        parts |= dict(
            generative=generative,
            verifier=spark_reward_models.VerifierTraining(targets=mode, kind=kind, lora=presets.REAL_LORA, train=train),
            prm=prm.RewardModelTraining(lora=presets.REAL_LORA, train=train),
        )
    else:
        models = replace(models, generative=spark_cells.paying(cell))
        grpo = replace(presets.REAL_GRPO, reward=cell)
        parts |= judges | dict(
            data=data, models=models, engine=engine, verify=verify, generative=generative, grpo=grpo
        )  # fmt: skip
    if chosen["runlocal"]:
        parts = presets.spark_in_small(parts)
        for name in {"solve", "verify", "generative"} & parts.keys():
            parts[name] = replace(parts[name], max_tokens=1024)
        parts["engine"] = replace(engine, max_length=4096)
    return experiment(stages, seed=0, task="math", **parts)
