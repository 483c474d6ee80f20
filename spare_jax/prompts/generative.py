"""What SPARK's generative reward models write (arXiv 2512.03244, stage II): four kinds.

orm      Yes                                    (or No), of the answer
prm      Step 1: Correct                        (or Incorrect), a line per step
         ...
         **Verification: Is the answer correct (Yes/No)? Yes**
prm_cot  a verification with its analyses, as prompts/verify.py has it
prm_critique  such a verification, a critique of it, and the verification anew

All have the prompt of a verifier (`verify.render`); only the system message differs. Each is parsed to a
ParsedVerification, where what the kind does not write is None.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.programs import Grammar
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode
from spare_jax.prompts.solve import decode
from spare_jax.prompts.verify import ParsedVerification, StepVerification
from spare_jax.records import Judgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer

KINDS = ("orm", "prm", "prm_cot", "prm_critique")

BRIEF_GUIDELINES = {
    "orm": "Verify the answer.",
    "prm": "Judge each step.",
    "prm_cot": verify.BRIEF_GUIDELINES,
    "prm_critique": "Verify each step, criticise it, and verify again.",
}
"""The guidelines that small models are trained with."""

GUIDELINES = {
    "orm": f"""\
{verify.ROLE}\
Is the answer that the student gives in the end correct? Reply with one word: Yes or No.""",
    "prm": f"""\
{verify.ROLE}{verify.RULE}\
Write one line per step, in its order, and nothing else:
Step k: Correct or Step k: Incorrect

and after the last step one line:
{verify.ANSWER.format("Yes")} or {verify.ANSWER.format("No")}""",
    "prm_cot": verify.GUIDELINES,
    "prm_critique": f"""\
{verify.GUIDELINES}

