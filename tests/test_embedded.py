"""The embedded models: small, separate, and kept from what is held out."""

import dataclasses
import json

import numpy as np
import pytest
from tests_config import config_of

from spare_jax import assets, embedded
from spare_jax.models import huggingface
from spare_jax.prompts.solve import decode
from spare_jax.records import Solution
from spare_jax.tasks import arithmetic as task
from spare_jax.worlds import arithmetic as world
from spare_jax.worlds.arithmetic_judge import HELD_OUT_ERRORS, judge


@pytest.fixture(scope="module")
def tokenizer():
    return huggingface.load_tokenizer(assets.resolve("tiny-base"))


def manifest(name):
    return json.loads((assets.directory(name) / "training.json").read_text())


@pytest.mark.parametrize("name", assets.NAMES)
def test_models_are_small_and_load(name):
    loaded = huggingface.load(assets.resolve(name))
    files = list(assets.directory(name).iterdir())
    assert sum(np.size(leaf) for leaf in __import__("jax").tree.leaves(loaded.model)) <= 2_000_000
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
    assert all(path.suffix in (".json", ".safetensors", ".jinja") for path in files)  # data, no code


def test_the_shipped_tokenizer_is_the_one_that_is_built(tokenizer):
    built = embedded.build_tokenizer(config_of("tiny_models").tokenizer.vocab_size)
    assert huggingface.tokenizer_digest(built) == huggingface.tokenizer_digest(tokenizer)


def test_manifests_are_what_the_config_asks_for():
    config = config_of("tiny_models")
    for name, stage in (("tiny-base", "base"), ("tiny-teacher", "teacher")):
        made = manifest(name)
        assert made.pop("stage") == stage
        assert made.pop("made_by") == "configs/tiny_models.py"
        assert made == json.loads(json.dumps(config[stage].to_dict()))
    # The teacher's lessons are the mistakes of a base of another seed.
    assert config.base.seed != config.other_base.seed


def test_a_base_sees_problems_and_reference_solutions_alone(tokenizer):
    """What the base is trained on is what the world draws from the train distribution: no verdict, nothing held out."""
    for phase in config_of("tiny_models").base.phases.values():
        distribution = embedded.distribution_of(phase.to_dict())
        assert set(distribution.names) <= set(world.TRAIN.names)
        assert set(distribution.lengths) <= set(world.TRAIN.lengths)
        assert set(distribution.templates) <= set(world.TRAIN.templates)
        examples = list(embedded.solving_examples(tokenizer, 3, "check", 40, distribution))
        drawn = list(world.generate(3, "check", 40, distribution))
        for example, (problem, gold) in zip(examples, drawn, strict=True):
            text = decode(tokenizer, example.ids)
            shown = "\n".join((*problem.context, problem.question))
            steps = "\n".join(gold.steps)
            assert text == f"<|system|>Solve.<|user|>{shown}<|assistant|>{steps}<|end|>"
            learnt = np.asarray(example.ids)[np.asarray(example.loss_mask)]
            assert decode(tokenizer, learnt) == f"{steps}<|end|>"


def test_the_teacher_never_sees_a_held_out_error(tokenizer):
    drawn = list(world.generate(4, "check", 60, dataclasses.replace(world.TRAIN, lengths=(2, 3))))
    graded = []
    for problem, gold in drawn:
        for kind, steps in (("whole", gold.steps), ("skipped", gold.steps[1:]), ("wrong", ("Ben has 9.", *gold.steps))):
            graded.append((problem, gold, Solution(f"{problem.id}/{kind}", problem.id, steps, None, "stop")))
    skipped = sum(
        any(verdict.error in HELD_OUT_ERRORS for verdict in judge(problem, gold, solution.steps))
        for problem, gold, solution in graded
    )
    texts = [decode(tokenizer, example.ids) for example in embedded.grading_examples(tokenizer, graded)]
    assert skipped > 50
    assert len(texts) == len(graded) - skipped
    assert not any(error in text for text in texts for error in HELD_OUT_ERRORS)
    assert sum('"INCORRECT"' in text for text in texts) > 20


def test_exemplars_of_the_world_come_from_a_policy_and_both_classes():
    pool = task.exemplars()
    assert len(pool) == 10
    assert sum(e.is_correct for e in pool) == 5
    for exemplar in pool:
        assert len(exemplar.candidate) == len(exemplar.judgements)
        assert exemplar.candidate[-1].startswith("The answer is ")
    errors = {error for e in pool for step in e.judgements for error in step.errors}
    assert not errors & set(HELD_OUT_ERRORS)
    assert len(errors) >= 3
