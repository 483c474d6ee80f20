"""The embedded models: small, separate, and kept from what is held out."""

import dataclasses
import json
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests_config import config_of

from spare_jax import assets, programs
from spare_jax.models import decoder, huggingface
from spare_jax.models.config import DecoderConfig
from spare_jax.pipelines import tiny_models
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode
from spare_jax.prompts.solve import decode
from spare_jax.records import Solution
from spare_jax.runs.settings import read
from spare_jax.runs.splits import task_of
from spare_jax.solvers import sample
from spare_jax.tasks.arithmetic import TASK, WORLD
from spare_jax.worlds.arithmetic import story_of


@pytest.fixture(scope="module")
def tokenizer():
    return huggingface.load_tokenizer(assets.resolve("tiny-base"))


def manifest(name):
    return json.loads((assets.directory(name) / "training.json").read_text())


@pytest.mark.parametrize("name", assets.NAMES)
def test_models_are_small_and_load(name):
    loaded = huggingface.load(assets.resolve(name))
    files = list(assets.directory(name).iterdir())
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(loaded.model)) <= 2_000_000
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
    assert all(path.suffix in (".json", ".safetensors", ".jinja") for path in files)  # data, no code


@pytest.mark.parametrize(
    ("name", "world"),
    [("tiny-base", "arithmetic"), ("multihop-base", "multihop"), ("spatial-base", "spatial")],
)
def test_the_shipped_tokenizer_is_the_one_that_is_built(name, world):
    built = tiny_models.build_tokenizer(task_of(world), **config_of("tiny_models", f"world={world}").tokenizer)
    shipped = huggingface.load_tokenizer(assets.resolve(name))
    assert huggingface.tokenizer_digest(built) == huggingface.tokenizer_digest(shipped)


def test_a_tokenizer_knows_the_words_of_its_lessons():
    ((problem, gold),) = WORLD.generate(1, "check", 1)
    said = verify.from_judgement(WORLD.truth(problem, gold, gold.steps))
    text = verify.format_verification(said, True)
    with_words, without = (
        encode(tiny_models.build_tokenizer(TASK, 640, lessons, problems=200), text)
        for lessons in (("annotate", "verify"), ("annotate",))
    )
    assert len(with_words) < len(without) - 10 * len(gold.steps)


def test_manifests_are_what_the_config_asks_for():
    for name, stage, argument in (
        ("tiny-base", "base", "world=arithmetic"),
        ("tiny-teacher", "teacher", "world=arithmetic"),
        ("tiny-verifier", "teacher", "verifier"),
        ("multihop-base", "base", "world=multihop"),
        ("multihop-teacher", "teacher", "world=multihop"),
        ("spatial-base", "base", "world=spatial"),
        ("spatial-teacher", "teacher", "world=spatial"),
    ):
        config, made = config_of("tiny_models", argument), manifest(name)
        assert made.pop("stage") == stage
        assert made.pop("made_by") == "configs/tiny_models.py"
        expected = json.loads(json.dumps(config[stage].to_dict()))
        differs = made.pop("differs", None)
        assert made == expected
        assert (differs is not None) == (name == "tiny-teacher")
        # The teacher's lessons are the mistakes of a base of another seed.
        assert "other_base" not in config or config.base.seed != config.other_base.seed


