"""How reward models are read: the ids of a solution, the positions of its step scores, the read-out.

Released reward models differ in whether a step's score is read at a tag or before it, from which ids, and by which
activation; a wrong guess gives plausible, worse scores without any error. A convention says all of it once, and
`of_model` finds the one of a model directory. Ids are joined, not strings, wherever the model was trained on the same
ids: then a step that holds the text of a tag is not mistaken for one. Conventions of released models read the plain
question and the texts of the steps.

Most models score a solution in one forward pass and have a layout (`lay_out`). Others take several requests, one per
step or a critique that the model writes first, and have a program. Our own generative reward models have a judge of
their own (judges/generative.py); their convention says what they write. Not supported are models that also need a
policy's log-probabilities (EurusPRM), and PathFinder.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from spare_jax.judges.critiques import gen_prm, think_prm
from spare_jax.judges.reward_model import LayOut, RewardModelSettings, prefix_scores, scores
from spare_jax.models.heads import ReadOut
from spare_jax.models.huggingface import architecture_of, head_kind
from spare_jax.models.json_files import ModelError, read_json, shown, write_json
from spare_jax.programs import Program
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.prompts.critiques import GEN_ANSWERS, THINK_ANSWERS
from spare_jax.prompts.generative import GUIDELINES, KINDS
from spare_jax.prompts.solve import orm_ids, prm_ids, solution_ids
from spare_jax.records import Problem, Solution
from spare_jax.tasks.task import Task

CONVENTION_FILE = "prm_convention.json"
PREFERRED_STEP_TAG = " ки"  # the published tag: rare in text, and one token of the Llama tokenizers

LaidOut = tuple[list[int], list[int]]  # ids, and the position in them of each step's score


@dataclasses.dataclass(frozen=True)
class Reader:
    """A convention bound to a tokenizer: what is needed to score solutions.

    Attributes:
      program: (problem, solution, settings, reference=()) -> the program that scores the solution; one convention reads
        the reference, a sequence of steps.
      read_out: how the score at a position is computed.
      aggregation: how step scores become a solution's score (selection/aggregate.py).
      threshold: the score from which on a step counts as right, unless another has been chosen.
      lay_out: the ids of a solution and one position per step; None if one forward pass is not enough.
    """

    program: Callable[..., Program]
    read_out: ReadOut
    aggregation: str
    threshold: float
    lay_out: LayOut | None = None

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of an answer that the engine must have room for: 1 if nothing is written, else None for any."""
        return 1 if self.lay_out else None


def _by_layout(lay_out: LayOut, read_out: ReadOut, aggregation: str, threshold: float) -> Reader:
    """The Reader that scores a solution in one forward pass, and does not look at the reference."""

    def program(
        problem: Problem, solution: Solution, settings: RewardModelSettings, reference: Sequence[str] = ()
    ) -> Program:
        return scores(lay_out, problem, solution, settings)

    return Reader(program, read_out, aggregation, threshold, lay_out)


@dataclasses.dataclass(frozen=True)
class TokenTagConvention:
    """Of our own reward models, as in SPARE (arXiv 2506.15498): the prompt of solving, then per step its sampled ids,
    the tag and a newline. The score is read AT the tag, as softmax over the ids of the two labels. It is a file in the
    model directory."""

    tag: str
    tag_id: int
    good_id: int
    bad_id: int
    aggregation: str

    @property
    def read_out(self) -> ReadOut:
        """The softmax over the two labels."""
        return ReadOut((self.bad_id, self.good_id))

    def reader(self, tokenizer: Any, task: Task, digest: str, whole: bool = False) -> Reader:
        """Bound to the tokenizer with this digest. With `whole` there is one score, at the solution's end: an outcome
        reward model's."""
        ids_of = orm_ids if whole else prm_ids

        def lay_out(problem: Problem, solution: Solution) -> LaidOut:
            return ids_of(tokenizer, task, problem, solution_ids(tokenizer, solution, digest), self.tag_id)

        return _by_layout(lay_out, self.read_out, self.aggregation, 0.5)


