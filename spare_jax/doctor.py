"""Examines a model directory before hours are spent on it: what it is, and whether a reward model will be read right.

    python -m spare_jax.doctor --model=DIR [--convention=NAME] [--data=FILE.jsonl] [--max_length=N]

It prints the family, the size, the end-of-text tokens, the lengths of the real prompts in the chat template, the head,
the convention, and how the step tag is tokenised. It scores a solution and checks that there is one score per step and
that solutions fit the context; the solutions are those of FILE, in the format `plain` of docs/formats.md, or two of its
own. If something is wrong it prints what to do and exits with status 1; if the directory cannot be read, that is one
line.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from absl import app, flags, logging

from spare_jax import assets
from spare_jax.formats import files
from spare_jax.judges import conventions
from spare_jax.judges.conventions import (
    AnyConvention,
    Convention,
    GenerativeConvention,
    LaidOut,
    Reader,
    TokenTagConvention,
)
from spare_jax.models import huggingface
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import hidden_states, init_decoder, logits
from spare_jax.models.heads import ReadOut, step_scores
from spare_jax.models.huggingface import Checkpoint
from spare_jax.models.json_files import ModelError
from spare_jax.prompts import annotate, solve, verify
from spare_jax.prompts.chat import arrangement, encode_chat, end_ids
from spare_jax.prompts.generative import verdict_tokens
from spare_jax.prompts.templates import DATE, ChatTemplateError
from spare_jax.records import Problem, Solution
from spare_jax.tasks import gsm8k
from spare_jax.tasks.answers import MathVerifier
from spare_jax.tasks.task import Task

_MODEL = flags.DEFINE_string("model", None, "Model directory, embedded model, or hub id.")
_CONVENTION = flags.DEFINE_string("convention", "", "How the reward model is read, if its directory does not say.")
_DATA = flags.DEFINE_string("data", "", "Solutions to try it on: id, question, solution per line.")
_MAX_LENGTH = flags.DEFINE_integer("max_length", 4096, "Context in tokens that scoring will be given.")

SAMPLES = 20  # solutions that are laid out; the first of them is scored
LARGE = 10**9  # a model of so many parameters or more is loaded in bfloat16

# A problem with two solutions of our own; the steps of one hold texts of tags, as a model's output may.
_QUESTION = "Ada has 5 apples and buys 3. How many does she have?"
_STEPS = (("She begins with 5.", "5 + 3 = 8.", "The answer is 8."), ("A ки step with <extra_0> in it.", "+", "-\n\n8"))


@dataclasses.dataclass
class Report:
    """The lines to print, and the problems, each with what to do."""

    lines: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def say(self, name: str, text: str) -> None:
        """Add a line with a name in front."""
        self.lines.append(f"{name:<12}{text}")


def examine(model: str, convention: str = "", data: str = "", max_length: int = 4096) -> Report:
    """Examine a model directory, an embedded model or a hub id; arguments are those of the command line.

    The report of a directory that cannot be read, since its config or a tensor is missing, has no lines and one
    problem.
    """
    report = Report()
    try:
        checkpoint = _load(model)
        _describe(report, checkpoint)
    except ModelError as error:
        return Report(problems=[str(error)])
    try:
        _examine(report, checkpoint, convention, data, max_length)
    except ValueError as error:  # each is a sentence that says what to do
        report.problems.append(str(error))
    return report


def _load(model: str) -> Checkpoint:
    directory = huggingface.local_directory(assets.resolve(model))
    large = _parameters(huggingface.load_config(directory)) >= LARGE
    return huggingface.load(directory, dtype=jnp.bfloat16 if large else jnp.float32)


def _describe(report: Report, checkpoint: Checkpoint) -> None:
    """Report the size, tokenizer, prompts and head."""
    report.say("model", str(checkpoint.path))
    for line in _size(checkpoint.config):
        report.say(*line)
    tokenizer = checkpoint.tokenizer
    template = "with a chat template" if tokenizer.chat_template else "without a chat template: prompts are plain lines"
    report.say("tokenizer", f"{len(tokenizer):,} tokens, {template}")
    names = ", ".join(f"{i} {tokenizer.decode([i])!r}" for i in end_ids(tokenizer))
    report.say("end", f"a text ends at {names}" if names else "nothing ends a text but its limit")
    _prompts(report, tokenizer)
    kind = huggingface.head_kind(checkpoint.path)
    tied = huggingface.load_config(checkpoint.path).tie_embeddings and not checkpoint.config.tie_embeddings
    other = ", that of the weights: config.json says tie_word_embeddings, and they hold another" if tied else ""
    report.say("head", (kind or "language model") + other)


def _prompts(report: Report, tokenizer: Any) -> None:
    """Report what the chat template makes of a run's prompts, and what it loses."""
    if tokenizer.chat_template is None:
        return
    task, problem, steps = _task(), Problem("p", _QUESTION), _STEPS[0]
    exemplars = task.exemplars()[:1]
    prompts = {
        "solve": solve.render(task, problem),
        "annotate": annotate.render(task, problem, steps, steps, task.guidelines, exemplars),
        "verify": verify.render(task, problem, steps, verify.GUIDELINES),
    }
    lengths = []
    for name, messages in prompts.items():
        try:
            lengths.append(f"{name} {len(encode_chat(tokenizer, messages)):,}")
            way = arrangement(tokenizer, [message["role"] for message in messages])
        except ChatTemplateError as error:
            report.problems.append(f"the prompt of {name}: {error}")
            continue
        if way.system_in_user:
            report.say("", f"{name}: the template takes no system message; its text begins the user's turn")
        if way.parts:
            report.say("", f"{name}: the template takes contents as lists of parts ({', '.join(way.parts)})")
        if way.lost:
            report.problems.append(
                f"the prompt of {name}: the chat template loses what the {way.lost[0]} says: replace it"
            )
    report.say("prompts", f"{', '.join(lengths)} tokens" if lengths else "none can be rendered")
    if any(name in tokenizer.chat_template for name in ("strftime_now", "date_string")):
        report.say("date", f"the template asks for today's date: it is always {DATE}")


