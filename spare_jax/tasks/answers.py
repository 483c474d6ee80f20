"""Final answers of mathematical text: found, brought to one form, compared.

Numbers are exact fractions and need no library. What is no plain number may go to math-verify, which runs in a process
of its own (answer_worker.py): it can neither be interrupted from inside nor trusted with the text of a model.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

# Up to 30 digits, with commas between thousands or none: more digits are noise, and costly noise.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,30})"
_NUMBER = re.compile(
    rf"""(?<![\w.,])(?<![0-9]:)
    (?P<sign>[-+])?
    (?:US)?[$£€¥]?
    (?P<inner_sign>[-+])?
    (?:(?P<whole>[0-9]{{1,30}})[ ](?=[0-9]+/[0-9]))?
    (?P<top>{_DIGITS}(?:\.[0-9]{{1,30}})?|\.[0-9]{{1,30}})
    (?:/(?P<bottom>{_DIGITS}))?
    (?![.,:/]?[0-9]|[eE^][-+]?[0-9])
    """,
    re.VERBOSE,
)
_DRESSING = (
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"½"), " 1/2"),
    (re.compile(r"¼"), " 1/4"),
    (re.compile(r"¾"), " 3/4"),
    (re.compile(r"\\[()\[\]!,;:]|\*\*|\{(?=,\})|(?<=\{,)\}"), ""),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s?\{([^{}]{0,80})\}"), r" \1 "),
    (re.compile(r"(?<=[0-9])(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s?\{([0-9,]{1,30})\}\s?\{([0-9,]{1,30})\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s?([0-9])([0-9])(?![0-9])"), r"\1/\2"),
    (re.compile(r"[^\S\n]+"), " "),
)
_MARK = re.compile(
    r"####|\\boxed\s?\{|\banswer(?:[*_ ]{0,4}[:=]|\s(?:is|are|will\sbe|would\sbe)\b\s?:?)", re.IGNORECASE
)
_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s?\{|\s+([^\s{}$\\]{1,30}))")
# Nobody's answer is longer, and what is longer is not parsed.
LONGEST_ANSWER = 500


def parse_number(text: str) -> Fraction | None:
    r"""The number that `text` states, None where it states none, several, or an expression.

    Currency signs, thousands commas, a percent sign, a unit behind the number, a full stop and LaTeX's dressing are
    passed over: "$1,080.00", "72%", "72 eggs." and "\frac{1}{2}" are 1080, 72, 72 and 1/2. A percentage is the
    number before the sign: a question that asks for a percentage is answered by 20, not by 0.2.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    text = _undressed(text)
    matches = list(_NUMBER.finditer(text))
    if len(matches) != 1:
        return None
    rest = text[: matches[0].start()] + " " + text[matches[0].end() :]
    # A digit or a sign of arithmetic beside the number: an expression.
    return None if re.search(r"[0-9+*/^=<>(){}\\_]|-\s", rest) else _value(matches[0])


def canonical_number(value: Fraction) -> str:
    """One text per number: "72", "0.5", "-1/3"."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def extract_number(steps: Sequence[str]) -> str | None:
    r"""The final answer of a solution to a word problem, in canonical form; None where it states none.

    What follows the last "the answer is", "####" or "\boxed{" counts: the number behind the last equals sign, else the
    first one. Without such a mark it is the last number of the last step that has one. A marked expression in LaTeX
    ("\boxed{2\sqrt{4}}") is returned as it is.
    """
    stated = stated_answer("\n".join(steps))
    if stated:
        result = stated.rsplit("=", 1)[-1]
        if parse_number(result) is None and "\\" in _undressed(stated):
            return stated
        if numbers := _numbers(result) or _numbers(stated):
            return canonical_number(numbers[0])
    return next((canonical_number(n[-1]) for n in map(_numbers, reversed(steps)) if n), None)


def stated_answer(text: str) -> str | None:
    """What follows the last mark of an answer on its line, or stands in the last box; None without a mark."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    start = marks[-1].end()
    if marks[-1].group().startswith("\\"):
        inside = braced(text[start : start + LONGEST_ANSWER])
        return inside if inside is None else inside.strip()
    return text[start : start + LONGEST_ANSWER].split("\n", 1)[0].strip()