@dataclasses.dataclass(frozen=True)
class Convention:
    """Of a released reward model.

    Attributes:
      read_out: of a tokenizer. Raises ModelError if the tokenizer lacks a token; so does `lay_out`.
      head: a key of heads.HEADS; None if tokens of the LM head are read.
      source: where the convention was found.
      lay_out: (tokenizer, question, steps) -> the ids, and one position per step.
      program: for a model that has no layout, (tokenizer, problem, solution, settings, reference=()) -> the program.
    """

    read_out: Callable[[Any], ReadOut]
    head: str | None
    aggregation: str
    threshold: float
    source: str
    lay_out: Callable[[Any, str, Sequence[str]], LaidOut] | None = None
    program: Callable[..., Program] | None = None

    def reader(self, tokenizer: Any) -> Reader:
        """Bound to a tokenizer. Raises ModelError if that lacks a token."""
        read_out = self.read_out(tokenizer)
        if self.program is not None:
            program = functools.partial(self.program, tokenizer)
            return Reader(program, read_out, self.aggregation, self.threshold)
        lay_out_texts = self.lay_out
        assert lay_out_texts is not None, "a convention has a layout or a program"
        lay_out_texts(tokenizer, "Q", ["a"])  # a missing token is told before anything runs

        def lay_out(problem: Problem, solution: Solution) -> LaidOut:
            ids, positions = lay_out_texts(tokenizer, _question(problem), solution.steps)
            assert len(positions) == len(solution.steps)
            return ids, positions

        return _by_layout(lay_out, read_out, self.aggregation, self.threshold)


@dataclasses.dataclass(frozen=True)
class GenerativeConvention:
    """Of our own generative reward models: the kind of text that they write (prompts/generative.py) and the system
    message that asks for it, as in training. It is a file in the model directory.

    Raises:
      ValueError: `kind` is unknown.
    """

    kind: str
    guidelines: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is unknown: choose among {', '.join(KINDS)}")


AnyConvention = TokenTagConvention | Convention | GenerativeConvention


# Layouts


def _tagged(
    prompt: Callable[[Any, str], list[int]], tag: str, behind: str = ""
) -> Callable[[Any, str, Sequence[str]], LaidOut]:
    """The layout of a prompt's ids, then per step its ids, the tag, and the ids of `behind`; read AT the tag."""

    def lay_out(tokenizer: Any, question: str, steps: Sequence[str]) -> LaidOut:
        ids, positions = prompt(tokenizer, question), []
        tag_id, after = token_id(tokenizer, tag), encode(tokenizer, behind) if behind else []
        for step in steps:
            ids += encode(tokenizer, step)
            positions.append(len(ids))
            ids += [tag_id, *after]
        return ids, positions

    return lay_out


def _separated(tokenizer: Any, question: str, steps: Sequence[str]) -> LaidOut:
    """TRL's layout: beginning of sequence, question, and per step its ids and a newline's; read AT the last of
    these."""
    ids, positions = [*_start(tokenizer), *encode(tokenizer, question)], []
    for step in steps:
        ids += [*encode(tokenizer, step), *encode(tokenizer, "\n")]
        positions.append(len(ids) - 1)
    return ids, positions


def _tagged_text(tag: str, encoded: str, behind: str = "") -> Callable[[Any, str, Sequence[str]], LaidOut]:
    """The layout of the question, a blank, and per step its text, the tag and `behind`, encoded as one string; read AT
    the tag, whose token is the one that `encoded` encodes to. Tags are found by the offsets of their characters, so a
    step may hold the same characters."""

    def lay_out(tokenizer: Any, question: str, steps: Sequence[str]) -> LaidOut:
        text, ends = f"{question} ", []
        for step in steps:
            text += step + tag
            ends.append(len(text))
            text += behind
        encoding = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True)
        ids, spans, tag_id = list(encoding["input_ids"]), encoding["offset_mapping"], encoded_id(tokenizer, encoded)
        at = {end: i for i, ((_, end), one) in enumerate(zip(spans, ids, strict=True)) if one == tag_id}
        if missing := [end for end in ends if end not in at]:
            number = ends.index(missing[0]) + 1
            raise ModelError(
                f"the tag {tag!r} behind step {number} is no token of its own there: change the step's end"
            )
        return ids, [at[end] for end in ends]

    return lay_out


