"""SPARK's verification of a solution (arXiv 2512.03244, stage I): every step analysed and judged, then the answer.

The user turn is that of an annotation without the reference (prompts/annotate.py). The verification has, for each step,
a heading, lines of analysis and a verdict; a verdict on the answer ends it:

    ## Step 1: <title>
    <analysis>
    **This step is correct.**            (or incorrect)

    **Verification: Is the answer correct (Yes/No)? Yes**            (or No)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spare_jax.programs import Grammar
from spare_jax.prompts import annotate
from spare_jax.prompts.chat import Message
from spare_jax.prompts.solve import one_line
from spare_jax.records import Problem, StepJudgement

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

BRIEF_GUIDELINES = "Verify each step."
"""The guidelines that the embedded teachers were trained with."""

ROLE = """\
You are a teacher who checks a student's solution. You are given the sentences of the problem [c1], [c2], ... (and the \
question [q] where it stands by itself) and the student's steps [s1], [s2], ... You are not given a solution: work \
everything out yourself.
"""

RULE = """\
Check the steps one after another, strictly. A step is correct if it follows from the problem and from correct steps \
before it, by whatever valid route. A step with an error is incorrect, and so is every later step that builds on it.
"""

GUIDELINES = f"""\
{ROLE}{RULE}\
For each step write, in its order:
## Step k: a title of a few words
your analysis, in lines that begin with neither "#" nor "*"
**This step is correct.** or **This step is incorrect.**

and after the last step one line:
**Verification: Is the answer correct (Yes/No)? Yes** or **Verification: Is the answer correct (Yes/No)? No**"""

STEP = "**This step is {}.**"
ANSWER = "**Verification: Is the answer correct (Yes/No)? {}**"
_HEADING = re.compile(r"^## Step ([0-9]{1,9}):(.*)$", re.MULTILINE)
_FIRST_HEADING = re.compile(r"^## Step 1:", re.MULTILINE)
_STEP_VERDICT = re.compile(r"^\*\*This step is (correct|incorrect)\.\*\*[ \t\r]*$", re.MULTILINE)
ANSWER_VERDICT = re.compile(
    r"^\*\*Verification: Is the answer correct \(Yes/No\)\? (Yes|No)\*\*[ \t\r]*$", re.MULTILINE
)

VERDICTS = re.compile(
    r"\*\*(?:This step is|Verification: Is the answer correct \(Yes/No\)\?) (correct|incorrect|Yes|No)\b"
)
"""A verdict on a step or on the answer, anywhere in a text."""


@dataclass(frozen=True)
class StepVerification:
    """A verification's section on one step; `correct` is None where it has no verdict."""

    title: str
    analysis: str
    correct: bool | None


@dataclass
class ParsedVerification:
    """The sections and verdicts in a verifier's text.

    `steps` is keyed by the step's number, from 1; `answer` is the verdict on the answer, None where there is none.
    `verdicts` (by step) and `answer_verdict` are the characters of the text at which the words of the verdicts begin.
    `surplus` counts sections about steps that do not exist, `duplicates` second and later sections about a step, of
    which the first counts.
    """

    steps: dict[int, StepVerification] = field(default_factory=dict)
    answer: bool | None = None
    verdicts: dict[int, int] = field(default_factory=dict)
    answer_verdict: int | None = None
    surplus: int = 0
    duplicates: int = 0

    def is_whole(self, n_steps: int) -> bool:
        """Whether there is one section with a verdict for each of `n_steps` steps, no other section, and a verdict on
        the answer."""
        judged = [number for number, step in self.steps.items() if step.correct is not None]
        return (
            sorted(judged) == list(range(1, n_steps + 1))
            and self.answer is not None
            and not (self.surplus or self.duplicates)
        )


