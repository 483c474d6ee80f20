"""How the embedded models are made, from nothing: a tokenizer, tiny-base, another base, tiny-teacher.

Each world has its own. `tiny-base` learns to solve problems of the world and nothing else; no verdict ever enters its
training. Another base of another seed is a pool of mistakes: its samples, beside right solutions, are what
`tiny-teacher` learns to grade, from tiny-base's weights and the world's truth. Held-out templates, names, lengths and
error categories stay out of all of it (worlds/). configs/tiny_models.py has the settings.
"""

import dataclasses
import functools
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spare_jax import assets
from spare_jax.judges.outcome import is_correct
from spare_jax.keys import unlisted
from spare_jax.models import huggingface
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, Remat, init_decoder, rotary_frequencies
from spare_jax.prompts import annotate, meta_critique, solve, verify
from spare_jax.prompts.chat import Message, encode, encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Gold, Problem, Solution, StepJudgement
from spare_jax.runs import fit, solving
from spare_jax.runs.models import EngineSettings
from spare_jax.runs.run import Run
from spare_jax.runs.settings import listed
from spare_jax.runs.stage import Stage
from spare_jax.solvers.sample import SolveSettings
from spare_jax.tasks.task import Task, world_of
from spare_jax.training import batches, losses
from spare_jax.training.batches import Example, completion_example
from spare_jax.training.setup import TrainConfig
from spare_jax.worlds.verdict import SAID_IS
from spare_jax.worlds.world import Distribution

PAD, END, SYSTEM, USER, ASSISTANT, TAG = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", " ки"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# How sharply a head looks back, how many of the fastest rotary frequencies it does so with, and what share of their
# random weights its query and key keep.
LOOK_BACK_SHARPNESS, LOOK_BACK_FREQUENCIES, LOOK_BACK_CONTENT = 5.0, 6, 0.3

HIDDEN = "..."  # what stands in the story in place of a sentence that is hidden

FAULTY = 0.3  # how many steps of the verifications that are to be criticised


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """At most so many tokens, and the lessons whose words they are learnt from (`grading_examples`)."""

    vocab_size: int = 640
    lessons: tuple[str, ...] = ("annotate",)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a DecoderConfig says beside the number of tokens."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    max_length: int = 1024


@dataclasses.dataclass(frozen=True)
class Phase(TrainConfig):
    """A phase of training, and the lengths of its problems."""

    batch_rows: int = 4
    steps: int | None = None
    epochs: float = unlisted(TrainConfig.epochs)
    accumulate: int = unlisted(TrainConfig.accumulate)
    optimizer: str = "muon"
    dtype: str = unlisted(TrainConfig.dtype)
    remat: Remat = unlisted(TrainConfig.remat)
    lengths: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class SolvingPhase(Phase):
    """What a base learns from: so many problems of a split, of `Distribution`, and their references; or with
    `every_fact` solutions that state every fact of the story."""

    split: str = ""
    problems: int = 0
    max_distractors: int = 0
    every_fact: bool = False


@dataclasses.dataclass(frozen=True)
class GradingPhase(Phase):
    """What a judge learns from: `lessons` (`grading_examples`) on a base's solutions and on so many of each kind that
    the world makes of a problem (`made_solutions`). At most `right_share` of them are without an error, and of
    `hidden_share` the story lacks sentences (`hide`)."""

    right_solutions: int = 0
    mistaken_solutions: int = unlisted(0)
    reference_solutions: int = unlisted(0)
    right_share: float = 1.0
    alignment_weight: float = 1.0
    verdict_weight: float = 1.0
    hidden_share: float = unlisted(0.0)
    lessons: tuple[str, ...] = ("annotate",)

    def made(self, kind: str) -> int:
        """How many solutions of a kind the world makes of a problem."""
        return getattr(self, f"{kind}_solutions")


@dataclasses.dataclass(frozen=True)
class BaseTraining:
    """How a base is trained: where its heads look at first (`look_back`), and its phases in their names' order."""

    seed: int = 0
    look_back: tuple[int, ...] = ()
    phases: Mapping[str, SolvingPhase] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Which problems are drawn for the teacher."""

    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Candidates(Drawn, SolveSettings):
    """Problems, and how a base solves them; empty: nobody does."""

    base: str = "other_base"
    problems: int = 7000
    lengths: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class TeacherTraining:
    """How a teacher is trained: its phases in their names' order, what chooses the best of its checkpoints, and from
    where it starts, by default from this run's base."""

    seed: int = 0
    dev_problems: int = 100
    phases: Mapping[str, GradingPhase] = dataclasses.field(default_factory=dict)
    start: str = unlisted("")