def _turns(tokenizer: Any, question: str, steps: Sequence[str]) -> LaidOut:
    """The layout of a conversation: the user sends the question with the first step, then each next step, and the
    assistant answers "+" every time; read BEFORE the "+", at the last token of the generation prompt."""
    messages, positions = [], []
    for number, step in enumerate(steps):
        messages.append({"role": "user", "content": step if number else f"{question} {step}"})
        positions.append(len(encode_chat(tokenizer, messages)) - 1)
        messages.append({"role": "assistant", "content": "+"})
    ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
    plus = encoded_id(tokenizer, "+")
    if any(ids[position + 1] != plus for position in positions):
        raise ModelError(
            'the chat template puts no "+" behind its generation prompt: use the tokenizer the model was made with'
        )
    return ids, positions


def _step_ends(back: int) -> Callable[[Any, str, Sequence[str]], LaidOut]:
    """The layout of ReasonEval's prompt and the steps; read AT the token `back` places before the last of each step.

    A step is encoded behind a padding token, which is then removed: at the start of a text some tokenizers would insert
    a blank.
    """

    def lay_out(tokenizer: Any, question: str, steps: Sequence[str]) -> LaidOut:
        prompt = f"Question:\n{question}\nAnswer:\nLet's think step by step.\n"
        ids, positions = [*_start(tokenizer), *encode(tokenizer, prompt)], []
        if tokenizer.pad_token is None:
            raise ModelError("the tokenizer has no padding token: use the tokenizer that the model was made with")
        for step in steps:
            behind = tokenizer(tokenizer.pad_token + step, add_special_tokens=False)["input_ids"]
            ids += [token for token in behind if token != tokenizer.pad_token_id]
            positions.append(len(ids) - 1 - back)
        return ids, positions

    return lay_out


def _question(problem: Problem) -> str:
    return "\n".join((*problem.context, problem.question))