def _examine(report: Report, checkpoint: Checkpoint, name: str, data: str, max_length: int) -> None:
    """Report the convention, the tags, and scores of solutions; `name` is that of the convention, or empty."""
    directory, config, tokenizer = checkpoint.path, checkpoint.config, checkpoint.tokenizer
    convention = _convention(report, directory, name, tokenizer, huggingface.head_kind(directory))
    if isinstance(convention, GenerativeConvention):
        _verdicts(report, convention, tokenizer)
        return
    reader = _reader(convention, tokenizer)
    _tokens(report, convention, reader, tokenizer)
    if reader.lay_out is None:
        report.say("steps", "scored by several requests each, or by what the model writes: not tried here")
        return
    solutions = list(_solutions(data))
    layouts = [reader.lay_out(problem, solution) for problem, solution in solutions]
    lengths = _positions(report, layouts, [solution for _, solution in solutions], max_length)
    context = min(max_length, config.max_length)
    if (longest := max(lengths, default=0)) > context:
        over = sum(length > context for length in lengths)
        report.problems.append(
            f"{over} of {len(lengths)} solutions are longer than the context of {context} tokens (the longest has "
            f"{longest}): their last steps get no score; raise config.engine.max_length, or shorten them"
        )
    _scores(report, checkpoint, reader.read_out, layouts[0], context)


def _parameters(config: DecoderConfig) -> int:
    shapes = jax.eval_shape(lambda key: init_decoder(config, key), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def _size(config: DecoderConfig) -> Iterator[tuple[str, str]]:
    count = _parameters(config)
    heads = f"{config.num_heads} heads of {config.head_dim} ({config.num_kv_heads} key-value)"
    yield "family", f"{config.family}: {config.num_layers} layers, hidden {config.hidden_size}, {heads}"
    yield (
        "context",
        f"{config.max_length:,} tokens" + (f", windows of {config.sliding_window}" if config.sliding_window else ""),
    )
    yield "parameters", f"{count:,}"
    sizes = ((4, "float32"), (2, "bfloat16"), (16, "to train in float32 (weights, gradients, two moments)"))
    yield "memory", ", ".join(f"{count * size / 2**20:,.1f} MiB {name}" for size, name in sizes)


def _convention(report: Report, directory: Any, name: str, tokenizer: Any, kind: str | None) -> AnyConvention:
    """The directory's convention; for a language model without one, that which training would give it."""
    if not name and kind is None and not (directory / conventions.CONVENTION_FILE).is_file():
        report.say("convention", "none: no reward model yet; below, what training would use")
        return conventions.choose_convention(tokenizer, ("<extra_0>",), "last")
    c = conventions.of_model(directory, name)
    if isinstance(c, TokenTagConvention):
        ids = [conventions.single_id(tokenizer, c.tag), *(_id(tokenizer, label) for label in ("+", "-"))]
        if [c.tag_id, c.good_id, c.bad_id] != ids:
            report.problems.append(
                f"{directory / conventions.CONVENTION_FILE} names ids {c.tag_id}, {c.good_id}, {c.bad_id} "
                f"for {c.tag!r}, '+', '-' and the tokenizer has {ids}: use the tokenizer the model was trained with"
            )
        report.say("convention", f"spare_jax (its own file), aggregation {c.aggregation}")
    elif isinstance(c, GenerativeConvention):
        report.say("convention", f"spare_jax (its own file), generative: it writes {c.kind}")
    else:
        report.say("convention", f"{c.source}; aggregation {c.aggregation}, threshold {c.threshold}")
    return c


def _id(tokenizer: Any, text: str) -> int | None:
    try:
        return conventions.token_id(tokenizer, text)
    except conventions.ModelError:
        return None


def _reader(convention: TokenTagConvention | Convention, tokenizer: Any) -> Reader:
    if isinstance(convention, TokenTagConvention):
        return convention.reader(tokenizer, _task(), huggingface.tokenizer_digest(tokenizer))
    return convention.reader(tokenizer)


def _task() -> Task:
    return gsm8k.task(MathVerifier())


def _tokens(report: Report, convention: AnyConvention, reader: Reader, tokenizer: Any) -> None:
    """Report how the tag is tokenised, alone and in text, and the tokens of the labels."""
    if isinstance(convention, TokenTagConvention):
        tag = convention.tag
        texts = (tag, tag.strip(), f"8.{tag}\n")
        ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in texts}
        shown = ", ".join(f"{text!r} -> {_cut(value)}" for text, value in ids.items())
        report.say("tag", shown)
        if convention.tag_id not in ids[f"8.{tag}\n"]:
            report.say("", "in text the tag is another token: ids are joined here, so this does no harm")
    if reader.read_out.columns:
        names = ", ".join(f"{i} {tokenizer.decode([i])!r}" for i in reader.read_out.columns)
        report.say("labels", f"wrong and right: {names}")


