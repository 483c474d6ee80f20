"""An engine that asks a server: any that speaks OpenAI's chat completions, a hosted one or one's own.

Programs speak in token ids, and a server's tokens are its own: here an id is a character or the mark of a turn
(prompts/code_points.py), and what tokens were spent is what the server says in `usage`.
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
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from typing import Any

from spare_jax.programs import Completion, Failure, Request, Sample
from spare_jax.prompts.code_points import END, CodePoints, messages_of

PREFIX = "endpoint:"  # of a model's path in the config: "endpoint:<the server's name for the model>"
URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"

_TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_LONGEST_WAIT = 60.0
_TIMEOUT = 600.0


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model behind a server, in the place of a loaded checkpoint."""

    model: str
    tokenizer: Any = dataclasses.field(default_factory=CodePoints)


class EndpointEngine:
    """Answers `Sample` requests by chat completions, several at a time.

    The server's address and key are those of OPENAI_BASE_URL and OPENAI_API_KEY; neither is logged, nor shown in an
    error. A server that is busy, fails, cuts its answer or answers no JSON is asked again after growing pauses; what it
    refuses for good fails the request that asked. What a policy goes on from is sent as the beginning of the
    assistant's turn, with `continue_final_message`, which vLLM and SGLang know.

    Args:
      model: the server's name for the model.
      seed: of the run; each request sends its own, made from this one and its id.
      concurrency: how many requests wait for the server at once.
      attempts: how often a request is sent before it fails.
      pause: seconds before the second attempt; doubled before each further one.

    Raises:
      ValueError: OPENAI_BASE_URL is not set.
    """

    def __init__(self, model: str, seed: int = 0, concurrency: int = 16, attempts: int = 6, pause: float = 1.0):
        url = os.environ.get(URL_VARIABLE, "").rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{URL_VARIABLE} is not set to a server's address: export it, as https://HOST/v1")
        self._url, self._key = f"{url}/chat/completions", os.environ.get(KEY_VARIABLE, "")
        self._model, self._seed, self._attempts, self._pause = model, seed, attempts, pause
        self._open = urllib.request.build_opener(_NoRedirect).open
        # Threads of our own, which end with the process: a pool would first send all that is queued.
        self._concurrency, self._threads, self._lock = concurrency, 0, threading.Lock()
        self._queued: queue.SimpleQueue[tuple[str, Sample]] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[tuple[str, tuple[Completion, ...] | Failure]] = queue.SimpleQueue()
        self.stats = Counter()

    def submit(self, request_id: str, request: Request) -> None:
        """Send a request as soon as there is room.

        Raises:
          ValueError: the request is one that a server of this kind cannot answer.
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
        """What has been answered; waits for the first answer, half a second at most."""
        answers = []
        with contextlib.suppress(queue.Empty):
            answers.append(self._answered.get(timeout=0.5))
            while True:
                answers.append(self._answered.get_nowait())
        return answers

    def _work(self) -> None:
        """Answer what is queued, and end where nothing is."""
        while True:
            with self._lock:
                try:
                    request_id, request = self._queued.get_nowait()
                except queue.Empty:
                    self._threads -= 1
                    return
            try:
                answer = self._answer(request_id, request)
            except Exception as error:  # a thread that died would leave its program waiting for ever
                answer = Failure(str(error) if isinstance(error, _Refused) else f"asking the server: {error!r}")
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
        data, why, jitter = json.dumps(body).encode(), "", random.Random(request_id)
        for attempt in range(self._attempts):
            try:
                return self._read(self._post(data), request.n)
            except _Again as again:
                why = str(again)
                wait = min(_LONGEST_WAIT, again.after or self._pause * 2**attempt * (1 + 0.25 * jitter.random()))
            if attempt + 1 < self._attempts:
                time.sleep(wait)
        raise _Refused(f"the server did not answer in {self._attempts} attempts: {why}")

    def _post(self, data: bytes) -> Any:
        """The decoded answer. Raises _Again where another attempt may do, _Refused where none will."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._open(urllib.request.Request(self._url, data, headers), timeout=_TIMEOUT) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = self._said(error)
            if error.code in _TRY_AGAIN:
                raise _Again(f"status {error.code}{said}", _seconds(error.headers.get("Retry-After"))) from None
            raise _Refused(f"the server refused with status {error.code}{said}") from None
        except ValueError:
            raise _Again("its answer is no JSON") from None
        except http.client.HTTPException:
            raise _Again("its answer was cut short") from None
        except OSError as error:  # refused, reset, timed out; the text would name the address
            reason = getattr(error, "reason", error)
            raise _Again(f"no connection ({type(reason).__name__})") from None

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What the server says of its refusal, on one line, without the key."""
        try:
            text = error.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return ""
        if self._key:
            text = text.replace(self._key, "***")
        return f": {' '.join(text.split())[:200]}" if text.strip() else ""

    def _read(self, answer: Any, n: int) -> tuple[Completion, ...]:
        """The completions of a decoded answer, the first of which carries what the prompt took."""
        try:
            texts = [(choice["message"]["content"] or "", choice["finish_reason"]) for choice in answer["choices"]]
            usage = answer.get("usage") or {}
            prompt, generated = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
            cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
            coded = [[ord(character) for character in text] for text, _ in texts]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _Again("its answer has not the form of a chat completion") from None
        if len(texts) != n:
            raise _Refused(f"the server gave {len(texts)} answers where {n} were asked: it must know `n`")
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


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """`total` tokens dealt to texts by their lengths, whole numbers that sum to it: servers say only the sum."""
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


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nobody: another host would be handed the key."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class _Again(Exception):
    """An attempt failed, another may not; `after` is how many seconds the server asks to wait."""

    def __init__(self, why: str, after: float | None = None):
        super().__init__(why)
        self.after = after


class _Refused(Exception):
    """No attempt will do."""
