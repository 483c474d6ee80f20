"""HTTP with a deadline for the whole answer and a limit on its size.

A socket's timeout bounds a single read, so a server that sends a byte now and then could keep a client waiting for
ever. Here the timeout of every read is what is left until the deadline.
"""

import functools
import http.client
import io
import socket
import time
import urllib.request
from typing import Any

_CHUNK = 1 << 16


class TooLarge(Exception):
    """An answer has more bytes than are accepted."""


def opener() -> urllib.request.OpenerDirector:
    """An opener for http and https, through a proxy if the environment names one. Its `timeout` bounds request and
    answer together. It follows no redirection, which would send the request, key included, to another host."""
    return urllib.request.build_opener(_Handler, _SecureHandler, _NoRedirect)


def read_all(answer: Any, largest: int) -> bytes:
    """The whole body of an answer.

    Raises:
      TooLarge: it has more than `largest` bytes.
      http.client.IncompleteRead: it ended before all bytes that its header announced.
    """
    chunks, size = [], 0
    while chunk := answer.read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > largest:
            raise TooLarge
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(chunks)


class _Deadlined(io.RawIOBase):
    """Reads from a socket until a time of the monotonic clock."""

    def __init__(self, connection: socket.socket, until: float):
        self._connection, self._until = connection, until
        self._bytes = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_left(self._until))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """A response whose header and body must arrive by a time of the monotonic clock."""

    def __init__(self, sock: socket.socket, *args: Any, until: float, **options: Any):
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Deadlined(sock, until))


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, timeout: float = 60.0, **options: Any):
        super().__init__(*args, timeout=timeout, **options)
        self._until = time.monotonic() + timeout
        self.response_class = functools.partial(_Answer, until=self._until)  # pyright: ignore[reportAttributeAccessIssue]

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_left(self._until))
        super().send(data)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    pass


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _left(until: float) -> float:
    """Seconds until a time of the monotonic clock. Raises TimeoutError if it has passed."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