# A JSON key with the punctuation around it is one word, so that a record costs few tokens; so is an id such as [c1].
# Digits stand alone. A capitalised word never takes the blank before it: a name is the same token wherever it stands.
_WORDS = (
    r"""["\]},\[{]*"[a-z_]+":["\[]*|"\}[,\]]| ?\[[a-z]\d*\]|'s| ?[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*|"""
    r""" ?\d|\s*\n| ?[^\sA-Za-z\d]+|\s+"""
)


def build_tokenizer(
    task: Task, vocab_size: int, lessons: Sequence[str] = ("annotate",), problems: int = 3000
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` entries, trained on texts of its world's train templates:
    problems, reference solutions, and what `grading_examples` asks and answers in `lessons`."""
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
    tokenizer.train_from_iterator(_corpus(task, problems, lessons), trainer)
    # The tag is text like any other once it is a token: only control tokens are special.
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special[:-1]])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _corpus(task: Task, problems: int, lessons: Sequence[str]) -> Iterator[str]:
    world = world_of(task)
    for index, (problem, gold) in enumerate(world.generate(0, "tokenizer", problems)):
        steps = list(gold.steps)
        if index % 2:
            steps[index % len(steps)] = steps[0]
        yield from (message["content"] for message in solve.render(task, problem))
        yield "\n".join(gold.steps)
        for message in annotate.render(task, problem, gold.steps, steps, annotate.BRIEF_GUIDELINES):
            yield message["content"]
        # Whatever the truth of a step, its explanation repeats it whole, twice: how often each word stands here decides
        # the tokenizer, which stays as it is when explanations change.
        whole = {
            step: SAID_IS.sub(r"\g<before_right>\g<said>", record.explanation)
            for step, record in zip(gold.steps, world.truth(problem, gold, gold.steps), strict=True)
        }
        records = [
            dataclasses.replace(record, explanation=whole[step])
            for step, record in zip(steps, world.truth(problem, gold, steps), strict=True)
        ]
        yield annotate.format_records(records)
        if "verify" in lessons:
            yield verify.BRIEF_GUIDELINES
            yield verify.format_verification(verify.from_judgement(records), bool(index % 2))
    yield from (f'"{error}"' for error in task.error_categories for _ in range(problems))


def solving_examples(
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    split: str,
    count: int,
    distribution: Distribution,
    every_fact: bool,
) -> Iterator[Example]:
    """What a base learns from: `count` problems, each with its reference solution as the completion, or with one that
    states every fact of the story: the quickest way to learn to look things up by name (docs/embedded.md)."""
    world, rng = world_of(task), random.Random(f"every_count/{seed}/{split}")
    for problem, gold in world.generate(seed, split, count, distribution):
        prompt = encode_chat(tokenizer, solve.render(task, problem))
        steps = world.every_fact(problem, gold, rng) if every_fact else gold.steps
        yield _completion(tokenizer, prompt, "\n".join(steps))


def grading_examples(
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    graded: Iterable[tuple[Problem, Gold, Solution]],
    alignment_weight: float = 1.0,
    verdict_weight: float = 1.0,
    hidden_share: float = 0.0,
    lessons: Sequence[str] = ("annotate",),
) -> Iterator[Example]:
    """What a judge learns from: prompts of the `lessons`, and the world's verdicts as their completions.

    "annotate" shows the reference, "verify" nothing but the solution, "verify_guided" the answer that is expected;
    "critique" shows a verification with faults, and asks which they are and for the verification without.

    Solutions with an error of a held-out category are left out. The ids of a record (context, steps, reference) count
    `alignment_weight`, and what says whether there is an error `verdict_weight`. In "annotate", `hidden_share` of the
    solutions are shown with a story that lacks sentences (`hide`), so that their steps are judged by the reference.
    """
    world = world_of(task)
    for problem, gold, solution in graded:
        records = world.truth(problem, gold, solution.steps)
        if not records or any(error in world.held_out_errors for record in records for error in record.errors):
            continue
        if "annotate" in lessons:
            rng = random.Random(f"hidden/{solution.id}")
            shown, seen = hide(task, problem, gold, records, rng) if rng.random() < hidden_share else (problem, records)
            messages = annotate.render(task, shown, gold.steps, solution.steps, annotate.BRIEF_GUIDELINES)
            example = _completion(tokenizer, encode_chat(tokenizer, messages), annotate.format_records(seen))
            yield _weighted_records(tokenizer, example, alignment_weight, verdict_weight)
        rng = random.Random(f"faults/{solution.id}")
        for messages, said in _verifications(task, problem, gold, solution, records, lessons, rng):
            example = _completion(tokenizer, encode_chat(tokenizer, messages), said)
            yield _weighted_verdicts(tokenizer, example, verdict_weight)


def hide(
    task: Task, problem: Problem, gold: Gold, records: Sequence[StepJudgement], rng: random.Random
) -> tuple[Problem, list[StepJudgement]]:
    """The problem with half of the sentences that its reference tells again hidden, and the records that no longer name
    these: what they say and their labels follow from the reference and the sentences that are left."""
    told = sorted({i for record in world_of(task).truth(problem, gold, gold.steps) for i in record.context})
    hidden = set(rng.sample(told, (len(told) + 1) // 2))
    context = tuple(HIDDEN if i in hidden else sentence for i, sentence in enumerate(problem.context, 1))
    seen = (tuple(i for i in record.context if i not in hidden) for record in records)
    return dataclasses.replace(problem, context=context), [
        dataclasses.replace(record, context=ids) for record, ids in zip(records, seen, strict=True)
    ]


def _verifications(
    task: Task,
    problem: Problem,
    gold: Gold,
    solution: Solution,
    records: Sequence[StepJudgement],
    lessons: Sequence[str],
    rng: random.Random,
) -> Iterator[tuple[list[Message], str]]:
    """What is asked of a verifier, and what it should say, in each of the `lessons` that verify."""
    steps = verify.from_judgement(records)
    right = is_correct(task, gold, solution) is True  # the answers of worlds are always decided
    whole = verify.format_verification(steps, right)
    free, guided = (
        verify.render(task, problem, solution.steps, verify.BRIEF_GUIDELINES, answers) for answers in ((), gold.answers)
    )
    if "verify" in lessons:
        yield free, whole
    if "verify_guided" in lessons:
        yield guided, whole
    if "critique" in lessons:
        faulty, faults = with_faults(steps, rng)
        said = verify.format_verification(faulty, right if faulty[-1].correct is steps[-1].correct else not right)
        asked = meta_critique.go_on(free, said, meta_critique.BRIEF_CRITIQUE)
        yield asked, faults
        yield meta_critique.go_on(asked, faults, meta_critique.BRIEF_MERGE), whole


def with_faults(
    steps: Sequence[verify.StepVerification], rng: random.Random
) -> tuple[list[verify.StepVerification], str]:
    """A verification with faults in FAULTY of its steps, and the critique that names them: errors that it misses
    because it takes what the step says for what is right, and false alarms."""
    faulty, faults = [], []
    for number, step in enumerate(steps, 1):
        if rng.random() >= FAULTY:
            faulty.append(step)
        elif step.correct:
            faulty.append(dataclasses.replace(step, correct=False))
            faults.append(f"Step {number}: a false alarm.")
        else:
            said = step.analysis.partition(", is ")[0]
            analysis = f"{said}, is so"
            faulty.append(dataclasses.replace(step, analysis=analysis, correct=True))
            faults.append(f"Step {number}: a missed error.")
    return faulty, "\n".join(faults) or "No fault."


def _weighted_records(
    tokenizer: PreTrainedTokenizerFast, example: Example, alignment: float, verdict: float
) -> Example:
    """`example` with the ids and the verdicts of its records weighted so. A JSON key is one token with the marks around
    it, so what is between two keys is a field's content."""
    weights, content = np.array(example.token_weights, np.float32), False
    key_of = _keys(tokenizer)
    for i in np.flatnonzero(weights).tolist():
        if key := key_of.get(int(example.ids[i])):
            content = key in ("context", "steps", "reference")
            weights[i] = verdict if key == "errors" else 1
        elif content:
            weights[i] = alignment
    return dataclasses.replace(example, token_weights=weights)


@functools.cache
def _keys(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """The tokens that hold a JSON key, each with its key."""
    pieces = ((token, decode(tokenizer, [token])) for token in range(len(tokenizer)))
    return {token: match[1] for token, piece in pieces if (match := re.search(r'"([a-z_]+)":', piece))}


def _weighted_verdicts(tokenizer: PreTrainedTokenizerFast, example: Example, verdict: float) -> Example:
    """`example` with the words of its verifications that are verdicts weighted so."""
    weights = np.array(example.token_weights, np.float32)
    pieces = [decode(tokenizer, [token]) for token in np.asarray(example.ids).tolist()]
    ends = np.cumsum([len(piece) for piece in pieces])
    for match in verify.VERDICTS.finditer("".join(pieces)):
        inside = (ends > match.start(1)) & (ends - [len(piece) for piece in pieces] < match.end(1))
        weights[inside & (weights > 0)] = verdict
    return dataclasses.replace(example, token_weights=weights)


def _completion(tokenizer: PreTrainedTokenizerFast, prompt: list[int], text: str) -> Example:
    ids = np.asarray([*prompt, *encode(tokenizer, text), tokenizer.eos_token_id], np.int32)
    return completion_example(ids, len(prompt))


# The stages of configs/tiny_models.py


def tokenizer(run: Run, tokenizer: TokenizerSettings) -> list[str]:
    """Train the tokenizer that all embedded models share."""
    built = build_tokenizer(run.task, tokenizer.vocab_size, tokenizer.lessons)
    built.save_pretrained(run.work.path / "tokenizer")
    return ["tokenizer/tokenizer.json"]


def base(run: Run, decoder: Shape, base: BaseTraining) -> list[str]:
    """Train tiny-base from random weights."""
    return _train_base(run, "base", decoder, base)


def other_base(run: Run, decoder: Shape, other_base: BaseTraining) -> list[str]:
    """Train the base whose solutions the teacher learns on: tiny-base's recipe from another seed."""
    return _train_base(run, "other_base", decoder, other_base)


def _train_base(run: Run, name: str, decoder: Shape, settings: BaseTraining) -> list[str]:
    words = huggingface.load_tokenizer(run.work.path / "tokenizer")
    shape = DecoderConfig(vocab_size=len(words), **vars(decoder))
    model = init_decoder(shape, jax.random.key(settings.seed))
    if settings.look_back:
        model = look_back(model, settings.look_back)

    def examples(seed: int, count: int, phase: SolvingPhase) -> list[Example]:
        distribution = distribution_of(run.task, phase)
        return list(solving_examples(run.task, words, seed, phase.split, count, distribution, phase.every_fact))

    def sets(phase: SolvingPhase) -> Sets:
        return examples(settings.seed, phase.problems, phase), examples(settings.seed + 1000, 300, phase)

    return _export(run, name, _in_phases(run, name, model, settings, sets), shape, words, settings)


Sets = tuple[list[Example], list[Example]]  # train and dev


def _in_phases(
    run: Run, name: str, model: Decoder, how: BaseTraining | TeacherTraining, sets: Callable[[Any], Sets]
) -> Decoder:
    """Train `model` in phases, one after another, each on the sets that are made for it."""
    for part, phase in sorted(how.phases.items()):
        rows = [batches.pack(examples, phase.row_length) for examples in sets(phase)]
        loss, config = losses.LanguageModelLoss(), dataclasses.replace(phase, seed=how.seed)
        model = fit.train(run, f"{name} {part}", run.work.path / name / part, config, model, loss, *rows).model
    return model


def look_back(model: Decoder, offsets: Sequence[int]) -> Decoder:
    """A new model whose first layer begins by looking back: head h attends to the token `offsets[h]` before its own.

    To retrieve by name, later layers must know what stood just before a token; learning to look there is what takes a
    small model longest (docs/embedded.md). Query and key read a direction that all embeddings are given in common: it
    adds the same to every logit of a tied head. With rotary embedding, a fixed key and the same vector turned back by
    the offset as the query match best at that distance. All of it is trained on like any other weight.

    Raises ValueError unless there is one offset per head.
    """
    model = jax.tree.map(lambda leaf: leaf, model)  # the caller's keeps its weights
    config, attention = model.config, model.blocks.attention
    if len(offsets) != config.num_heads:
        raise ValueError(f"look_back has {len(offsets)} offsets for {config.num_heads} heads: give one per head")
    hidden, half = config.hidden_size, config.head_dim // 2
    common = np.full(hidden, hidden**-0.5)
    # Embeddings have unit length before `common` is added, so its share of a normed state is sqrt(hidden / 2).
    gain = LOOK_BACK_SHARPNESS / (hidden / 2) ** 0.5
    frequencies = rotary_frequencies(config)
    fast = 1.0 * (np.arange(half) < LOOK_BACK_FREQUENCIES)  # the others turn too little from token to token

    def turned(offset: int) -> np.ndarray:
        return np.concatenate([fast * np.cos(frequencies * offset), -fast * np.sin(frequencies * offset)])

    def first_layer(kernel, heads: list[np.ndarray]) -> np.ndarray:
        whole = np.array(kernel[...])
        whole[0] = LOOK_BACK_CONTENT * whole[0] + gain * np.outer(common, np.concatenate(heads))
        return whole

    query = first_layer(attention.query.kernel, [turned(offset) for offset in offsets])
    key = first_layer(attention.key.kernel, [turned(0)] * config.num_kv_heads)
    model.embed[...] = model.embed[...] + jnp.asarray(common, jnp.float32)
    attention.query.kernel[...], attention.key.kernel[...] = jnp.asarray(query), jnp.asarray(key)
    return model


def distribution_of(task: Task, phase: SolvingPhase) -> Distribution:
    """What a phase of training draws its problems from."""
    train = world_of(task).train
    return dataclasses.replace(train, lengths=phase.lengths, max_distractors=phase.max_distractors)


def candidates(run: Run, candidates: Candidates, engine: EngineSettings) -> list[str]:
    """Draw problems, and sample a base, by default the other one, on them: the mistakes that a judge learns to find.

    A third of the problems are begun by `begin`, the others are solved from nothing. Where the config names no base
    there are problems and no solutions.
    """
    settings, world = candidates, world_of(run.task)
    distribution = dataclasses.replace(world.train, lengths=settings.lengths)
    drawn = list(world.generate(settings.seed, "grading", settings.problems, distribution))
    run.work.write("problems", (problem for problem, _ in drawn))
    run.work.write("gold", (gold for _, gold in drawn))
    if not settings.base:
        run.work.write("solutions", ())
        return ["problems.jsonl", "gold.jsonl", "solutions.jsonl"]
    checkpoint = huggingface.load(run.work.path / "models" / settings.base, mesh=run.inference_mesh)
    rng, begun = random.Random(f"begun/{settings.seed}"), {}
    for index, (problem, gold) in enumerate(drawn):
        if index % 3 == 0:
            text = begin(world.another_solution(problem, gold, rng), world.work_begins, rng)
            begun[problem.id] = encode(checkpoint.tokenizer, text)
    solving.solve(run, "candidates", checkpoint, [problem for problem, _ in drawn], engine, settings, begun)
    return ["problems.jsonl", "gold.jsonl", "solutions.jsonl"]


def begin(steps: Sequence[str], mark: str, rng: random.Random) -> str:
    """The beginning of a solution that a policy goes on from: some of the right `steps`, and then a later one up to
    its first `mark`, not the next one where there is another.

    Mistakes come late then too, and what the step rests on has often not been said, so that the policy guesses a
    count. A judge that works a count out by itself instead of reading it in the step does not see such mistakes.
    """
    right = rng.randrange(len(steps) - 1)
    later = steps[right + 1 : -1] or steps[right:-1]
    return "".join(f"{step}\n" for step in steps[:right]) + rng.choice(later).partition(mark)[0] + mark


def teacher(run: Run, teacher: TeacherTraining, candidates: Drawn) -> list[str]:
    """Train tiny-base, or the model that the config names as the start, further into tiny-teacher: on the world's
    verdicts on the candidates, and on solutions that the world makes (`made_solutions`).

    Of a phase's lessons at most `right_share` are solutions without an error.
    """
    settings, task, world = teacher, run.task, world_of(run.task)
    path = assets.resolve(settings.start) if settings.start else run.work.path / "models" / "base"
    start = huggingface.load(path, mesh=run.inference_mesh)
    problems, by_id, gold, found = run.records()
    seed = candidates.seed
    made = {p.id: list(made_solutions(task, p, gold[p.id], settings.phases.values(), seed)) for p in problems}
    held_back = {p.id for p in problems[-settings.dev_problems :]}
    everything = [*found, *(solution for of_problem in made.values() for _, _, solution in of_problem)]
    right = {
        s.id for s in everything if all(r.label for r in world.truth(by_id[s.problem_id], gold[s.problem_id], s.steps))
    }

    def sets(phase: GradingPhase) -> Sets:
        of_world = [s for of_problem in made.values() for kind, k, s in of_problem if k < phase.made(kind)]
        of_phase = [s for s in [*found, *of_world] if len(gold[s.problem_id].steps) - 1 in phase.lengths]
        of_phase = _with_right_share(of_phase, right, phase.right_share, random.Random(f"right/{seed}"))

        def examples(held: bool) -> list[Example]:
            chosen = (s for s in of_phase if (s.problem_id in held_back) == held)
            graded = ((by_id[s.problem_id], gold[s.problem_id], s) for s in chosen)
            weights = phase.alignment_weight, phase.verdict_weight, phase.hidden_share
            return list(grading_examples(task, start.tokenizer, graded, *weights, phase.lessons))

        return examples(held=False), examples(held=True)

    model = _in_phases(run, "teacher", start.model, settings, sets)
    return _export(run, "teacher", model, start.config, start.tokenizer, settings)


_MADE = ("reference", "right", "mistaken")


def made_solutions(
    task: Task, problem: Problem, gold: Gold, phases: Iterable[GradingPhase], seed: int
) -> Iterator[tuple[str, int, Solution]]:
    """Solutions that the world itself makes, as many of each kind as the phase that wants most of them: (kind, number,
    solution). "reference" is the reference's own text, "right" another right solution, "mistaken" one with mistakes."""
    world = world_of(task)
    makers = {
        "reference": lambda problem, gold, rng: gold.steps,
        "right": world.another_solution,
        "mistaken": world.mistaken_solution,
    }
    for kind in _MADE:
        for k in range(max(phase.made(kind) for phase in phases)):
            if (make := makers[kind]) is None:
                raise ValueError(f"the {world.name} world makes no {kind} solutions: leave {kind}_solutions out")
            steps = tuple(make(problem, gold, random.Random(f"{kind}/{seed}/{problem.id}/{k}")))
            yield kind, k, Solution(f"{problem.id}/{kind}{k}", problem.id, steps, task.extract_answer(steps), "stop")


def _with_right_share(found: list[Solution], right: set[str], share: float, rng: random.Random) -> list[Solution]:
    """`found` without so many of those in `right`, drawn by chance, that these are at most `share` of what is left."""
    of_right = [s.id for s in found if s.id in right]
    kept = len(of_right) if share == 1 else int(share / (1 - share) * (len(found) - len(of_right)))
    dropped = set(rng.sample(of_right, max(0, len(of_right) - kept)))
    return [s for s in found if s.id not in dropped]


def _export(
    run: Run,
    name: str,
    model: Decoder,
    shape: DecoderConfig,
    words: PreTrainedTokenizerFast,
    how: BaseTraining | TeacherTraining,
) -> list[str]:
    """Write the model's directory, with a manifest of what it was trained on."""
    settings = json.loads(json.dumps(listed(how), sort_keys=True))
    manifest = {"made_by": "configs/tiny_models.py", "stage": name, **settings}
    huggingface.save(run.work.path / "models" / name, model, shape, words, {"training.json": manifest})
    return [f"models/{name}"]


STAGES = {
    "tokenizer": Stage(tokenizer),
    "base": Stage(base, ("tokenizer",)),
    "other_base": Stage(other_base, ("tokenizer",)),
    "candidates": Stage(candidates, reads=("models/base", "models/other_base")),
    "teacher": Stage(teacher, ("problems.jsonl", "gold.jsonl", "solutions.jsonl"), reads=("models/base",)),
}

PIPELINE = STAGES
