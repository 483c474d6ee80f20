"""An engine that asks a server with OpenAI's chat completions interface, hosted or one's own.

Programs use token ids, but a server's tokens are unknown. So an id stands for a character or the mark of a chat turn
(prompts/code_points.py), and the number of tokens spent is what the server reports as `usage`.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import itertools
import json
import os
import queue
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from spare_jax.engines.secret import Secret
from spare_jax.engines.timed_http import TooLarge, opener, read_all
from spare_jax.programs import Completion, Failure, Request, Sample
from spare_jax.prompts.code_points import END, CodePoints, messages_of

PREFIX = "endpoint:"  # a model's path in the config may be "endpoint:<the server's name for the model>"
URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"

_TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # status codes
_LASTING = (400, 404, 413, 422)  # something is wrong with the request, such as a text beyond the model's context
_NO_SERVER = (502, 503, 504)  # a proxy cannot reach the server
_LONGEST_WAIT = 60.0  # seconds
# A token has a few bytes, up to 128 if it is a line of dashes or if each byte is escaped; around texts there is JSON.
_BYTES_PER_TOKEN, _ENVELOPE = 256, 1 << 20
_MOST_TOKENS = 10**9  # greater numbers in `usage` are not believed


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model on a server, where a loaded Checkpoint would otherwise stand."""

    model: str
    tokenizer: Any = dataclasses.field(default_factory=CodePoints)


