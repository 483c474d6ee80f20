"""Answers to the requests of one stage, on disk while it runs: what a killed run goes on from.

A line per answered request. Every line ends with a checksum of itself and of all lines before it, so a line that was
changed, moved or copied is found.
"""

import collections
import concurrent.futures
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from spare_jax.programs import Completion
from spare_jax.storage.jsonlines import StoreError, naming

logger = logging.getLogger(__name__)

MAX_UNWRITTEN = 256  # answers that a kill can cost a journal


class Journal:
    """Answers by request id, in a file that is opened at `path` or made there (the protocol of programs.py).

    A thread writes the answers, one write to the operating system each, so that a killed process loses at most
    MAX_UNWRITTEN of them. On opening, a torn or unreadable end is cut off; those answers are asked for again. Memory
    holds only places in the file. The first line has the stage's fingerprint: a journal with another one is emptied.

    Raises:
      StoreError: the checksum of a line is wrong; names the first such line.
    """

    def __init__(self, path: Path, stage_fingerprint: str):
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._file = path.open("a+b")
        try:
            self._end, self._sum = self._scan(stage_fingerprint)
        except StoreError:
            self._file.close()
            raise
        self._file.truncate(self._end)
        self._failure: OSError | None = None
        if self._end == 0:
            line, self._sum = _line({"fingerprint": stage_fingerprint}, self._sum)
            self._append(line)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "journal")
        self._unwritten: dict[str, tuple[Completion, ...]] = {}
        self._writing: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    def __len__(self) -> int:
        return len(self._places.keys() | self._unwritten.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, request_id: str) -> tuple[Completion, ...] | None:
        """The answer to a request; None where there is none yet."""
        if (answer := self._unwritten.get(request_id)) is not None:
            return answer
        place = self._places.get(request_id)
        return None if place is None else _read_answer(os.pread(self._file.fileno(), place[1], place[0]))[1]

    def put(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        """Keep the answer to a request.

        Raises:
          TypeError: this or an earlier answer holds other numbers than Python's own, which JSON would change.
          OSError: an earlier answer could not be written.
        """
        while self._writing and (self._writing[0].done() or len(self._writing) >= MAX_UNWRITTEN):
            self._writing.popleft().result()
        self._unwritten[request_id] = completions
        self._writing.append(self._writer.submit(self._write, request_id, completions))

    def close(self) -> None:
        """Write what is left and close the file. Raises what `put` raises."""
        self._writer.shutdown()
        with naming(self.path):
            self._file.close()
        while self._writing:
            self._writing.popleft().result()

    def _write(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        try:
            if self._failure is not None:  # no line may follow one that is not whole
                raise self._failure
            line, line_sum = _line({"id": request_id, "completions": [vars(c) for c in completions]}, self._sum)
            place = self._end, len(line)
            self._append(line)
            self._sum, self._places[request_id] = line_sum, place
        finally:
            del self._unwritten[request_id]

    def _append(self, line: bytes) -> None:
        try:
            with naming(self.path):
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            self._failure = error
            raise
        self._end += len(line)

    def _scan(self, stage_fingerprint: str) -> tuple[int, bytes]:
        """Fill the table of places. Returns the length of the readable part and the checksum of its last line."""
        self._file.seek(0)
        end, before = 0, b""
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            body = line[:-_SUM_LENGTH] + b"}"
            line_sum = _checksum(before, body)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or row.keys().isdisjoint({"sum", "fingerprint"}):
                logger.warning("%s is unreadable from line %d on: that part is dropped", self.path, number)
                break
            try:
                if line[-_SUM_LENGTH:] != b',"sum":"%s"}\n' % line_sum:
                    raise ValueError
                if number == 1 and row["fingerprint"] != stage_fingerprint:
                    logger.warning("%s belongs to other settings or inputs: started anew", self.path)
                    return 0, b""
                if number > 1:
                    self._places[_read_answer(line)[0]] = (end, len(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreError(
                    f"{self.path}:{number}: not as it was written, or by another version: "
                    f"delete the file, or its lines from {number} on, and what they answered is asked again"
                ) from None
            end, before = end + len(line), line_sum
        return end, before


def _line(row: Mapping[str, Any], before: bytes) -> tuple[bytes, bytes]:
    """A row as a journal's line, and its checksum. NaN and infinity are written as Python reads them: after a restart a
    stage must see what it would have seen without one."""
    body = json.dumps(row, separators=(",", ":")).encode()
    line_sum = _checksum(before, body)
    return b'%s,"sum":"%s"}\n' % (body[:-1], line_sum), line_sum


_SUM_LENGTH = len(',"sum":"0123456789abcdef"}\n')


def _checksum(before: bytes, body: bytes) -> bytes:
    """16 hexadecimal digits of a line without its own checksum, keyed with the checksum of the line before it."""
    return hashlib.blake2b(body, key=before, digest_size=8).hexdigest().encode()


def _read_answer(line: bytes) -> tuple[str, tuple[Completion, ...]]:
    row = json.loads(line)
    completions: list[Completion] = []
    for row_fields in row["completions"]:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row_fields.items()}
        completions.append(Completion(**fields))
    return row["id"], tuple(completions)
