"""Chat templates are rendered in another process (template_worker.py), within limits of time, memory and output.

A template is a program that comes with a model. jinja's sandbox keeps it from files and from Python's internals, but
not from an endless loop or a text of gigabytes, and a trial at the start does not show what other messages do.
"""

import atexit
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

CPU_SECONDS = 2.0  # of one rendering; a prompt takes a thousandth
MEMORY = 2**29  # bytes of the whole process
MAX_TEMPLATE = 2**20  # characters of a template
_START_LIMIT = 120.0  # seconds until the process has started; and until an answer, should the machine be stuck
_FAILS = "the chat template cannot be rendered"
DATE = "26 Jul 2024"  # today, for every template: a prompt must not change over night


class ChatTemplateError(jinja2.TemplateError, ValueError):
    """A chat template that cannot be rendered, or not with these messages; the message says why."""


class ChatTemplateLimit(ChatTemplateError):
    """A rendering exceeded a limit; another try would too."""


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text of a template with `variables`, JSON values.

    Raises:
      ChatTemplateError: it is no template, raises an error of its own, or writes more than 1 MiB and four times the
        size of `variables`. ChatTemplateLimit: it takes more than CPU_SECONDS or MEMORY.
      RuntimeError: the process that renders does not start.
    """
    if len(template) > MAX_TEMPLATE:
        raise ChatTemplateError(
            f"the chat template has {len(template):,} characters: at most {MAX_TEMPLATE:,} are read"
        )
    given = json.dumps(variables)
    most = 2**20 + 4 * len(given)
    line = f"[{json.dumps(template)}, {given}, {most}]\n".encode()
    text, reason = _WORKER.ask(line, most)
    if text is None:
        raise ChatTemplateError(f"{_FAILS}: {' '.join(reason.split())}")
    return text


class _Worker:
    """The process that renders: started with the first request, replaced when it has died, ended with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[subprocess.Popen[bytes], socket.socket, Any] | None = None

    def ask(self, line: bytes, most: int) -> tuple[str | None, str]:
        """The text that `line` asks for, or None and the reason. Raises ChatTemplateLimit."""
        with self._lock:
            _, connection, answers = self._running or self._start()
            try:
                connection.sendall(line)
                answer = answers.readline(12 * most + 9999)  # a character takes up to twelve in JSON
            except OSError:  # it died, or the machine is stuck
                answer = b""
            if answer.endswith(b"\n"):
                return tuple(json.loads(answer))
            status = self._end()
        if status == -signal.SIGPROF:
            raise ChatTemplateLimit(f"{_FAILS}: it takes more than {CPU_SECONDS:g} seconds")
        raise ChatTemplateLimit(f"{_FAILS}: it takes more than {MEMORY >> 20} MiB of memory, or ended the process")

    def _start(self) -> "tuple[subprocess.Popen[bytes], socket.socket, Any]":
        ours, theirs = socket.socketpair()
        script = Path(__file__).with_name("template_worker.py")
        with theirs:
            process = subprocess.Popen(
                # -P: a module that lies beside the script must not stand for one of the same name elsewhere.
                [sys.executable, "-P", str(script), str(theirs.fileno()), str(CPU_SECONDS), str(MEMORY)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        ours.settimeout(_START_LIMIT)
        self._running = process, ours, ours.makefile("rb")
        try:
            ready = self._running[2].readline(1)
        except OSError:
            ready = b""
        if not ready:
            self._end()
            raise RuntimeError("the process that renders chat templates does not start: check that jinja2 is installed")
        return self._running

    def _end(self) -> int:
        """End the process; returns its exit status, negative where a signal ended it."""
        assert self._running is not None
        (process, connection, answers), self._running = self._running, None
        answers.close()
        connection.close()
        try:
            return process.wait(1)  # one that has died has its own status
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self) -> None:
        """End the process; a later request starts a new one."""
        with self._lock:
            if self._running is not None:
                self._end()


_WORKER = _Worker()
atexit.register(_WORKER.close)