def render(
    task: "Task", problem: Problem, steps: Sequence[str], guidelines: str, answers: Sequence[str] = ()
) -> list[Message]:
    """The conversation that asks for a verification: guidelines, then problem and steps, a line each. The accepted
    `answers` are shown, on one more line, in the reference-guided control alone.
    """
    shown = annotate.instance(task, problem, (), steps)
    if answers:
        shown += "\n" + one_line(f"Expected answer: {' or '.join(answers)}")
    return [{"role": "system", "content": guidelines}, {"role": "user", "content": shown}]


def from_judgement(steps: Sequence[StepJudgement]) -> tuple[StepVerification, ...]:
    """Judged steps as a verification; the part of an explanation before a colon becomes the title."""
    verifications = []
    for number, step in enumerate(steps, 1):
        title, colon, analysis = step.explanation.partition(": ")
        title, analysis = (title, analysis) if colon else (f"step {number}", step.explanation)
        verifications.append(StepVerification(title, analysis, step.label))
    return tuple(verifications)


def format_verification(steps: Sequence[StepVerification], answer: bool) -> str:
    """The text of a verification. Raises ValueError for a step without a verdict, or with a title or an analysis that
    does not fit the grammar: each line of an analysis has text and begins with neither "#" nor "*"."""
    sections = []
    for number, step in enumerate(steps, 1):
        if step.correct is None:
            raise ValueError(f"step {number} has no verdict: every step of a verification needs one")
        verdict = STEP.format("correct" if step.correct else "incorrect")
        section = f"## Step {number}: {step.title}\n{step.analysis}\n{verdict}\n\n"
        if "\n" in step.title or not re.fullmatch(_SECTION % number, section):
            raise ValueError(
                f"step {number}: write a title of one line, and an analysis of lines that have text and begin with "
                'neither "#" nor "*"'
            )
        sections.append(section)
    return "".join((*sections, ANSWER.format("Yes" if answer else "No")))


def grammar(n_steps: int) -> Grammar:
    """The grammar of a verification: what `format_verification` writes of `n_steps` steps."""
    return Grammar("".join((*(_SECTION % step for step in range(1, n_steps + 1)), ANSWER_PATTERN)))


_LINE = r"[^#*\x00-\x1F\x7F][^\x00-\x1F\x7F]*"
_SECTION = rf"## Step %d: [^\x00-\x1F\x7F]+\n({_LINE}\n)+\*\*This step is (correct|incorrect)\.\*\*\n\n"
ANSWER_PATTERN = r"\*\*Verification: Is the answer correct \(Yes/No\)\? (Yes|No)\*\*"


def parse(text: str, n_steps: int, start: int = 0) -> ParsedVerification:
    """Read the verdicts in a model's text, which may be any text, from character `start` on; never raises.

    A section extends from its heading to the next one. Of several verdicts in a section, or on the answer, the last
    one, the conclusion, counts.
    """
    parsed = ParsedVerification()
    headings = list(_HEADING.finditer(text, start))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=False):
        number, section = int(heading[1]), text[heading.end() : end]
        verdicts = list(_STEP_VERDICT.finditer(section))
        if not 1 <= number <= n_steps:
            parsed.surplus += 1
        elif number in parsed.steps:
            parsed.duplicates += 1
        else:
            correct = verdicts[-1][1] == "correct" if verdicts else None
            analysis = section[: verdicts[-1].start()] if verdicts else section
            parsed.steps[number] = StepVerification(heading[2].strip(), analysis.strip(), correct)
            if verdicts:
                parsed.verdicts[number] = heading.end() + verdicts[-1].start(1)
    for answer in ANSWER_VERDICT.finditer(text, start):
        parsed.answer, parsed.answer_verdict = answer[1] == "Yes", answer.start(1)
    return parsed


def last_verification(text: str) -> int:
    """The character at which a text's last verification, its last heading of step 1, begins; 0 without one."""
    return max((heading.start() for heading in _FIRST_HEADING.finditer(text)), default=0)


def parse_last(text: str, n_steps: int) -> ParsedVerification:
    """As `parse`, of the last verification alone: a model may verify, criticise its verification, and verify again."""
    return parse(text, n_steps, last_verification(text))