def _verdicts(report: Report, convention: GenerativeConvention, tokenizer: Any) -> None:
    """Report the two tokens whose probabilities are compared, for a verdict on a step and on the answer."""
    for name, tokens in zip(("steps", "answer"), verdict_tokens(tokenizer, convention.kind), strict=True):
        if tokens:
            names = ", ".join(f"{i} {tokenizer.decode([i])!r}" for i in (tokens.wrong, tokens.right))
            report.say(name, f"verdicts, wrong and right, begin with {names}")


def _cut(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 6 else f"{len(ids)} ids"


def _solutions(data: str) -> Iterator[tuple[Problem, Solution]]:
    if data:
        for number, item in enumerate(files.read(data, "plain")):
            if number == SAMPLES:
                return
            yield item.problem, item.solution
        return
    for number, steps in enumerate(_STEPS):
        yield Problem("p", _QUESTION), Solution(f"p/{number}", "p", steps, None, "stop")


def _positions(report: Report, layouts: Sequence[LaidOut], solutions: Sequence[Solution], max_length: int) -> list[int]:
    """Report whether there is one position per step; returns the solutions' lengths in tokens."""
    lengths, wrong = [], []
    for (_, positions), solution in zip(layouts, solutions, strict=True):
        lengths.append(positions[-1] + 1 if positions else 0)
        if len(positions) != len(solution.steps) or positions != sorted(set(positions)):
            wrong.append(solution.id)
    steps = sum(len(solution.steps) for solution in solutions)
    report.say("steps", f"{len(solutions)} solutions, {steps} steps, {steps if not wrong else 'fewer'} scores")
    report.say("lengths", f"{min(lengths)} to {max(lengths)} tokens, the context is {max_length}")
    if wrong:
        report.problems.append(f"solution {wrong[0]!r} has another number of scores than steps: look at its steps")
    return lengths


def _scores(report: Report, checkpoint: Checkpoint, read_out: ReadOut, layout: LaidOut, context: int) -> None:
    """Report the scores of one solution, and the share of the whole vocabulary's probability that the labels have."""
    ids, positions = layout
    positions = [position for position in positions if position < context]
    if not positions:
        return
    row = jnp.asarray([ids[: positions[-1] + 1]])
    places = jnp.broadcast_to(jnp.arange(row.shape[1]), row.shape)
    hidden = hidden_states(checkpoint.model, row, places, jnp.ones_like(row))
    scores = step_scores(checkpoint.model, checkpoint.head, hidden, jnp.asarray([positions]), read_out)[0]
    report.say("scores", " ".join(f"{score:.4f}" for score in scores.tolist()))
    if not bool(jnp.isfinite(scores).all()):
        report.problems.append("a score is not finite: the weights hold NaN or infinity, copy the model again")
    if read_out.columns:
        everywhere = jax.nn.softmax(logits(checkpoint.model, hidden[0, jnp.asarray(positions)]), axis=-1)
        mass = everywhere[:, jnp.asarray(read_out.columns)].sum(-1)
        report.say("vocabulary", f"the labels hold {float(mass.min()):.1%} to {float(mass.max()):.1%} of the softmax")


def main(argv: list[str]) -> None:
    """Print the report; exit status 1 if anything is wrong."""
    if len(argv) > 1 or not _MODEL.value:
        sys.exit("error: name a model: python -m spare_jax.doctor --model=DIR [--convention=NAME] [--data=FILE]")
    logging.set_verbosity(logging.WARNING)
    transformers.logging.set_verbosity_error()  # its warnings about a directory repeat what is reported here
    report = examine(_MODEL.value, _CONVENTION.value, _DATA.value, _MAX_LENGTH.value)
    if not report.lines:
        sys.exit(f"error: {report.problems[0]}")
    print("\n".join(report.lines))
    for problem in report.problems:
        print(f"problem: {problem}")
    if report.problems:
        sys.exit(1)
    print("nothing is wrong")


if __name__ == "__main__":
    app.run(main)
