r"""Final answers of mathematical text: extracted from solutions, and compared.

Plain numbers are compared here, as exact fractions (numbers.py). Other mathematics goes to a `MathVerifier`, in a
process of its own (answer_worker.py): a model's text may make a comparison hang or take all memory.
"""

import functools
import itertools
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from spare_jax.tasks.normalization import ascii_text, canonical_text, normalized
from spare_jax.tasks.numbers import LONGEST_ANSWER, UNITS, canonical_number, numbers_in, parse_number, with_slashes

_MARK = re.compile(
    r"####|\\(?:boxed|fbox)\s?\{|答(?:案|え)?\s?(?:应该是|應該是|等于|是|为|為|は|[:=])\s?:?"
    r"|(?:정답|답)(?:은|[:=])|\b(?:respuesta|resposta|r[ée]ponse|risposta|antwort|ответ)(?:\sfinale?)?"
    r"(?:[*_ ]{0,4}[:=]|\s(?:es|é|est|è|ist|lautet)\b\s?:?)"
    r"|<answer>|^[#*_ ]{1,9}(?:the\s)?(?:final\s)?answer[*_ ]{0,4}$"
    r"|\banswers?(?:\sto\s(?:the|this)\s(?:question|problem))?"
    r"(?:[*_ ]{0,4}[:=]|\s(?:is|are|was|will\sbe|would\sbe|must\sbe|should\sbe)(?:n['’]t)?\b"
    r"(?!\s(?:in)?(?:correct|right|wrong|reasonable|verified|confirmed|consistent)\b)\s?:?)",
    re.IGNORECASE | re.MULTILINE,
)
_MOST_MARKS = 100  # no more marks than these are looked at, from the last one on
# The content of a box that is empty. (A backslash and braces are the empty set.)
_EMPTY = re.compile(r"(?:\\(?:text|mbox|mathrm|q?quad|phantom)(?![a-z])|\\(?![{}a-zA-Z])|[\s~{}$?._,;:!])*")
_BRACE = re.compile(r"\\(?:boxed|fbox)(?:\s?\{|\s+([^\s{}$\\]{1,30}))|\\.|[{}]", re.DOTALL)
# Text between two boxes that makes them one answer: "$\boxed{1}$ and $y = \boxed{2}$".
_JOINT = re.compile(
    r"(?:[^\S\n]|[$,;&~]|\\[()\[\],;! ]|\\q?quad|\\(?:text|mbox)\s?\{[^\S\n]*(?:and|or)[^\S\n]*\}|\b(?:and|or)\b"
    r"|\b[A-Za-z](?:_\{?\w\}?)?[^\S\n]?=)*"
)
_NEGATED = re.compile(r"[*_:\s]*(?:not|no\slonger|never|isn['’]t)\b", re.IGNORECASE)
_INSTEAD = re.compile(
    r"\b(?:but(?:\s(?:rather|instead|is|it\sis))?|rather|instead|it\s(?:is|should\sbe|must\sbe)|it['’]s)\b[\s:,]*",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"(?<![.!?])(?:[,;]|\s)\s?(?:(?:and|but)\s)?(?:not|rather\sthan|instead\sof)\s")
