"""How the embedded models are made, from nothing: a tokenizer, tiny-base, another base, tiny-teacher.

`tiny-base` learns to solve the arithmetic world and nothing else; no verdict ever enters its training. Another base
of another seed is a pool of mistakes: its samples are what `tiny-teacher` learns to grade, from tiny-base's weights
and the world's truth. Held-out templates, names, lengths and error categories stay out of all of it
(worlds/arithmetic.py, arithmetic_judge.py). configs/tiny_models.py has the settings.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spare_jax.models import huggingface
from spare_jax.models.decoder import DecoderConfig, init_decoder
from spare_jax.prompts import annotate, solve
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.records import Gold, Problem, Solution
from spare_jax.run import Run, Stage
from spare_jax.solving import SolveSettings, solutions
from spare_jax.tasks import arithmetic as task
from spare_jax.training import losses
from spare_jax.training.batches import Example, completion_example
from spare_jax.worlds import arithmetic as world
from spare_jax.worlds.arithmetic_judge import HELD_OUT_ERRORS

PAD, END, SYSTEM, USER, ASSISTANT, TAG = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", " ки"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# A JSON key with the punctuation around it is one word, so that a record costs few tokens; so is an id such as [c1].
# Digits stand alone. A capitalised word never takes the blank before it: a name is the same token wherever it stands.
_WORDS = (
    r"""["\]},\[{]*"[a-z_]+":["\[]*|"\}[,\]]| ?\[[a-z]\d*\]|'s| ?[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*|"""
    r""" ?\d|\s*\n| ?[^\sA-Za-z\d]+|\s+"""
)