def test_a_base_sees_problems_and_reference_solutions_alone(tokenizer):
    """What the base is trained on is what the world draws from the train distribution: no verdict, nothing held out."""
    for phase in config_of("tiny_models").base.phases.values():
        distribution = tiny_models.distribution_of(TASK, read(tiny_models.SolvingPhase, phase.to_dict(), "phase"))
        assert set(distribution.names) <= set(WORLD.train.names)
        assert set(distribution.lengths) <= {0, *WORLD.train.lengths}
        assert set(distribution.templates) <= set(WORLD.train.templates)
        every_fact = phase.every_fact
        examples = list(tiny_models.solving_examples(TASK, tokenizer, 3, "check", 40, distribution, every_fact))
        drawn = list(WORLD.generate(3, "check", 40, distribution))
        for example, (problem, gold) in zip(examples, drawn, strict=True):
            text = decode(tokenizer, example.ids)
            shown = "\n".join((*problem.context, problem.question))
            learnt = decode(tokenizer, np.asarray(example.ids)[np.asarray(example.token_weights) > 0])
            steps = learnt.removesuffix("<|end|>")
            assert steps == "\n".join(gold.steps) or every_fact
            assert all(verdict.correct for verdict in WORLD.judge(problem, gold, steps.split("\n")))
            assert text == f"<|system|>Solve.<|user|>{shown}<|assistant|>{steps}<|end|>"


def test_look_back_makes_each_head_of_the_first_layer_attend_to_its_offset():
    shape = DecoderConfig(100, 128, 64, 2, 4, 2, 32)
    plain, offsets, length = decoder.init_decoder(shape, jax.random.key(0)), (1, 2, 3, 5), 40
    model = tiny_models.look_back(plain, offsets)
    ids = jax.random.randint(jax.random.key(1), (1, length), 0, 100)
    states = model.embed[...][ids]
    states = states / jnp.sqrt(jnp.mean(states**2, axis=-1, keepdims=True))
    first = jax.tree.map(lambda leaf: leaf[0], model.blocks.attention)
    q, k, _ = first.project(states, decoder.rotary_angles(jnp.arange(length)[None], shape), shape)
    scores = jnp.einsum("tkgd,skd->kgts", q[0], k[0]).reshape(4, length, length) / np.sqrt(32)
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf), axis=-1)
    for head, offset in enumerate(offsets):
        assert jnp.diagonal(weights[head], -offset).mean() > 0.6
    # All else is as it was drawn.
    changed = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for (path, a), b in zip(jax.tree.leaves_with_path(model), jax.tree.leaves(plain), strict=True)
        if not jnp.array_equal(a, b)
    }
    assert changed == {"embed.value", "blocks.attention.query.kernel.value", "blocks.attention.key.kernel.value"}
    np.testing.assert_array_equal(model.blocks.attention.query.kernel[1], plain.blocks.attention.query.kernel[1])
    with pytest.raises(ValueError, match="3 offsets for 4 heads"):
        tiny_models.look_back(plain, (1, 2, 3))


def test_the_teacher_never_sees_a_held_out_error(tokenizer):
    drawn = list(WORLD.generate(4, "check", 60, dataclasses.replace(WORLD.train, lengths=(2, 3))))
    graded = []
    for problem, gold in drawn:
        slip = f"{story_of(gold).target} has 98."
        for kind, steps in (("whole", gold.steps), ("skipped", gold.steps[1:]), ("slip", (slip, *gold.steps))):
            graded.append((problem, gold, Solution(f"{problem.id}/{kind}", problem.id, steps, None, "stop")))
    skipped = sum(
        any(verdict.error in WORLD.held_out_errors for verdict in WORLD.judge(problem, gold, solution.steps))
        for problem, gold, solution in graded
    )
    texts = [decode(tokenizer, example.ids) for example in tiny_models.grading_examples(TASK, tokenizer, graded)]
    assert skipped > 50
    assert len(texts) == len(graded) - skipped
    assert not any(error in text for text in texts for error in WORLD.held_out_errors)
    assert sum('"INCORRECT"' in text for text in texts) > 20


