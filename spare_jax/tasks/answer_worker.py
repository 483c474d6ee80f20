"""The process behind `answers.MathVerifier`: reads pairs of answers, writes one byte of verdict for each.

usage: python -P answer_worker.py SOCKET SECONDS BYTES, where SOCKET is the number of an inherited socket. It is run as
a file and imports nothing of this package, so it starts whatever the parent's module path is. A comparison that takes
SECONDS ends the process even if the parent is gone.
"""

import contextlib
import json
import logging
import resource
import signal
import socket
import sys


def main() -> None:
    connection, seconds, memory = socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    with contextlib.suppress(OSError, ValueError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)

    compare("1", "1")
    connection.sendall(b"r")
    for line in connection.makefile("rb"):
        # Nobody handles the alarm: the kernel ends the process, inside a C function too.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        predicted, accepted = json.loads(line)
        try:
            reply = b"1" if compare(predicted, accepted) else b"0"
        except Exception:  # answers are hostile text: parsers and sympy raise anything on them, and "?" says so
            reply = b"?"
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.sendall(reply)


def compare(predicted: str, accepted: str) -> bool:
    from math_verify import parse, verify  # a second's import, and of no use outside this process

    # The inner time limits are off: one that strikes answers False, which cannot be told from a verdict.
    gold, answer = (
        parse(_in_dollars(text), parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for text in (accepted, predicted)
    )
    return bool(verify(gold, answer, timeout_seconds=None))


def _in_dollars(text: str) -> str:
    return f"${text.replace('$', ' ').strip()}$"


if __name__ == "__main__":
    main()