_DISPLAY = re.compile(
    r"(?:\\\[|\$\$|\\begin\{(?:equation|align|gather)\*?\})\s*(.{1,400}?)\s*"
    r"(?:\\\]|\$\$|\\end\{(?:equation|align|gather)\*?\})",
    re.DOTALL,
)
_FORMULA = re.compile(r"\$\$?((?:[^$\\]|\\.){1,400})\$\$?|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)
# Where an answer ends and a remark begins: the next sentence, a reason, a closing tag.
_REMARK = re.compile(r"(?<=[^A-Z\s.])\.\s|,?\s(?:because|since)\b|,\swhich\b|</|<\|", re.IGNORECASE)
_ASIDE = re.compile(r"(?:\s[a-z]+)?[\s,(]+(?:because|since|by|as|from|which|where|so|using|i\.e|that\sis)\b")
_POWER = re.compile(r"\W*[0-9.]+\s?\^")
_DENIED = re.compile(r"(?:\b(?:not|never|rather\sthan|instead\sof)|n['’]t)[\s:$*(\\]*$", re.IGNORECASE)
_EQUALS = re.compile(r"(?<![<>!=\\])=(?!=)")
# Text after a number that makes the number a part of an expression: "5x", "5!", "5 x", "5 - 3".
_CONTINUED = re.compile(r"[^\W\d_]|[_^!(]|\s?\\|\s[b-zB-HJ-Z](?![^\W\d_]|['’])|\s?[-+*/^]\s?[0-9(\\]")
# Characters at a solution's end that are searched first for a statement, and alone for a last number.
_SEARCHED = 20_000
_DIGIT = re.compile(r"[\d¼-¾⅐-⅞]")


def extract_number(steps: Sequence[str]) -> str | None:
    r"""The final answer of a solution to a word problem, in canonical form; None where there is none.

    It is taken from `stated_answer`: a plain number (of an equation, on the last side that is one), an expression as it
    is written, else the first number. Where nothing is stated it is the last number of the last step that has one. An
    empty box means no answer, whatever is before it.
    """
    text = "\n".join(steps)
    stated = stated_answer(text)
    if stated == "" and boxes(text):
        return None
    if stated:
        stated = _REMARK.split(stated, maxsplit=1)[0]
        result = result_of_equation(stated)
        if (number := parse_number(result)) is not None:
            return canonical_number(number)
        if "\\" in normalized(stated) or _POWER.match(stated) or stated == boxed_answer(text):
            return stated
        if number := _number_at(result, first=True) or _number_at(stated, first=True):
            return number
    left = _SEARCHED
    for step in filter(_DIGIT.search, reversed(steps)):
        if number := _number_at(step[-min(left, LONGEST_ANSWER * 4) :], first=False):
            return number
        if (left := left - len(step)) <= 0:
            break
    return None


def stated_answer(text: str) -> str | None:
    r"""What a solution states as its answer; None where it states none.

    That is the text after the last "the answer is", "####" or "\boxed{", to the end of the line, or of the line below
    if that is empty. Of "the answer is not 20 but 18" it is 18; a statement that only denies something is skipped.
    """
    text = ascii_text(text)
    for mark in _marks(text):
        if mark[0].startswith("\\"):
            return boxed_answer(text) or ("" if boxes(text) else None)
        stated = _behind(text[mark.end() : mark.end() + LONGEST_ANSWER])
        if _NEGATED.match(stated) or mark[0].rstrip(" :").endswith(("n't", "n’t")):
            if (instead := _INSTEAD.search(stated)) is None:
                continue
            stated = stated[instead.end() :]
        stated = re.sub(r"(?<=[0-9])!(?=\s|$)", "", stated)  # an exclamation; in a formula "!" is a factorial
        stated = re.sub(r"^(?:\\ldots|\.{2,})\s*", "", stated)
        if stated.count("*") == 1:  # "*The answer is 8.*"
            stated = stated.removesuffix("*")
        denied = _DENIAL.search(stated)
        return stated[: denied.start()].strip() if denied and denied.start() else stated.strip()
    return None


def _marks(text: str) -> Iterator[re.Match[str]]:
    """The matches of `_MARK`, the last one first. The end of a long text is searched before the rest, and of the rest
    only a million characters: `ascii_text` may have made the text eleven times as long."""
    near = max(0, len(text) - _SEARCHED)
    yield from reversed(list(_MARK.finditer(text, near))[-_MOST_MARKS:])
    if near:
        yield from reversed(list(_MARK.finditer(text, max(0, near - 1_000_000), near))[-_MOST_MARKS:])


def _behind(text: str) -> str:
    """The rest of the line behind a mark or, if that is empty, the displayed formula or the line below it."""
    if display := _DISPLAY.match(text.lstrip("*_:\r\n\t ")):
        return display[1].replace("&", "")
    line, _, below = text.partition("\n")
    content = line.strip().strip("*_:").strip()
    if content not in ("", r"\[", "$$"):
        return line.strip()
    return "" if content else next((line.strip() for line in below.split("\n") if line.strip()), "")


@functools.lru_cache(maxsize=2)  # the same text is asked for several times in a row
def boxes(text: str) -> tuple[tuple[int, int, str], ...]:
    r"""Start, end and content of every "\boxed{...}" (or "\fbox{...}", or "\boxed 9") of a text, in one pass.

    A box that is never closed or holds more than LONGEST_ANSWER characters does not count, nor does one with a box in
    it.
    """
    if "box" not in text:
        return ()
    closed: list[tuple[int, int, str]] = []
    opened: list[tuple[int, int] | None] = []
    for match in _BRACE.finditer(text):
        token = match[0]
        if match[1] is not None:
            closed.append((match.start(), match.end(), match[1]))
        elif token == "{":
            opened.append(None)
        elif token[-1] == "{" and len(token) > 2:
            opened.append((match.start(), match.end()))
        elif token == "}" and opened and (box := opened.pop()) is not None:
            start, inside = box
            has_inner = bool(closed) and closed[-1][0] > start
            if match.start() - inside <= LONGEST_ANSWER and not has_inner:
                closed.append((start, match.end(), text[inside : match.start()].strip()))
    return tuple(closed)


def boxed_answer(text: str) -> str | None:
    r"""The content of the last box that is not empty; None where there is none.

    Boxes side by side in one statement are one answer: "$\boxed{1}$ and $\boxed{-2}$" is "1, -2". With "or" it is
    "1 or -2": these may also be two ways to write one number.
    """
    end = text[-_SEARCHED:]
    return _last_boxes(end) or (_last_boxes(text) if len(end) < len(text) else None)


def _last_boxes(text: str) -> str | None:
    filled = [
        box
        for box in boxes(text)
        if not _EMPTY.fullmatch(box[2]) and not _DENIED.search(text, max(0, box[0] - 24), box[0])
    ]
    if not filled:
        return None
    joined, after = filled[-1][2], filled[-1][0]
    for box in reversed(filled[:-1]):
        between = text[box[1] : after]
        if len(between) > 80 or not between.strip("$ ") or not _JOINT.fullmatch(between):
            break
        if box[2] != joined:
            joined = box[2] + (" or " if re.search(r"\bor\b", between) else ", ") + joined
        after = box[0]
    return joined


def result_of_equation(text: str) -> str:
    """The last side of an equation that is a plain number, else the last side."""
    sides = _EQUALS.split(text)
    return next((side for side in reversed(sides) if parse_number(side) is not None), sides[-1])


def formula_of(stated: str) -> str:
    r"""The formula with which a stated answer begins ("\frac{1}{2}" of "$\frac{1}{2}$ of the cake. I am sure."), or the
    statement up to a remark where it does not begin with a formula."""
    formulas = list(_FORMULA.finditer(stated))
    if not formulas or stated[: formulas[0].start()].strip("*_ "):
        return _REMARK.split(stated, maxsplit=1)[0]
    joined = [formulas[0]]
    for formula in formulas[1:]:
        if not _JOINT.fullmatch(stated[joined[-1].end() : formula.start()]):
            break
        joined.append(formula)
    rest = stated[joined[-1].end() :]
    if len(joined) < len(formulas) and not re.match(r"\s*[.;]", rest) and not _ASIDE.match(rest):
        return stated
    text = next(filter(None, joined[0].groups())).strip()
    for before, formula in itertools.pairwise(joined):
        between = " or " if re.search(r"\bor\b", stated[before.end() : formula.start()]) else ", "
        text += between + next(filter(None, formula.groups())).strip()
    return text


def _number_at(text: str, first: bool) -> str | None:
    """The first or the last number of a text, together with the expression that it begins, if any."""
    text = with_slashes(text)
    numbers = list(numbers_in(text))
    if not numbers:
        return None
    start, end, value = numbers[0 if first else -1]
    word = re.match(r"[^\W\d_]+", text[end:])
    if (word and (word[0] in UNITS or word[0] in ("st", "nd", "rd", "th"))) or not _CONTINUED.match(text, end):
        return canonical_number(value)
    if text[end : end + 1] == "!" and not text[end + 1 : end + 2].strip():
        return canonical_number(value)
    return re.split(r"[.,;:!?]?(?:\s[^\W\d_]{2,}|[,;.]\s|$)", text[start:], maxsplit=1)[0] or None


def answers_equal(
    predicted: str | None, accepted: Sequence[str], verifier: "MathVerifier | None" = None
) -> bool | None:
    """Whether an answer equals one of the accepted ones.

    Two plain numbers are equal if their values are; other pairs if their normalized texts are, or if `verifier` says
    so. Without a verifier other pairs are different. The order within a pair does not matter.

    Returns:
      True or False; None where no accepted answer is equal and a comparison is undecided. False where `predicted` is
      None.
    """
    if predicted is None:
        return False
    undecided = False
    for answer in accepted:
        verdict = _same(predicted, answer, verifier)
        if verdict:
            return True
        undecided |= verdict is None
    return None if undecided else False


def _same(first: str, second: str, verifier: "MathVerifier | None") -> bool | None:
    if first.strip() == second.strip():
        return True
    if max(len(first), len(second)) > LONGEST_ANSWER:
        return False
    one, other = parse_number(first), parse_number(second)
    if one is not None and other is not None:
        return one == other
    if canonical_text(first) == canonical_text(second):
        return True
    return verifier.equal(first, second) if verifier is not None else False


class MathVerifier:
    """Compares mathematics within limits of time and memory, in a process of its own (answer_worker.py).

    The process starts with the first comparison and ends with this one. Verdicts are remembered, since the same pair of
    answers comes up in many samples of a problem. Not for several threads.

    Args:
      time_limit: seconds per comparison, without the start of the process.
      memory: bytes of address space that the process may take.

    Attributes:
      undecided: how many pairs had no verdict so far.
    """

    _REMEMBERED = 100_000  # pairs; then the memory begins anew
    _START_LIMIT = 120.0
    _GRACE = 0.15  # for the process to say that the time is over

    def __init__(self, time_limit: float = 0.8, memory: int = 4 << 30):
        self.time_limit = time_limit
        self.memory = memory
        self.undecided = 0
        self._verdicts: dict[tuple[str, str], bool | None] = {}
        self._worker: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def equal(self, predicted: str, accepted: str) -> bool | None:
        """Whether two answers, plain text or LaTeX with or without dollar signs, are the same mathematics. The order of
        the two does not matter.

        Returns:
          None where there is no verdict: time or memory ran out, numbers are too large to compute, or math-verify's
          "equal" cannot be checked. False for texts that cannot be read or are longer than `LONGEST_ANSWER`.

        Raises:
          RuntimeError: the process does not start.
        """
        if max(len(predicted), len(accepted)) > LONGEST_ANSWER:
            return False
        pair = min((predicted, accepted), (accepted, predicted))
        if pair not in self._verdicts:
            if len(self._verdicts) >= self._REMEMBERED:
                self._verdicts.clear()
            self._verdicts[pair] = verdict = self._compared(*pair)
            self.undecided += verdict is None
        return self._verdicts[pair]

    def _compared(self, predicted: str, accepted: str) -> bool | None:
        _, connection = self._worker or self._start()
        reply = b""
        try:
            connection.settimeout(self.time_limit + self._GRACE)
            connection.sendall(json.dumps([predicted, accepted]).encode() + b"\n")
            reply = connection.recv(1)
        except OSError:  # out of time, or the process died
            pass
        finally:
            if not reply:
                self.close()
        return reply == b"1" if reply in (b"0", b"1") else None

    def close(self) -> None:
        """End the process; a later comparison starts a new one."""
        if self._worker is not None:
            (process, connection), self._worker = self._worker, None
            connection.close()
            process.kill()
            process.wait()

    def _start(self) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        ours, theirs = socket.socketpair()
        script = Path(__file__).with_name("answer_worker.py")
        with theirs:
            process = subprocess.Popen(
                # -P: a module that lies beside the script must not stand for one of the same name elsewhere.
                [sys.executable, "-P", str(script), str(theirs.fileno()), str(self.time_limit), str(self.memory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._worker = process, ours
        ready = b""
        try:
            ours.settimeout(self._START_LIMIT)
            ready = ours.recv(1)
        except OSError:
            pass
        if not ready:
            self.close()
            raise RuntimeError("the process that compares answers does not start: check that math-verify is installed")
        return self._worker


def braced(text: str) -> str | None:
    """`text` up to the brace that closes one opened just before `text`; None where none does."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i]
    return None