Then criticise this verification in a few lines that do not begin with "#": name missed errors, false alarms, wrong \
reasons behind right verdicts and verdicts against their own analysis, or say that there is no fault. Then write the \
whole verification again, in the same form, with what the critique found mended.""",
}

_STEP = "Step {}: {}\n"
_STEP_LINE = re.compile(r"^Step ([0-9]{1,9}): (Correct|Incorrect)[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"\s*(Yes|No)\s*")
_CRITIQUE = r"([^#\x00-\x1F\x7F][^\x00-\x1F\x7F]*\n\n?)+"


def format_outcome(answer: bool) -> str:
    """The text of kind "orm"."""
    return "Yes" if answer else "No"


def format_labels(labels: Sequence[bool], answer: bool) -> str:
    """The text of kind "prm": a line per step, and the line on the answer."""
    lines = (_STEP.format(number, "Correct" if label else "Incorrect") for number, label in enumerate(labels, 1))
    return "".join((*lines, verify.ANSWER.format(format_outcome(answer))))


def format_critique(verification: str, critique: str, merged: str) -> str:
    """The text of kind "prm_critique", and of every target that was made by meta-critique."""
    return f"{verification}\n\n{critique.strip()}\n\n{merged}"


def target(kind: str, judgement: Judgement) -> str | None:
    """The text that a model of `kind` learns to write about a judged solution, None where the judgement has none.

    The judgement needs a verdict on the answer and, but for "orm", a label for every step. For "prm_cot" the text is
    the last verification in the judgement's own text, which must have just these verdicts; for "prm_critique" it is the
    whole text, which must have an earlier verification too.
    """
    labels = [step.label for step in judgement.steps]
    if judgement.outcome is None or (kind != "orm" and None in labels):
        return None
    if kind == "orm":
        return format_outcome(judgement.outcome)
    if kind == "prm":
        return format_labels([bool(label) for label in labels], judgement.outcome)
    parsed = parse(kind, judgement.text, len(labels))
    verdicts = [parsed.steps[number].correct for number in sorted(parsed.steps)]
    whole = (verdicts, parsed.answer, parsed.surplus, parsed.duplicates) == (labels, judgement.outcome, 0, 0)
    start = verify.last_verification(judgement.text)
    if not whole or (kind == "prm_critique" and not verify.ANSWER_VERDICT.search(judgement.text, 0, start)):
        return None
    return judgement.text if kind == "prm_critique" else judgement.text[start:]


def grammar(kind: str, n_steps: int) -> Grammar:
    """The grammar of what a model of `kind` should write about `n_steps` steps."""
    if kind == "orm":
        return Grammar("(Yes|No)")
    if kind == "prm":
        lines = (_STEP.format(number, "(Correct|Incorrect)") for number in range(1, n_steps + 1))
        return Grammar("".join((*lines, verify.ANSWER_PATTERN)))
    verification = verify.grammar(n_steps)
    if kind == "prm_cot":
        return verification
    return Grammar(f"{verification.pattern}\n\n{_CRITIQUE}{verification.pattern}")


def parse(kind: str, text: str, n_steps: int) -> ParsedVerification:
    """Read the verdicts in a model's text, which may be any text; never raises.

    "orm": the text must be the one word. "prm": other lines are ignored, and of several lines on a step the first
    counts. Other kinds: the last verification counts, from the last heading of step 1 on.
    """
    if kind in ("prm_cot", "prm_critique"):
        return verify.parse_last(text, n_steps)
    parsed = ParsedVerification()
    if kind == "orm":
        answers = [word] if (word := _WORD.fullmatch(text)) else []
    else:
        answers = verify.ANSWER_VERDICT.finditer(text)
        for line in _STEP_LINE.finditer(text):
            number = int(line[1])
            if not 1 <= number <= n_steps:
                parsed.surplus += 1
            elif number in parsed.steps:
                parsed.duplicates += 1
            else:
                parsed.steps[number] = StepVerification("", "", line[2] == "Correct")
                parsed.verdicts[number] = line.start(2)
    for answer in answers:
        parsed.answer, parsed.answer_verdict = answer[1] == "Yes", answer.start(1)
    return parsed


# Verdicts as probabilities


@dataclass(frozen=True)
class VerdictTokens:
    """The first token in which the texts of the two verdicts differ. `lead` characters of it come before the word of
    the verdict (a blank, for instance).
    """

    wrong: int
    right: int
    lead: int


def verdict_tokens(tokenizer: "Tokenizer", kind: str) -> tuple[VerdictTokens | None, VerdictTokens]:
    """The tokens of a step's verdict (None for "orm") and of the answer's.

    Raises:
      ValueError: the tokenizer has no tokens that distinguish the words of a verdict.
    """
    if kind == "orm":
        return None, _tokens(tokenizer, "{}", "No", "Yes")
    if kind == "prm":
        of_step = _tokens(tokenizer, _STEP.format(1, "{}"), "Incorrect", "Correct")
    else:
        of_step = _tokens(tokenizer, verify.STEP, "incorrect", "correct")
    return of_step, _tokens(tokenizer, verify.ANSWER, "No", "Yes")


def _tokens(tokenizer: "Tokenizer", template: str, wrong: str, right: str) -> VerdictTokens:
    texts = [template.format(word) for word in (wrong, right)]
    ids = [encode(tokenizer, text) for text in texts]
    first = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), None)
    if first is None or tokenizer.unk_token_id in (ids[0][first], ids[1][first]):
        raise ValueError(
            f"the tokenizer has no token that tells {texts[0]!r} from {texts[1]!r}: set "
            "config.generative.scoring='verdict'"
        )
    behind = len(decode(tokenizer, ids[0])) - len(decode(tokenizer, ids[0][:first]))
    return VerdictTokens(ids[0][first], ids[1][first], behind - len(wrong + template.partition("{}")[2]))


def verdict_place(
    tokenizer: "Tokenizer", ids: Sequence[int], begins: int, right: bool, tokens: VerdictTokens
) -> int | None:
    """The index in `ids` of the token that decides a verdict, whose word begins at character `begins` of their text.

    None where the token there is not that of `tokens`: the text was sampled in other tokens than its encoding, and the
    probabilities of the two verdicts cannot be compared.
    """
    place, end = 0, len(ids)
    while place < end:  # the first token whose end lies behind that character
        middle = (place + end) // 2
        if len(decode(tokenizer, ids[: middle + 1])) > begins - tokens.lead:
            end = middle
        else:
            place = middle + 1
    return place if place < len(ids) and ids[place] == (tokens.right if right else tokens.wrong) else None