def test_a_phase_has_as_many_solutions_of_the_world_as_it_asks_for():
    ((problem, gold),) = WORLD.generate(5, "check", 1, dataclasses.replace(WORLD.train, lengths=(3,)))
    phases = [
        tiny_models.GradingPhase(right_solutions=2),
        tiny_models.GradingPhase(right_solutions=1, reference_solutions=1, mistaken_solutions=3),
    ]
    made = list(tiny_models.made_solutions(TASK, problem, gold, phases, 0))
    assert [(kind, k) for kind, k, _ in made] == [
        ("reference", 0), ("right", 0), ("right", 1), ("mistaken", 0), ("mistaken", 1), ("mistaken", 2),
    ]  # fmt: skip
    assert made == list(tiny_models.made_solutions(TASK, problem, gold, phases, 0))
    assert len({solution.id for *_, solution in made}) == 6
    assert made[0][2].steps == gold.steps
    assert all(verdict.correct for *_, solution in made[:3] for verdict in WORLD.judge(problem, gold, solution.steps))
    with pytest.raises(ValueError, match="multihop world makes no mistaken solutions"):
        multihop = task_of("multihop")
        ((problem, gold),) = multihop.world.generate(5, "check", 1)
        list(tiny_models.made_solutions(multihop, problem, gold, phases, 0))


def test_what_is_hidden_of_a_story_stands_in_its_reference(tokenizer):
    drawn = list(WORLD.generate(6, "check", 40, WORLD.train))
    for problem, gold in drawn:
        steps = WORLD.mistaken_solution(problem, gold, random.Random(problem.id))
        whole = WORLD.truth(problem, gold, steps)
        shown, seen = tiny_models.hide(TASK, problem, gold, whole, random.Random(problem.id))
        hidden = {i for i, sentence in enumerate(shown.context, 1) if sentence == tiny_models.HIDDEN}
        retold = {i for record in WORLD.truth(problem, gold, gold.steps) for i in record.context}
        assert hidden <= retold and len(hidden) == (len(retold) + 1) // 2
        pairs = zip(shown.context, problem.context, strict=True)
        assert all(a == b for i, (a, b) in enumerate(pairs, 1) if i not in hidden)
        for record, before in zip(seen, whole, strict=True):
            assert record == dataclasses.replace(before, context=tuple(i for i in before.context if i not in hidden))
    graded = [(p, g, Solution(p.id, p.id, g.steps, g.answers[0], "stop")) for p, g in drawn]
    for share, least, most in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)):
        examples = tiny_models.grading_examples(TASK, tokenizer, graded, hidden_share=share)
        assert least <= sum(f"] {tiny_models.HIDDEN}" in decode(tokenizer, e.ids) for e in examples) <= most


def test_the_words_of_a_record_weigh_what_they_decide(tokenizer):
    ((problem, gold),) = WORLD.generate(5, "check", 1, dataclasses.replace(WORLD.train, lengths=(1,)))
    steps = (gold.steps[0], "The answer is 98.")
    graded = [(problem, gold, Solution("s", problem.id, steps, "98", "stop"))]
    (example,) = tiny_models.grading_examples(TASK, tokenizer, graded, alignment_weight=0.5, verdict_weight=4.0)
    weights = np.asarray(example.token_weights)
    by_weight = {w: decode(tokenizer, np.asarray(example.ids)[weights == np.float32(w)]) for w in (0.5, 4.0)}
    assert by_weight[4.0] == '],"errors":[],"errors":["'
    assert not set(by_weight[0.5]) - set("0123456789, ")


def lessons_of(tokenizer, lesson, graded):
    """What is shown in a lesson and what is to be written, as texts."""
    found = []
    for example in tiny_models.grading_examples(TASK, tokenizer, graded, lessons=(lesson,)):
        first = int(np.argmax(np.asarray(example.token_weights) > 0))
        found.append(tuple(decode(tokenizer, part) for part in (example.ids[:first], example.ids[first:])))
    return found