def _start(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence id, if the tokenizer has one."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def _chat(system: str, begun: str = "") -> Callable[[Any, str], list[int]]:
    """A prompt of system message and question in the chat template, with the first words of the answer."""

    def prompt(tokenizer: Any, question: str) -> list[int]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        return encode_chat(tokenizer, messages) + (encode(tokenizer, begun) if begun else [])

    return prompt


def _plain(begin: bool, behind: str = "") -> Callable[[Any, str], list[int]]:
    """A prompt of the question and `behind`, with `begin` after the beginning-of-sequence token if there is one."""
    return lambda tokenizer, question: [
        *(_start(tokenizer) if begin else []),
        *encode(tokenizer, question + behind),
    ]


def _named(wrong: str, right: str) -> Callable[[Any], ReadOut]:
    """The read-out by softmax over the LM head's logits of two tokens, by their names in the vocabulary."""
    return lambda tokenizer: ReadOut((token_id(tokenizer, wrong), token_id(tokenizer, right)))


def _encoded(wrong: str, right: str) -> Callable[[Any], ReadOut]:
    """The read-out by softmax over the tokens that two texts encode to. With sentencepiece these differ from the tokens
    of that name, because it puts a blank before a text."""
    return lambda tokenizer: ReadOut((encoded_id(tokenizer, wrong), encoded_id(tokenizer, right)))


# Programs


def _universal(
    tokenizer: Any, problem: Problem, solution: Solution, settings: RewardModelSettings, reference: Sequence[str] = ()
) -> Program:
    """Universal-PRM: a request per step, with question, reference, the steps up to this one and the end of sequence."""
    known = "\n".join(reference) or "There is no reference answer for this question."
    question = _question(problem) + f"\n\n###\n\nThe reference answer is: {known}"
    prompt = _chat("You are a helpful assistant.")(tokenizer, question)
    ends = [tokenizer.eos_token_id]
    steps = solution.steps
    answers = [[*encode(tokenizer, "\n\n".join(steps[:k]) + "\n\n"), *ends] for k in range(1, len(steps) + 1)]
    return prefix_scores(prompt, answers, solution, settings)


def _without_reference(program: Callable[..., Program]) -> Callable[..., Program]:
    return lambda tokenizer, problem, solution, settings, _=(): program(tokenizer, problem, solution, settings)


# The model cards of the SPARE models ask for this system message, word for word.
SPARE_MATH = (
    "You are an expert at solving challenging math problems spanning across various categories and difficulties such "
    "as Algebra, Number Theory, Geometry, Counting and Probability, Precalculus etc. For a given math problem, your "
    "task is to generate a step-by-step reasoning-based solution providing an answer to the question. Identify the "
    "correct concepts, formulas and heuristics that needs to be applied and then derive the contents of the reasoning "
    "steps from the given contexts and accurate calculations from the previous reasoning steps."
)
_QWEN_MATH = "Please reason step by step, and put your final answer within \\boxed{}."

PUBLISHED: dict[str, Convention] = {
    "spare": Convention(
        _named("-", "+"), None, "last", 0.5, "cards of UKPLab/Llama-3-8b-spare-prm-math and Qwen2.5-3b-spare-prm-math",
        _tagged(_chat(SPARE_MATH, "Let's think step by step.\n"), " ки", "\n"),
    ),
    "math_shepherd": Convention(
        _encoded("-", "+"), None, "min", 0.5, "peiyi9979/math-shepherd-mistral-7b-prm", _tagged_text(" ки", "ки", "\n"),
    ),
    "math_psa": Convention(
        _encoded(" -", " +"), None, "min", 0.5, "OpenR's math-psa", _tagged_text(" \n\n\n\n\n", " \n\n\n\n\n"),
    ),
    "rlhflow": Convention(_encoded("-", "+"), None, "mean", 0.5, "RLHFlow/Llama3.1-8B-PRM-*-Data", _turns),
    "qwen_math_prm": Convention(
        lambda _: ReadOut(), "two_layers", "product", 0.5, "card of Qwen/Qwen2.5-Math-PRM-7B",
        _tagged(_chat(_QWEN_MATH), "<extra_0>"),
    ),
    "skywork": Convention(
        lambda _: ReadOut(activation="sigmoid"), "value", "mean", 0.5, "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-*",
        _tagged(_plain(True, "\n"), "\n"),
    ),
    "pure": Convention(
        lambda _: ReadOut(activation="difference"), "classifier", "min", 0.0, "card of jinachris/PURE-PRM-7B",
        _tagged(_plain(False), "\n\n"),
    ),
    "trl": Convention(lambda _: ReadOut(), "classifier", "last", 0.5, "TRL 1.13.0's PRMTrainer", _separated),
    # Its published code counts the beginning of the sequence as a separator and so reads one token early.
    "reason_eval_7b": Convention(
        lambda _: ReadOut(right=(1, 2)), "reason_eval", "min", 0.5, "GAIR/ReasonEval-7B", _step_ends(1),
    ),
    "reason_eval_34b": Convention(
        lambda _: ReadOut(right=(1, 2)), "reason_eval", "min", 0.5, "GAIR/ReasonEval-34B", _step_ends(0),
    ),
    "universal_prm": Convention(
        lambda _: ReadOut(activation="sigmoid"), "two_layers", "min", 0.5, "card of infly/Universal-PRM-7B",
        program=_universal,
    ),
    "think_prm": Convention(
        _encoded(*THINK_ANSWERS), None, "last", 0.5, "ThinkPRM-1.5B, -7B, -14B", program=_without_reference(think_prm),
    ),
    "gen_prm": Convention(
        _encoded(*GEN_ANSWERS), None, "min", 0.5, "GenPRM-1.5B, -7B, -32B, without executing its code",
        program=_without_reference(gen_prm),
    ),
}  # fmt: skip

# Architectures whose name says how they are read.
_BY_ARCHITECTURE = {
    "Qwen2ForProcessRewardModel": "qwen_math_prm",
    "Qwen2ForPrmModel": "skywork",
    "ReasonEval_7B": "reason_eval_7b",
    "ReasonEval_34B": "reason_eval_34b",
}


def of_model(directory: str | pathlib.Path, name: str = "") -> AnyConvention:
    """The convention of a model directory: the published one of this `name`; without a name that of the directory's
    prm_convention.json; without such a file the one that its architecture implies.

    Raises:
      ModelError: the name is unknown or names a convention for another kind of head, the file cannot be read, or
        nothing says which convention it is.
    """
    path = pathlib.Path(directory) / CONVENTION_FILE
    if name:
        if name not in PUBLISHED:
            raise ModelError(f"convention {name!r} is unknown: choose among {', '.join(PUBLISHED)}")
        if (kind := head_kind(directory)) != (wanted := PUBLISHED[name].head):
            raise ModelError(
                f"convention {name!r} reads a head of kind {wanted or 'language model'}, and {directory} has "
                f"{kind or 'language model'} by its architecture: name the convention that the model was trained with"
            )
        return PUBLISHED[name]
    if path.is_file():
        return load_convention(directory)
    architecture = architecture_of(directory)
    if architecture in _BY_ARCHITECTURE:
        return PUBLISHED[_BY_ARCHITECTURE[architecture]]
    raise ModelError(
        f"{path} is missing and {architecture or 'config.json'} does not say how the model is read: name its "
        f"convention, one of {', '.join(PUBLISHED)}, or train a reward model"
    )


def of_verifier(directory: str | pathlib.Path, kind: str = "") -> GenerativeConvention:
    """The convention of a generative reward model: that of this `kind` with its default guidelines; without a kind,
    that of the directory's file.

    Raises:
      ModelError: the kind is unknown, or the directory is not that of a generative reward model.
    """
    if kind:
        try:
            return GenerativeConvention(kind, GUIDELINES.get(kind, ""))
        except ValueError as error:
            raise ModelError(f"config.generative.kind: {error}") from None
    path = pathlib.Path(directory) / CONVENTION_FILE
    convention = load_convention(directory) if path.is_file() else None
    if isinstance(convention, GenerativeConvention):
        return convention
    raise ModelError(
        f"{directory} does not say what it writes as a generative reward model: set config.models.generative.path to "
        f"one that was trained as such, or config.generative.kind to one of {', '.join(KINDS)}"
    )


def save_convention(directory: str | pathlib.Path, convention: TokenTagConvention | GenerativeConvention) -> None:
    """Write the convention into a model directory."""
    write_json(pathlib.Path(directory) / CONVENTION_FILE, dataclasses.asdict(convention))


def load_convention(directory: str | pathlib.Path) -> TokenTagConvention | GenerativeConvention:
    """The convention in the file of one of our model directories. Raises ModelError if it is missing or incomplete."""
    path = pathlib.Path(directory) / CONVENTION_FILE
    if not path.is_file():
        raise ModelError(f"{path} is missing: the directory holds no reward model; train one, or write its convention")
    row = read_json(path)
    kind = GenerativeConvention if "kind" in row else TokenTagConvention
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    if wrong := [name for name, known in fields.items() if type(row.get(name)) is not known]:
        raise ModelError(
            f"{path} cannot be read ({wrong[0]}={shown(row.get(wrong[0]))}): it needs exactly {', '.join(fields)}"
        )
    try:
        return kind(**row)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): it needs exactly {', '.join(fields)}") from error


