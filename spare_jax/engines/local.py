"""The engine that runs a decoder on this machine's devices: batched prefill, slots refilled as sequences end, scores.

What a request gets back depends on the request, the model, the seed and this engine's sizes alone (ARCHITECTURE.md):
a prompt is padded to a bucket that its own length decides, every batch has a fixed number of rows, and randomness is
keyed by the request id (sampling.py).
"""

import collections
import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from spare_jax.engines.compiled import compile_functions
from spare_jax.engines.lanes import Job, Lane
from spare_jax.engines.slots import MAX_STOPS
from spare_jax.models.decoder import Decoder, DecoderConfig
from spare_jax.models.heads import Head, ReadOut
from spare_jax.programs import Completion, Request, Sample, Score


def bucket_length(length: int, max_length: int) -> int:
    """The padded length of a sequence: the least of 64, 128, 192, 256, 384, 512, 768, ... that holds it, or
    max_length if that is less."""
    bucket = 64
    while bucket < length:
        # 64 * (1, 2, 3, 4, 6, 8, 12, 16, ...): powers of two, and from 128 on their middles.
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 and bucket > 64 else 1 << bucket.bit_length()
    return min(bucket, max_length)


class LocalEngine:
    """Answers `Sample` and `Score` requests with one decoder.

    Args:
      model: parameters; on a mesh already placed with their shardings.
      config: the decoder's sizes.
      pad_id: any valid id; fills rows, and no result depends on it.
      seed: with the request id decides every draw.
      slots: how many sequences are decoded at once.
      max_length: most tokens of prompt and answer together.
      chunk: decode steps between two visits of the host.
      prefill_batch: rows of a prefill or score batch.
      lanes: how many threads share out the slots. A decode step of a small model keeps one CPU core busy and no
        more, so a CPU wants as many lanes as it has cores; an accelerator wants 1.
      mesh: where to compute; None for the default device.
      read_out: how `Score` requests are read; None if there are none.
      head: the reward model's own, where `read_out` reads one.
      dtype: of computation and cache.

    Raises:
      ValueError: a size is below 1, lanes do not divide slots or meet a mesh, or max_length exceeds what the model
        was made for.
    """

    def __init__(
        self,
        model: Decoder,
        config: DecoderConfig,
        pad_id: int,
        seed: int,
        slots: int = 128,
        max_length: int = 512,
        chunk: int = 16,
        prefill_batch: int = 8,
        lanes: int = 1,
        mesh: Mesh | None = None,
        read_out: ReadOut | None = None,
        head: Head | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        sizes = {"slots": slots, "max_length": max_length, "chunk": chunk, "prefill_batch": prefill_batch}
        for name, value in (sizes | {"lanes": lanes}).items():
            if value < 1:
                raise ValueError(f"LocalEngine: {name}={value}; set it to 1 or more")
        if slots % lanes:
            raise ValueError(f"LocalEngine: slots={slots} do not divide by lanes={lanes}: set slots to a multiple")
        if lanes > 1 and mesh is not None and mesh.size > 1:
            raise ValueError(
                f"LocalEngine: lanes={lanes} on a mesh of {mesh.size} devices, whose programs must not overlap: "
                "set lanes to 1"
            )
        if max_length > config.max_length:
            raise ValueError(
                f"LocalEngine: max_length={max_length} exceeds the {config.max_length} positions of the model: lower it"
            )
        self._model = model
        self._config = config
        self._pad_id = pad_id
        self._max_length = max_length
        self._rows = prefill_batch
        self._read_out = read_out
        self._compiled = compile_functions(
            config, slots // lanes, max_length, chunk, prefill_batch, mesh, jnp.dtype(dtype)
        )
        self._head = jax.device_put(head, self._compiled.place)
        seed_key = jax.device_put(jax.random.key(seed), self._compiled.place)
        self._lanes = [Lane(self._compiled, slots // lanes, chunk, seed_key) for _ in range(lanes)]
        self._threads = concurrent.futures.ThreadPoolExecutor(lanes) if lanes > 1 else None
        self._jobs: dict[int, collections.deque[Job]] = {}  # by bucket
        self._scores: dict[tuple[int, int], collections.deque[tuple[str, list[int], Score]]] = {}
        self._finished: list[tuple[str, tuple[Completion, ...]]] = []
        self._underway: set[str] = set()
        self._stats = collections.Counter(
            requests=0, prompt_tokens=0, generated_tokens=0, scored_tokens=0, prefills=0, chunks=0, score_batches=0
        )

    @property
    def stats(self) -> dict[str, int]:
        """Work done since the engine was made; prompt tokens count once for the n samples of a request."""
        return dict(self._stats)

    def submit(self, request_id: str, request: Request) -> None:
        """Queue a request.

        Raises:
          ValueError: the request cannot be answered, or its id is under way already; says what to change.
        """
        if request_id in self._underway:
            raise ValueError(f"request {request_id!r} is under way already: request ids must be unique")
        ids = list((request.prefix.all_ids() if request.prefix else ()) + request.ids)
        if fault := self._fault(request, ids):
            raise ValueError(f"request {request_id!r}: {fault}")
        bucket = bucket_length(len(ids), self._max_length)
        if isinstance(request, Sample):
            self._jobs.setdefault(bucket, collections.deque()).append(Job(request_id, request, ids))
        else:
            key = bucket, _position_bucket(len(request.positions))
            self._scores.setdefault(key, collections.deque()).append((request_id, ids, request))
        self._underway.add(request_id)
        self._stats["requests"] += 1

    def poll(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """Fill free slots, decode one chunk and score one batch per lane; the requests that this finished."""
        self._fill_lanes()
        lanes = [lane for lane in self._lanes if lane.busy]
        scores = [_take(self._scores, self._rows) for _ in self._lanes if self._scores]
        work = [functools.partial(lane.work, self._model) for lane in lanes]
        work += [functools.partial(self._score, *batch) for batch in scores]
        results = self._run(work)
        for lane, fetched in zip(lanes, results, strict=False):
            tokens, completed = lane.collect(fetched)
            self._stats.update(chunks=1, generated_tokens=tokens)
            for job in completed:
                self._finish(job.request_id, tuple(job.completions[k] for k in range(job.request.n)))
        for (_, batch), rows in zip(scores, results[len(lanes) :], strict=True):
            self._stats.update(score_batches=1, scored_tokens=sum(len(ids) for _, ids, _ in batch))
            for (request_id, _, request), row in zip(batch, rows.tolist(), strict=False):
                self._finish(request_id, (Completion(scores=tuple(row[: len(request.positions)])),))
        finished, self._finished = self._finished, []
        self._underway.difference_update(request_id for request_id, _ in finished)
        return finished

    def _fault(self, request: Request, ids: list[int]) -> str | None:
        """What makes a request impossible to answer, and the remedy."""
        if not ids:
            return "the prompt is empty: give it at least one token"
        if not 0 <= min(ids) <= max(ids) < self._config.vocab_size:
            return f"an id lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
        if isinstance(request, Score):
            if self._read_out is None:
                return "this engine scores nothing: construct it with the read-out of a reward model"
            if len(ids) > self._max_length:
                return f"{len(ids)} tokens exceed max_length={self._max_length}: shorten the text or raise max_length"
            if request.positions and not 0 <= min(request.positions) <= max(request.positions) < len(ids):
                return f"a position lies outside the {len(ids)} tokens: count positions from the start of the prefix"
            return None
        if request.max_tokens < 1:
            return f"max_tokens={request.max_tokens}: ask for at least one token"
        if len(ids) + request.max_tokens > self._max_length:
            return (
                f"{len(ids)} prompt tokens + max_tokens={request.max_tokens} exceed max_length={self._max_length}: "
                "shorten the prompt, lower max_tokens or raise max_length"
            )
        if request.n < 1:
            return f"n={request.n}: ask for at least one sample"
        if not 0 <= request.temperature < float("inf"):
            return f"temperature={request.temperature}: use 0 (greedy) or more"
        if not 0 < request.top_p <= 1:
            return f"top_p={request.top_p}: use a value in (0, 1]; 1 switches the filter off"
        if request.top_k < 0:
            return f"top_k={request.top_k}: use 0 (off) or more"
        if len(request.stop) > MAX_STOPS:
            return f"{len(request.stop)} stop ids: at most {MAX_STOPS} are possible"
        if any(not 0 <= stop < self._config.vocab_size for stop in request.stop):
            return f"a stop id lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
        return None

    def _finish(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        self._finished.append((request_id, completions))

    def _run(self, work: list[Callable[[], np.ndarray]]) -> list[np.ndarray]:
        """The results of `work`, done at the same time where there are threads."""
        if self._threads is None:
            return [item() for item in work]
        return [future.result() for future in [self._threads.submit(item) for item in work]]

    def _fill_lanes(self) -> None:
        """Move samples into free slots until one of the two runs out; new prompts go where most slots are free."""
        for lane in self._lanes:
            lane.admit()
        while self._jobs and (lane := max(self._lanes, key=lambda lane: lane.free)).free:
            bucket, jobs = _take(self._jobs, self._rows)
            lane.start(jobs, *self._pad([job.ids for job in jobs], bucket))
            self._stats.update(prefills=1, prompt_tokens=sum(len(job.ids) for job in jobs))

    def _pad(self, rows: list[list[int]], bucket: int) -> tuple[np.ndarray, np.ndarray]:
        """A full batch of ids, padded on the right, and lengths; rows beyond those given are one pad token."""
        ids = np.full((self._rows, bucket), self._pad_id, np.int32)
        lengths = np.ones(self._rows, np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            lengths[i] = len(row)
        return ids, lengths

    def _score(self, key: tuple[int, int], batch: list[tuple[str, list[int], Score]]) -> np.ndarray:
        """Scores [rows, positions] of a batch of Score requests; those beyond a request's own mean nothing."""
        bucket, width = key
        ids, lengths = self._pad([ids for _, ids, _ in batch], bucket)
        positions = np.zeros((self._rows, width), np.int32)
        for i, (_, _, request) in enumerate(batch):
            positions[i, : len(request.positions)] = request.positions
        arrays = jax.device_put((ids, lengths, positions), self._compiled.place)
        return jax.device_get(self._compiled.score(self._model, self._head, *arrays, read_out=self._read_out))


def _take(queues: dict[Any, collections.deque], most: int) -> tuple[Any, list]:
    """Up to `most` items of the longest queue (the first of equals), and its key; an empty queue is removed.

    The longest, so that batches are full while they can be.
    """
    key = max(queues, key=lambda key: len(queues[key]))
    queue = queues[key]
    items = [queue.popleft() for _ in range(min(most, len(queue)))]
    if not queue:
        del queues[key]
    return key, items


def _position_bucket(count: int) -> int:
    """The padded number of positions of a Score request: a power of two, at least 16."""
    return max(16, 1 << max(count - 1, 0).bit_length())