class EndpointEngine:
    """Answers `Sample` requests by chat completions, several at a time.

    Address and key of the server are read from OPENAI_BASE_URL and OPENAI_API_KEY; neither is logged or shown in an
    error. A request is sent again, after growing pauses, if the server is busy, fails, takes too long, or its answer is
    cut or holds no text; a request that the server refuses fails. If nothing was heard from the server during all
    attempts of a request, it counts as gone: then requests fail at once, except one at a time that tests whether it is
    back. A prompt that ends inside the assistant's turn is sent with `continue_final_message`, an extension that vLLM
    and SGLang know.

    Args:
      model: the server's name for the model.
      seed: of the run; the seed that is sent with a request is made from it and the request's id.
      concurrency: how many requests wait for the server at once.
      attempts: how often a request is sent before it fails.
      pause: seconds before the second attempt; doubled before each further one.
      timeout: seconds from sending to the last byte of an answer.

    Raises:
      ValueError: OPENAI_BASE_URL is no address, or OPENAI_API_KEY cannot be sent in a header.
    """

    def __init__(
        self,
        model: str,
        seed: int = 0,
        concurrency: int = 16,
        attempts: int = 6,
        pause: float = 1.0,
        timeout: float = 600.0,
    ):
        self._url, self._secret = f"{_address()}/chat/completions", Secret(_key())
        self._model, self._seed, self._attempts, self._pause = model, seed, attempts, pause
        self._timeout = timeout
        self._open = opener().open
        self._in_progress: dict[str, float] = {}  # when each request that waits for the server now was sent
        self._last_heard = time.monotonic()
        self._gone = ""  # why the server counts as gone, empty where it does not
        self._looking = threading.Lock()
        # Threads of our own, which end with the process: a pool would first send all that is queued.
        self._concurrency, self._threads, self._lock = concurrency, 0, threading.Lock()
        self._queued: queue.SimpleQueue[tuple[str, Sample]] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[tuple[str, tuple[Completion, ...] | Failure]] = queue.SimpleQueue()
        self.stats = Counter()

    def submit(self, request_id: str, request: Request) -> None:
        """Queue a request.

        Raises:
          ValueError: a server cannot answer it: it is a Score, or has a grammar or stop ids.
        """
        if not isinstance(request, Sample):
            raise ValueError("an endpoint gives no scores: name a reward model's directory")
        if request.grammar is not None:
            raise ValueError("an endpoint holds no answer to a grammar: switch the judge's grammar off")
        if strange := set(request.stop) - {END}:
            raise ValueError(f"an endpoint ends its answers itself, not at ids such as {min(strange)}")
        with self._lock:
            self._queued.put((request_id, request))
            if self._threads < self._concurrency:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()

    def poll(self) -> list[tuple[str, tuple[Completion, ...] | Failure]]:
        """The (request id, answer) of requests that are done; waits for the first, but at most half a second."""
        answers = []
        with contextlib.suppress(queue.Empty):
            answers.append(self._answered.get(timeout=0.5))
            while True:
                answers.append(self._answered.get_nowait())
        return answers

    def _work(self) -> None:
        """Answer queued requests until there is none: what each thread runs."""
        while True:
            with self._lock:
                try:
                    request_id, request = self._queued.get_nowait()
                except queue.Empty:
                    self._threads -= 1
                    return
            try:
                answer = self._answer(request_id, request)
            except Exception as error:  # if the thread died, the request's program would wait for ever
                if isinstance(error, _Refused):
                    answer = Failure(str(error), error.passing)
                else:  # its text may hold the key
                    answer = Failure(f"asking the server: {type(error).__name__}")
            self._answered.put((request_id, answer))

    def _answer(self, request_id: str, request: Sample) -> tuple[Completion, ...]:
        seed = hashlib.blake2b(f"{self._seed}/{request_id}".encode(), digest_size=4).digest()
        body = {
            "model": self._model,
            "messages": messages_of(request.all_ids()),
            "n": request.n,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": int.from_bytes(seed, "big") >> 1,
        }
        if request.top_k:
            body["top_k"] = request.top_k
        if body["messages"][-1]["role"] == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        data, jitter = json.dumps(body).encode(), random.Random(request_id)
        largest = _ENVELOPE + _BYTES_PER_TOKEN * request.n * request.max_tokens
        with self._turn() as attempts:
            began = sent = time.monotonic()
            why, wait = "", 0.0
            for attempt in range(attempts):
                time.sleep(wait)
                self._in_progress[request_id] = sent = time.monotonic()
                try:
                    completions = self._read(self._post(data, largest), request.n)
                except _Again as again:
                    why = str(again)
                    wait = min(_LONGEST_WAIT, again.after or self._pause * 2**attempt * (1 + 0.25 * jitter.random()))
                    if not again.no_server:
                        self._heard()
                except _Refused:
                    self._heard()
                    raise
                else:
                    self._heard()
                    return completions
                finally:
                    del self._in_progress[request_id]
        why = self._gone or f"the server did not answer in {attempts} attempts: {why}"
        # A request that was sent before this one's last attempt, and still waits, may be what the server works on.
        if self._last_heard < began and not any(other < sent for other in self._in_progress.copy().values()):
            self._gone = why
        raise _Refused(why)

    def _heard(self) -> None:
        self._last_heard, self._gone = time.monotonic(), ""

    @contextlib.contextmanager
    def _turn(self) -> Iterator[int]:
        """How many attempts a request has. While the server is gone, one request at a time has one; others are
        refused."""
        if not (gone := self._gone):
            yield self._attempts
        elif self._looking.acquire(blocking=False):
            try:
                yield 1
            finally:
                self._looking.release()
        else:
            raise _Refused(gone)

    def _post(self, data: bytes, largest: int) -> Any:
        """The decoded JSON answer. Raises _Again if another attempt may succeed, _Refused if not."""
        headers = {"Content-Type": "application/json"}
        if self._secret.key:
            headers["Authorization"] = f"Bearer {self._secret.key}"
        try:
            with self._open(urllib.request.Request(self._url, data, headers), timeout=self._timeout) as answer:
                # Whole numbers become floats: Python refuses an int of 5,000 digits, and the texts would be lost.
                return json.loads(read_all(answer, largest), parse_int=float)
        except urllib.error.HTTPError as error:
            explanation = self._explanation(error)
            if error.code in _TRY_AGAIN:
                after, no_server = _seconds(error.headers.get("Retry-After")), error.code in _NO_SERVER
                raise _Again(f"status {error.code}{explanation}", after, no_server) from None
            passing = error.code not in _LASTING
            raise _Refused(f"the server refused with status {error.code}{explanation}", passing) from None
        except TooLarge:
            raise _Again(f"its answer is larger than {largest:,} bytes") from None
        except (ValueError, RecursionError):
            raise _Again("its answer is no JSON") from None
        except http.client.HTTPException:
            raise _Again("its answer was cut short") from None
        except TimeoutError:
            raise _Again(f"its answer was not whole in {self._timeout:g} s", no_server=True) from None
        except OSError as error:  # refused, reset; the text would name the address
            reason = getattr(error, "reason", error)
            raise _Again(f"no connection ({type(reason).__name__})", no_server=True) from None

    def _explanation(self, error: urllib.error.HTTPError) -> str:
        """The server's explanation of its refusal as one line, without the key."""
        hint = f" (check {KEY_VARIABLE})" if error.code in (401, 403) else ""
        try:
            text = error.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return hint
        text = " ".join(self._secret.hidden(text).split())[:200]
        return (f": {text}" if text else "") + hint

    def _read(self, answer: Any, n: int) -> tuple[Completion, ...]:
        """The completions of a decoded answer; the prompt's tokens are counted by the first."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices:
            raise _Again("its answer holds no choices")
        if len(choices) != n:
            raise _Refused(f"the server gave {len(choices)} answers where {n} were asked: it must know `n`")
        texts = [_text(choice) for choice in choices]
        if any(self._secret.is_in(text) for text, _ in texts):
            raise _Refused(f"the server's text is withheld: it repeats {KEY_VARIABLE}")
        usage = answer.get("usage")
        prompt, generated = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
        cached = min(prompt, _count(details, "cached_tokens"))
        coded = [[ord(character) for character in text] for text, _ in texts]
        with self._lock:
            self.stats.update(prompt_tokens=prompt, generated_tokens=generated, computed_tokens=prompt - cached)
        shares = _shares(generated, [len(ids) for ids in coded])
        return tuple(
            Completion(
                ids=(*ids, END) if reason == "stop" else tuple(ids),
                finish_reason="stop" if reason == "stop" else "length",
                prompt_tokens=prompt if i == 0 else 0,
                generated_tokens=share,
            )
            for i, (ids, (_, reason), share) in enumerate(zip(coded, texts, shares, strict=True))
        )


def _text(choice: Any) -> tuple[str, str]:
    """The text of one choice, and "stop" or "length".

    A choice without text, such as a refusal, a tool call or reasoning alone, is an error and not an empty text: a judge
    would read from an empty text that nothing is wrong. Raises _Again if another attempt may succeed, _Refused if not.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise _Again("its answer has not the form of a chat completion")
    reason = choice.get("finish_reason")
    if message.get("refusal") or reason == "content_filter":
        raise _Refused("the server's model refused to answer", passing=False)
    if message.get("tool_calls") or message.get("function_call") or reason in ("tool_calls", "function_call"):
        raise _Refused("the server's model called a tool instead of answering: offer it none", passing=False)
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    text = "".join(_part(part) for part in parts)
    if text.strip():
        return text, "stop" if reason == "stop" else "length"
    if reason == "length":
        why = "the server's model reached the limit of tokens before its answer began: raise max_tokens"
        raise _Refused(why, passing=False)
    thought = message.get("reasoning_content") or message.get("reasoning")
    raise _Again("its answer is reasoning alone" if thought else "its answer holds no text")


