"""The process behind `answers.MathVerifier`: reads pairs of answers, writes one byte of verdict for each.

usage: python -P answer_worker.py SOCKET SECONDS BYTES, where SOCKET is the number of an inherited socket. "1" is equal,
"0" different and "?" undecided. Pairs are compared in a forked child that has everything imported already. A child that
takes longer than SECONDS or more than BYTES of memory, or dies, is killed and replaced.

Pairs are compared by `equality.py`. Sums, products, integrals and limits, which it cannot read, go to math-verify. That
reads nearly everything, but drops letters, and calls answers equal that differ a little. So its "different" is
believed, and its "equal" only where it has read all letters of both texts and their values agree in 40 digits. Any
other text that cannot be read equals only itself.
"""

import contextlib
import json
import logging
import os
import re
import resource
import select
import signal
import socket
import sys
from pathlib import Path

# Last, so that it shadows nothing; needed where the package is not installed but lies beside the parent's script.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from spare_jax.tasks.equality import same_answer
from spare_jax.tasks.expressions import Unreadable
from spare_jax.tasks.normalization import normalized

_WARMING = (("1", "1"), (r"\sqrt{x}+\sin 2", r"\frac{a}{b}"), (r"\int_0^1 x dx", r"\frac12"), (r"\sum_{k=1}^3 k", "6"))


def main() -> None:
    connection, seconds, memory = socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    with contextlib.suppress(OSError, ValueError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(20_000)

    for pair in _WARMING:
        compare(*pair)
    connection.sendall(b"r")
    child = _Child(connection, seconds)
    for line in connection.makefile("rb"):
        reply = child.ask(line, seconds)
        if reply not in (b"0", b"1", b"?"):
            child.kill()
            child, reply = _Child(connection, seconds), b"?"
        connection.sendall(reply)
    child.kill()


class _Child:
    """A copy of this process that compares."""

    def __init__(self, connection: socket.socket, seconds: float):
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            os.close(connection.fileno())
            _serve(theirs, seconds)
            os._exit(0)
        theirs.close()

    def ask(self, line: bytes, seconds: float) -> bytes:
        with contextlib.suppress(OSError):
            self.ours.sendall(line)
            ready, _, _ = select.select([self.ours], [], [], seconds)
            return self.ours.recv(1) if ready else b""
        return b""

    def kill(self) -> None:
        self.ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(connection: socket.socket, seconds: float) -> None:
    for line in connection.makefile("rb"):
        # Should the parent be gone, nobody else ends this one: nobody handles the alarm, so that the kernel does.
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        try:
            first, second = json.loads(line)
            reply = {True: b"1", False: b"0", None: b"?"}[compare(first, second)]
        except Exception:  # answers are hostile text: parsers and sympy raise anything on them, and "?" says so
            reply = b"?"
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.sendall(reply)


def compare(first: str, second: str) -> bool | None:
    """Whether two answers are equal; the same for both orders."""
    with contextlib.suppress(Unreadable):
        return same_answer(first, second)
    return _by_math_verify(first, second)


def _by_math_verify(first: str, second: str) -> bool | None:
    if not any(_OPERATOR.search(text) for text in (first, second)):
        return False
    from math_verify import parse, verify  # a second's import, and of no use outside this process

    # The inner time limits are off: one that strikes answers False, which cannot be told from a verdict.
    one, other = (
        parse(f"${normalized(text)}$", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for text in (first, second)
    )
    if not any(verify(*pair, timeout_seconds=None) for pair in ((one, other), (other, one))):
        return False
    if not (_is_read_whole(first, one) and _is_read_whole(second, other)):
        return False
    return _agree(one[0], other[0])


# What math-verify is asked about. Of other texts that equality.py cannot read it might read only a part.
_OPERATOR = re.compile(r"\\(?:i{0,3}nt|sum|prod|lim)(?![a-zA-Z])|[∑∏∫]")
# Commands are no letters of an expression.
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_LETTER = re.compile(r"[A-Za-z]")


def _is_read_whole(text: str, parsed: list) -> bool:
    """Whether every letter of a text is in the expression that math-verify has read."""
    if not parsed or isinstance(parsed[0], str):
        return False
    letters = set(_LETTER.findall(_COMMAND.sub(" ", normalized(text)))) - {"e", "i", "d"}
    known = {letter for symbol in _symbols(parsed[0]) for letter in str(symbol)}
    return letters <= known


def _symbols(expression) -> set:
    from sympy import Symbol

    return expression.atoms(Symbol) if hasattr(expression, "atoms") else set()


def _agree(one, other) -> bool | None:
    """Whether two expressions of sympy agree in 40 digits, with unusual numbers in place of letters."""
    from sympy import Basic, Rational

    if not all(isinstance(each, Basic) for each in (one, other)):
        return None
    names = sorted(one.free_symbols | other.free_symbols, key=str)
    values = {name: Rational(1013 + 37 * i, 1009) for i, name in enumerate(names)}
    try:
        x, y = (each.doit().subs(values).evalf(60) for each in (one, other))
        if not (x.is_number and y.is_number):
            return None
        return bool(abs(x - y) <= abs(x) * Rational(1, 10**40))
    except (AttributeError, TypeError, ValueError):
        return None


if __name__ == "__main__":
    main()
