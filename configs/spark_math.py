"""SPARK with the paper's settings (arXiv 2512.03244) on MATH: 8 solutions of each problem by Qwen2.5-14B-Instruct, 16
verifications of each by Qwen3-32B, reward models from Qwen2.5-14B-Instruct, a policy from Qwen2.5-Math-7B.

    python -m spare_jax.main --workdir=DIR --config=configs/spark_math.py --config.data.path=MATH
    python -m spare_jax.main --workdir=DIR --config=configs/spark_math.py --config.data.path=MATH \\
        --config.models.judge.path=endpoint:MODEL
    python -m spare_jax.main --workdir=DIR --config.data.path=MATH \\
        --config=configs/spark_math.py:part=verifiers,cell=step_consistency_prm_cot
    python -m spare_jax.main --workdir=DIR --config.data.path=MATH \\
        --config=configs/spark_math.py:part=rl,cell=process_aware --config.models.policy.path=HF_DIR

A million verifications: a job for a slice of accelerators, or for a server (docs/judges.md). Parts and cells are those
of configs/spark_study.py; `controls` adds those of part labels. Not published, hence ours: the verifier's longest
text, the rules of config.spark and all of its filter, the training of reward models, the number of iterations. The
paper's policy learnt its format from 113K solutions first, and had 17K problems: name such a policy, and here it has
the problems of stage I. :runlocal is the same with few problems and short texts.
"""

from spare_jax.pipelines import spark_cells
from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, part="labels", cell="", controls=False)
    config = settings.default()
    config.task = "math"
    config.data.update(train_problems=8000, dev_problems=400, test_problems=500, held_out_problems=0)
    settings.judge_with_real_models(config, laptop=False)
    config.models.generator.path = config.models.verifier.path = "Qwen/Qwen2.5-14B-Instruct"
    config.models.judge.path = "Qwen/Qwen3-32B"
    config.models.policy.path = "Qwen/Qwen2.5-Math-7B"
    config.solve.update(samples=8, temperature=0.7, top_p=0.95, max_tokens=8192)
    config.verify.update(votes=16, temperature=0.8, top_p=0.95, max_tokens=8192)
    config.spark.critique = config.spark.merge = ""
    config.engine.max_length = 32_768
    for trained in (config.verifier, config.prm):
        settings.train_real_model(trained)
        trained.train.row_length = 8192
    settings.reinforce_real_models(config)
    spark_cells.choose(config, str(chosen["part"]), str(chosen["cell"]), bool(chosen["controls"]))
    if chosen["runlocal"]:
        settings.spark_in_small(config)
        config.solve.max_tokens = config.verify.max_tokens = config.generative.max_tokens = 1024
        config.engine.max_length = 4096
    return config