def boxed_answer(text: str) -> str | None:
    r"""What stands in the last "\boxed{...}" (or "\fbox{...}", or "\boxed 9") of a text; None where there is none.

    Braces are matched; a box that is never closed is none.
    """
    for match in reversed(list(_BOX.finditer(text))):
        found = match[1] or (braced(text[match.end() : match.end() + LONGEST_ANSWER]) or "").strip()
        if found:
            return found
    return None


def answers_equal(predicted: str | None, accepted: Sequence[str], verifier: "MathVerifier | None" = None) -> bool:
    """Whether an answer is one of the accepted ones: as a number, as text, or else by math-verify.

    Two plain numbers are decided by their values alone. `verifier` is asked where one of the two is an expression; a
    comparison that it cannot decide in time is not equal (and counted there).
    """
    if predicted is None:
        return False
    number = parse_number(predicted)
    for answer in accepted:
        other = parse_number(answer)
        if number is not None and other is not None:
            equal = number == other
        else:
            equal = predicted.strip() == answer.strip() or (
                verifier is not None and verifier.equal(predicted, answer) is True
            )
        if equal:
            return True
    return False


class MathVerifier:
    """math-verify behind a time limit: a process that is killed and replaced when a comparison does not end.

    The process starts with the first comparison and ends with this one, however this one ends. For one thread.

    Args:
      time_limit: seconds per comparison.
      memory: bytes of address space that the process may take.

    Attributes:
      undecided: comparisons without a verdict so far.
    """

    _START_LIMIT = 120.0

    def __init__(self, time_limit: float = 5.0, memory: int = 4 << 30):
        self.time_limit = time_limit
        self.memory = memory
        self.undecided = 0
        self._worker: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def equal(self, predicted: str, accepted: str) -> bool | None:
        """Whether two answers are the same mathematics; plain text or LaTeX, with or without its dollar signs.

        Returns:
          None where there is no verdict: the time or the memory ran out, or math-verify failed. What it cannot read
          equals nothing (False), and so does what is longer than `LONGEST_ANSWER` characters.

        Raises:
          RuntimeError: the process does not start.
        """
        if max(len(predicted), len(accepted)) > LONGEST_ANSWER:
            return False
        _, connection = self._worker or self._start()
        reply = b""
        try:
            connection.settimeout(self.time_limit)
            connection.sendall(json.dumps([predicted, accepted]).encode() + b"\n")
            reply = connection.recv(1)
        except OSError:  # out of time, or the process died
            pass
        finally:
            if not reply:
                self.close()
        if reply not in (b"0", b"1"):
            self.undecided += 1
            return None
        return reply == b"1"

    def close(self) -> None:
        """End the process; another comparison would start a new one."""
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
                [sys.executable, "-P", str(script), str(theirs.fileno()), str(self.time_limit + 1), str(self.memory)],
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


def _undressed(text: str) -> str:
    for pattern, plain in _DRESSING:
        text = pattern.sub(plain, text)
    return text


def _numbers(text: str) -> list[Fraction]:
    return [n for n in map(_value, _NUMBER.finditer(_undressed(text))) if n is not None]


def _value(match: re.Match[str]) -> Fraction | None:
    bottom = int((match["bottom"] or "1").replace(",", ""))
    if bottom == 0:
        return None
    value = Fraction(match["top"].replace(",", "")) / bottom + int(match["whole"] or 0)
    return -value if "-" in (match["sign"], match["inner_sign"]) else value


def braced(text: str) -> str | None:
    """`text` up to the brace that closes one opened before it; None where there is none."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i]
    return None