def build_tokenizer(vocab_size: int, problems: int = 3000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` entries, trained on texts of the world's train templates."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, SYSTEM, USER, ASSISTANT, TAG]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator(_corpus(problems), trainer)
    # The tag is text like any other once it is a token: only control tokens are special.
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special[:-1]])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _corpus(problems: int) -> Iterator[str]:
    for index, (problem, gold) in enumerate(world.generate(0, "tokenizer", problems)):
        steps = list(gold.steps)
        if index % 2:
            steps[index % len(steps)] = steps[0]
        yield from (message["content"] for message in solve.render(task.TASK, problem))
        yield "\n".join(gold.steps)
        for message in annotate.render(task.TASK, problem, gold.steps, steps, task.BRIEF_GUIDELINES):
            yield message["content"]
        yield annotate.format_records(task.step_truth(problem, gold, steps))
    yield from (f'"{error}"' for error in task.ERRORS for _ in range(problems))


def solving_examples(
    tokenizer: PreTrainedTokenizerFast, seed: int, split: str, count: int, distribution: world.Distribution
) -> Iterator[Example]:
    """What a base learns from: `count` problems, each with its reference solution as the completion."""
    for problem, gold in world.generate(seed, split, count, distribution):
        prompt = encode_chat(tokenizer, solve.render(task.TASK, problem))
        yield _completion(tokenizer, prompt, "\n".join(gold.steps))


def grading_examples(
    tokenizer: PreTrainedTokenizerFast, graded: Iterable[tuple[Problem, Gold, Solution]]
) -> Iterator[Example]:
    """What the teacher learns from: an annotate prompt, and the world's verdicts as its completion.

    Solutions with an error of a held-out category are left out.
    """
    for problem, gold, solution in graded:
        records = task.step_truth(problem, gold, solution.steps)
        if not records or any(error in HELD_OUT_ERRORS for record in records for error in record.errors):
            continue
        messages = annotate.render(task.TASK, problem, gold.steps, solution.steps, task.BRIEF_GUIDELINES)
        yield _completion(tokenizer, encode_chat(tokenizer, messages), annotate.format_records(records))


def _completion(tokenizer: PreTrainedTokenizerFast, prompt: list[int], text: str) -> Example:
    ids = np.asarray([*prompt, *encode(tokenizer, text), tokenizer.eos_token_id], np.int32)
    return completion_example(ids, len(prompt))


# The stages of configs/tiny_models.py


def tokenizer(run: Run) -> list[str]:
    """Train the tokenizer that all embedded models share."""
    build_tokenizer(run.config.tokenizer.vocab_size).save_pretrained(run.work.path / "tokenizer")
    return ["tokenizer/tokenizer.json"]


def base(run: Run) -> list[str]:
    """Train tiny-base from random weights."""
    return _train_base(run, "base")


def other_base(run: Run) -> list[str]:
    """Train the base whose solutions the teacher learns on: another seed, shorter."""
    return _train_base(run, "other_base")


def _train_base(run: Run, name: str) -> list[str]:
    settings, words = run.config[name], huggingface.load_tokenizer(run.work.path / "tokenizer")
    shape = DecoderConfig(vocab_size=len(words), **run.config.decoder)
    model = init_decoder(shape, jax.random.key(settings.seed))
    for part, phase in sorted(settings.phases.to_dict().items()):
        distribution = distribution_of(phase)
        how = {"seed": settings.seed} | {
            key: value for key, value in phase.items() if key not in ("split", "problems", "lengths", "max_distractors")
        }
        examples = list(solving_examples(words, settings.seed, phase["split"], phase["problems"], distribution))
        dev = list(solving_examples(words, settings.seed + 1000, phase["split"], 300, distribution))
        model = run.train(
            f"{name} {part}", run.work.path / name / part, how, model, losses.lm_loss, examples, dev
        ).model
    return _export(run, name, model, shape, words)


def distribution_of(phase: Mapping[str, Any]) -> world.Distribution:
    """What a phase of training draws its problems from."""
    return dataclasses.replace(world.TRAIN, lengths=tuple(phase["lengths"]), max_distractors=phase["max_distractors"])


def candidates(run: Run) -> list[str]:
    """Sample the other base on problems of its own seed: the mistakes that the teacher learns to find."""
    settings = run.config.candidates
    drawn = list(world.generate(run.config.other_base.seed, "grading", settings.problems))
    run.work.write("problems", (problem for problem, _ in drawn))
    run.work.write("gold", (gold for _, gold in drawn))
    checkpoint = huggingface.load(run.work.path / "models" / "other_base", mesh=run.inference_mesh)
    how = SolveSettings(
        settings.samples,
        settings.temperature,
        1.0,
        settings.max_tokens,
        huggingface.tokenizer_digest(checkpoint.tokenizer),
    )
    started = {
        f"grading/{p.id}": functools.partial(solutions, task.TASK, p, checkpoint.tokenizer, how) for p, _ in drawn
    }
    found = run.answer("candidates", "", {"generator": run.engine(checkpoint)}, started)
    run.work.write("solutions", (solution for several in found for solution in several))
    return ["problems.jsonl", "gold.jsonl", "solutions.jsonl"]


def teacher(run: Run) -> list[str]:
    """Train tiny-base further into tiny-teacher, on the world's verdicts on the candidates."""
    settings, start = run.config.teacher, huggingface.load(run.work.path / "models" / "base", mesh=run.inference_mesh)
    problems, by_id, gold, found = run.records()
    held_back = {p.id for p in problems[-settings.dev_problems :]}
    graded = [(by_id[s.problem_id], gold[s.problem_id], s) for s in found]
    examples = list(grading_examples(start.tokenizer, (g for g in graded if g[0].id not in held_back)))
    dev = list(grading_examples(start.tokenizer, (g for g in graded if g[0].id in held_back)))
    directory = run.work.path / "teacher"
    model = run.train("teacher", directory, dict(settings.train), start.model, losses.lm_loss, examples, dev).model
    return _export(run, "teacher", model, start.config, start.tokenizer)


def _export(run: Run, name: str, model, shape: DecoderConfig, words: PreTrainedTokenizerFast) -> list[str]:
    """Write the model's directory, with a manifest of what it was trained on."""
    manifest = {"made_by": "configs/tiny_models.py", "stage": name, **run.config[name].to_dict()}
    huggingface.save(run.work.path / "models" / name, model, shape, words, {"training.json": manifest})
    return [f"models/{name}"]


STAGES = {
    "tokenizer": Stage(tokenizer, ("tokenizer",)),
    "base": Stage(base, ("decoder", "base", "mesh"), ("tokenizer",)),
    "other_base": Stage(other_base, ("decoder", "other_base", "mesh"), ("tokenizer",)),
    "candidates": Stage(candidates, ("candidates", "other_base.seed", "engine", "mesh"), ("models/other_base",)),
    "teacher": Stage(teacher, ("teacher", "mesh"), ("models/base", "problems.jsonl", "gold.jsonl", "solutions.jsonl")),
}