def _part(part: Any) -> str:
    """The text of one part of a message; empty for a missing text and for reasoning."""
    if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
        text = part.get("text")
        if text is None or isinstance(text, str):
            # Half of a surrogate pair is no character.
            return (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
        return ""
    if isinstance(part, dict) and part.get("type") == "refusal":
        raise _Refused("the server's model refused to answer", passing=False)
    raise _Again("its answer holds something else than text")


def _count(usage: Any, name: str) -> int:
    """A number of tokens as the server says it; 0 where it says none that could be."""
    count = usage.get(name) if isinstance(usage, dict) else None
    # A comparison with NaN is false, and a bool is no number here.
    return int(count) if isinstance(count, float) and 0 <= count <= _MOST_TOKENS else 0


def _address() -> str:
    """The server's address, without a slash at its end."""
    url = os.environ.get(URL_VARIABLE, "").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(url)
        there = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # of the port, or of brackets
        there = False
    if not (there and re.fullmatch("[!-~]+", url)):
        raise ValueError(f"{URL_VARIABLE} is not set to a server's address: export it, as https://HOST/v1")
    return url


def _key() -> str:
    """The server's key, empty where it wants none."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not re.fullmatch("[!-~]*", key):
        raise ValueError(
            f"{KEY_VARIABLE} holds a character that no header can carry, such as a line break, a blank or a letter "
            "beyond ASCII: export the key alone"
        )
    return key


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """`total` tokens divided among texts in proportion to their lengths, as whole numbers with this sum: servers report
    only the sum."""
    ends, so_far, whole = [0], 0, max(1, sum(lengths))
    for length in lengths:
        so_far += length
        ends.append(round(total * so_far / whole))
    return [b - a for a, b in itertools.pairwise(ends)]


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:  # a date
        return None


class _Again(Exception):
    """An attempt failed and another may succeed. `after`: how many seconds the server asks to wait. `no_server`: it may
    be that there is no server."""

    def __init__(self, why: str, after: float | None = None, no_server: bool = False):
        super().__init__(why)
        self.after, self.no_server = after, no_server


class _Refused(Exception):
    """The request fails. `passing`: asked again by another run, it may be answered."""

    def __init__(self, why: str, passing: bool = True):
        super().__init__(why)
        self.passing = passing
