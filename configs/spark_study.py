"""The study of SPARK on the arithmetic world from one seed: labels, reward models, reinforcement learning.

    python -m spare_jax.main --workdir=DIR --config=configs/spark_study.py:part=labels,seed=31
    python -m spare_jax.main --workdir=DIR \\
        --config=configs/spark_study.py:part=verifiers,cell=step_consistency_prm_cot,seed=31
    python -m spare_jax.main --workdir=DIR --config=configs/spark_study.py:part=rl,cell=process_aware,seed=31
    python -m spare_jax.studies.collect docs/results/spark.json DIR/verifications DIR/verifiers/* DIR/policies/*

All parts of a seed share a directory. `labels` makes the targets of every mode, the two controls among them, from what
tiny-verifier verifies; a cell of `verifiers` is <mode>_<kind>, of `rl` a reward, paid by the reward model of the cell
above (docs/spark.md). :runlocal is the same with few problems.
"""

from spare_jax.pipelines import spark_cells
from spare_jax.runs import settings


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, part="labels", cell="", seed=31)
    config = settings.default()
    config.seed = chosen["seed"]
    settings.use_own_models_of_world(config, verifies=True)
    config.data.update(train_problems=240, dev_problems=40, test_problems=1000, held_out_problems=0)
    config.verify.update(votes=8, temperature=0.8, top_p=0.95, max_tokens=320)
    config.engine.max_length = 2048  # a critique stands behind a verification
    config.verifier.test_problems = 150  # sixteen samples of each are judged; a policy answers a problem once
    config.verifier.train.row_length = 1024
    # As in the paper a reward model starts from an instruct model. What learns from agreement must not have seen truth.
    if str(chosen["cell"]).startswith("agreement"):
        config.verifier.train.update(batch_rows=4, epochs=4.0, optimizer="muon", learning_rate=2e-3)
    else:
        config.models.verifier.path = "tiny-verifier"
    config.grpo.update(iterations=60, prompts=16, watch_problems=40, least_steps=0)  # the shortest take two steps
    config.grpo.alarms.paid_wrongly.threshold = 1.0  # off: what a policy does unwatched is the question
    config.grpo.train.update(row_length=320, accumulate=4, learning_rate=1e-4)
    spark_cells.choose(config, str(chosen["part"]), str(chosen["cell"]), controls=True)
    if chosen["runlocal"]:
        settings.spark_in_small(config)
    return config