def choose_convention(tokenizer: Any, candidates: Sequence[str], aggregation: str) -> TokenTagConvention:
    """The convention to train with: the step tag that `choose_step_tag` finds, and the ids of "+" and "-". Raises
    ModelError if the tokenizer lacks one of these."""
    tag, tag_id = choose_step_tag(tokenizer, candidates)
    return TokenTagConvention(tag, tag_id, token_id(tokenizer, "+"), token_id(tokenizer, "-"), aggregation)


def choose_step_tag(tokenizer: Any, candidates: Sequence[str] = ()) -> tuple[str, int]:
    """The step tag and its id: " ки" if that is one token of the tokenizer, else the first of `candidates` that is one.

    Raises:
      ModelError: none is; a score cannot be read at a tag of several tokens.
    """
    for tag in (PREFERRED_STEP_TAG, *candidates):
        if (tag_id := single_id(tokenizer, tag)) is not None:
            return tag, tag_id
    tried = ", ".join(repr(tag) for tag in (PREFERRED_STEP_TAG, *candidates))
    raise ModelError(
        f"no step tag is one token of this tokenizer (tried {tried}): add a candidate that is, for example a special "
        "token that occurs in no text"
    )


def token_id(tokenizer: Any, text: str) -> int:
    """The id of a token by its name in the vocabulary, or of a text that is one token.

    Raises:
      ModelError: it is neither.
    """
    named = tokenizer.convert_tokens_to_ids(text)
    return encoded_id(tokenizer, text) if named is None or named == tokenizer.unk_token_id else named


def encoded_id(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token. Raises ModelError if it is not."""
    encoded = single_id(tokenizer, text)
    if encoded is None:
        raise ModelError(f"{text!r} is not one token of this tokenizer: use the tokenizer that the model was made with")
    return encoded


def single_id(tokenizer: Any, text: str) -> int | None:
    """The id of a text that encodes to one known token, None for any other."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None