def test_a_verifier_learns_the_truth_without_the_reference_and_what_a_critique_is(tokenizer):
    ((problem, gold),) = WORLD.generate(4, "check", 1, dataclasses.replace(WORLD.train, lengths=(4,)))
    steps = (gold.steps[1], *gold.steps[1:])  # what the first one would have said is missing
    graded = [(problem, gold, Solution("s", problem.id, steps, TASK.extract_answer(steps), "stop"))]
    told = verify.from_judgement(WORLD.truth(problem, gold, steps))
    whole = verify.format_verification(told, True) + "<|end|>"
    ((free, said),) = lessons_of(tokenizer, "verify", graded)
    ((guided, also),) = lessons_of(tokenizer, "verify_guided", graded)
    assert said == also == whole and "incorrect" in whole
    assert gold.steps[0] not in free + guided
    expected = f"\nExpected answer: {gold.answers[0]}"
    assert expected not in free and guided.replace(expected, "") == free
    (asked, faults), (again, merged) = lessons_of(tokenizer, "critique", graded)
    assert asked.startswith(free) and again.startswith(asked + faults) and merged == whole
    criticised = verify.parse(asked.removeprefix(free), len(steps))
    differing = {n for n, step in criticised.steps.items() if step.correct is not told[n - 1].correct}
    assert {int(n) for n in re.findall("Step ([0-9]+)", faults)} == differing


def test_faults_are_named_as_what_they_are():
    right = verify.StepVerification("Ida", "said 2 + 3 = 5, is so", True)
    wrong = verify.StepVerification("Ben", "said 2 + 3 = 6, is 5", False)
    seen = set()
    for seed in range(40):
        faulty, critique = tiny_models.with_faults([right, wrong], random.Random(seed))
        seen.add(critique)
        assert (faulty[0] != right) == ("Step 1: a false alarm." in critique)
        assert (faulty[1] != wrong) == ("Step 2: a missed error." in critique)
        assert faulty[1] in (wrong, verify.StepVerification("Ben", "said 2 + 3 = 6, is so", True))
    assert seen > {"No fault.", "Step 1: a false alarm."} and len(seen) == 4


def test_a_begun_solution_goes_on_from_its_right_steps(tokenizer):
    ((problem, gold),) = WORLD.generate(5, "check", 1, dataclasses.replace(WORLD.train, lengths=(3,)))
    begun = encode(tokenizer, f"{gold.steps[0]}\n")
    rest = (*encode(tokenizer, "\n".join(gold.steps[1:])), tokenizer.eos_token_id)
    settings = sample.SolveSettings(2, 0.8, 1.0, 100, "digest")
    program = sample.solutions(TASK, problem, tokenizer, settings, begun)
    (request,) = next(program)
    assert list(request.all_ids()[-len(begun) :]) == begun
    completion = programs.Completion(rest, (-0.5,) * len(rest), "stop")
    with pytest.raises(StopIteration) as stop:
        program.send([(completion, completion)])
    for solution in stop.value.value:
        assert solution.steps == gold.steps
        assert solution.token_ids == (*begun, *rest)
        assert solution.mean_logprob == -0.5
        assert solution.prompt_tokens == len(request.all_ids())


def test_a_beginning_is_right_as_far_as_it_goes():
    early = 0
    for seed in range(60):
        ((problem, gold),) = WORLD.generate(seed, "check", 1, dataclasses.replace(WORLD.train, lengths=(1, 2, 4)))
        steps = WORLD.another_solution(problem, gold, random.Random(seed))
        *said, last = tiny_models.begin(steps, "=", random.Random(seed)).split("\n")
        assert said == steps[: len(said)]
        assert last.endswith("=") and last.count("=") == 1
        (number,) = (i for i, step in enumerate(steps) if step.startswith(last))
        assert number >= len(said)
        early += number > len(said)
    assert early > 20


def test_exemplars_of_the_world_come_from_a_policy_and_both_classes():
    pool = TASK.exemplars()
    assert len(pool) == 10
    assert sum(e.is_correct for e in pool) == 5
    for exemplar in pool:
        assert len(exemplar.candidate) == len(exemplar.judgements)
        assert exemplar.candidate[-1].startswith("The answer is ")
    errors = {error for e in pool for step in e.judgements for error in step.errors}
    assert not errors & set(WORLD.held_out_errors)
    assert len(errors) >= 3
