"""The engine that runs a decoder on this machine's devices: batched prefill, slots refilled as sequences end, scores.

What a request gets back depends on the request, the model, the seed and this engine's settings alone (ARCHITECTURE.md,
"Idea 5"): a prompt is padded to a bucket that its own length decides, every batch has a fixed number of rows, and
randomness is keyed by the request id (sampling.py).
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import DTypeLike

from spare_jax.engines import slots as device
from spare_jax.engines.sampling import digest32
from spare_jax.models.decoder import Decoder, DecoderConfig, KVCache, hidden_states
from spare_jax.models.heads import TokenTagConvention, step_scores
from spare_jax.programs import Completion, Request, Sample, Score

ENTRIES = 32  # samples that one `insert` call can bring into slots
BATCH_AXES = ("data", "fsdp")  # mesh axes that share out slots and rows of a batch


def bucket_length(length: int, max_length: int) -> int:
    """The padded length of a sequence: the least of 64, 128, 192, 256, 384, 512, 768, ... that holds it, or
    max_length if that is less."""
    bucket = 64
    while bucket < length:
        # 64 * (1, 2, 3, 4, 6, 8, 12, 16, ...): powers of two, and from 128 on their middles.
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 and bucket > 64 else 1 << bucket.bit_length()
    return min(bucket, max_length)


@dataclasses.dataclass
class _Job:
    """A Sample request on its way; `completions` fills up in any order."""

    request_id: str
    request: Sample
    ids: list[int]
    completions: dict[int, Completion] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Occupant:
    """The sample in a slot, and what it has generated so far."""

    job: _Job
    sample: int
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)


class _Batch(NamedTuple):
    """Prefilled prompts whose samples still wait for slots."""

    prefilled: device.Prefilled
    waiting: collections.deque  # of (row, job, sample)


class _Compiled(NamedTuple):
    empty: Callable[..., device.SlotState]
    prefill: Callable[..., device.Prefilled]
    insert: Callable[..., device.SlotState]
    decode: Callable[..., tuple[device.SlotState, jax.Array]]
    score: Callable[..., jax.Array]


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
      mesh: where to compute; None for the default device.
      convention: how `Score` requests are read; None if there are none.
      dtype: of computation and cache.

    Raises:
      ValueError: a size is below 1, or max_length exceeds what the model was made for.
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
        mesh: Mesh | None = None,
        convention: TokenTagConvention | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        for name, value in {"slots": slots, "max_length": max_length, "chunk": chunk, "prefill_batch": prefill_batch}.items():
            if value < 1:
                raise ValueError(f"LocalEngine: {name}={value}; set it to 1 or more")
        if max_length > config.max_length:
            raise ValueError(
                f"LocalEngine: max_length={max_length} exceeds the {config.max_length} positions of the model: lower it"
            )
        self._model = model
        self._config = config
        self._pad_id = pad_id
        self._max_length = max_length
        self._rows = prefill_batch
        self._convention = convention
        self._compiled = _compile(config, slots, max_length, chunk, prefill_batch, mesh, jnp.dtype(dtype))
        self._chunk = chunk
        self._seed_key = jax.random.key(seed)
        self._state = self._compiled.empty()
        self._occupants: list[_Occupant | None] = [None] * slots
        self._prompts: dict[int, collections.deque[_Job]] = {}
        self._batch: _Batch | None = None
        self._scores: dict[tuple[int, int], collections.deque[tuple[str, list[int], tuple[int, ...]]]] = {}
        self._finished: list[tuple[str, tuple[Completion, ...]]] = []
        self._underway: set[str] = set()
        self._stats = dict.fromkeys(
            ("requests", "prompt_tokens", "generated_tokens", "scored_tokens", "prefills", "decode_chunks", "score_batches"), 0
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
            self._prompts.setdefault(bucket, collections.deque()).append(_Job(request_id, request, ids))
        elif request.positions:
            key = bucket, _position_bucket(len(request.positions))
            self._scores.setdefault(key, collections.deque()).append((request_id, ids, request.positions))
        else:
            self._finish(request_id, (Completion(),))
        self._underway.add(request_id)
        self._stats["requests"] += 1

    def poll(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """Fill free slots, decode one chunk, score one batch; the requests that this finished."""
        self._fill_slots()
        if any(self._occupants):
            self._decode()
        if self._scores:
            self._score()
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
            if self._convention is None:
                return "this engine scores nothing: construct it with the convention of a reward model"
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
        if len(request.stop) > device.MAX_STOPS:
            return f"{len(request.stop)} stop ids: at most {device.MAX_STOPS} are possible"
        if any(not 0 <= stop < self._config.vocab_size for stop in request.stop):
            return f"a stop id lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
        return None

    def _finish(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        self._finished.append((request_id, completions))

    def _fill_slots(self) -> None:
        """Move samples into free slots until one of the two runs out, prefilling prompts as needed."""
        free = [slot for slot, occupant in enumerate(self._occupants) if occupant is None]
        while free:
            if self._batch is None:
                if not self._prompts:
                    return
                self._batch = self._prefill()
            waiting = self._batch.waiting
            entering = [(free.pop(0), *waiting.popleft()) for _ in range(min(ENTRIES, len(free), len(waiting)))]
            self._state = self._compiled.insert(
                self._state, self._batch.prefilled, self._admission(entering), self._seed_key
            )
            for slot, _, job, sample in entering:
                self._occupants[slot] = _Occupant(job, sample)
            if not waiting:
                self._batch = None

    def _prefill(self) -> _Batch:
        """Run the next prompts: of the bucket with most of them waiting, so that batches are full while they can be."""
        bucket, jobs = _take(self._prompts, self._rows)
        ids, lengths = self._pad([job.ids for job in jobs], bucket)
        prefilled = self._compiled.prefill(self._model, ids, lengths)
        self._stats["prefills"] += 1
        self._stats["prompt_tokens"] += sum(len(job.ids) for job in jobs)
        waiting = ((row, job, k) for row, job in enumerate(jobs) for k in range(job.request.n))
        return _Batch(prefilled, collections.deque(waiting))

    def _pad(self, rows: list[list[int]], bucket: int) -> tuple[np.ndarray, np.ndarray]:
        """A full batch of ids, padded on the right, and lengths; rows beyond those given are one pad token."""
        ids = np.full((self._rows, bucket), self._pad_id, np.int32)
        lengths = np.ones(self._rows, np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            lengths[i] = len(row)
        return ids, lengths

    def _admission(self, entering: list[tuple[int, int, _Job, int]]) -> device.Admission:
        slots = len(self._occupants)
        filled = slice(0, len(entering))
        # Entries that are not used aim at slots that do not exist, each at another one: scatters need not be ordered.
        slot, row, length, sample, limit, top_k = np.zeros((6, ENTRIES), np.int32)
        slot[:] = slots + np.arange(ENTRIES)
        digest = np.zeros(ENTRIES, np.uint32)
        temperature, top_p = np.ones((2, ENTRIES), np.float32)
        stops = np.full((ENTRIES, device.MAX_STOPS), -1, np.int32)
        slot[filled] = [s for s, _, _, _ in entering]
        row[filled] = [r for _, r, _, _ in entering]
        sample[filled] = [k for _, _, _, k in entering]
        for i, (_, _, job, _) in enumerate(entering):
            request = job.request
            length[i], digest[i] = len(job.ids), digest32(job.request_id)
            limit[i], top_k[i] = request.max_tokens, request.top_k
            temperature[i], top_p[i] = request.temperature, request.top_p
            stops[i, : len(request.stop)] = request.stop
        return device.Admission(
            slot, row, length, digest, sample, device.Settings(limit, temperature, top_p, top_k, stops)
        )

    def _decode(self) -> None:
        self._state, chunk = self._compiled.decode(self._model, self._state)
        chunk = np.asarray(chunk)
        self._stats["decode_chunks"] += 1
        ids, logprobs = chunk[: self._chunk].T, chunk[self._chunk : -1].view(np.float32).T
        counts = (ids >= 0).sum(axis=1).tolist()
        self._stats["generated_tokens"] += sum(counts)
        for slot, (occupant, count, active) in enumerate(zip(self._occupants, counts, chunk[-1].tolist(), strict=True)):
            if occupant is None:
                continue
            occupant.ids += ids[slot, :count].tolist()
            occupant.logprobs += logprobs[slot, :count].tolist()
            if not active:
                self._occupants[slot] = None
                self._complete(occupant)

    def _complete(self, occupant: _Occupant) -> None:
        job = occupant.job
        reason = "stop" if occupant.ids[-1] in job.request.stop else "length"
        job.completions[occupant.sample] = Completion(tuple(occupant.ids), tuple(occupant.logprobs), reason)
        if len(job.completions) == job.request.n:
            self._finish(job.request_id, tuple(job.completions[k] for k in range(job.request.n)))

    def _score(self) -> None:
        (bucket, width), batch = _take(self._scores, self._rows)
        ids, lengths = self._pad([ids for _, ids, _ in batch], bucket)
        positions = np.zeros((self._rows, width), np.int32)
        for i, (_, _, wanted) in enumerate(batch):
            positions[i, : len(wanted)] = wanted
        scores = np.asarray(self._compiled.score(self._model, ids, lengths, positions, convention=self._convention)).tolist()
        self._stats["score_batches"] += 1
        self._stats["scored_tokens"] += sum(len(ids) for _, ids, _ in batch)
        for (request_id, _, wanted), row in zip(batch, scores, strict=False):
            self._finish(request_id, (Completion(scores=tuple(row[: len(wanted)])),))


def _take(queues: dict[Any, collections.deque], most: int) -> tuple[Any, list]:
    """Up to `most` items of the longest queue (the first of equals), and its key; an empty queue is removed."""
    key = max(queues, key=lambda key: len(queues[key]))
    queue = queues[key]
    items = [queue.popleft() for _ in range(min(most, len(queue)))]
    if not queue:
        del queues[key]
    return key, items


def _position_bucket(count: int) -> int:
    """The padded number of positions of a Score request: a power of two, at least 16."""
    return max(16, 1 << (count - 1).bit_length())


def _score_rows(model, ids, lengths, positions, convention, dtype):
    """P(+) at `positions` [batch, steps] of sequences `ids` [batch, bucket] padded on the right."""
    index = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    segments = (index < lengths[:, None]).astype(jnp.int32)
    return step_scores(model, hidden_states(model, ids, index, segments, dtype=dtype), positions, convention)


@functools.lru_cache(maxsize=16)
def _compile(
    config: DecoderConfig, slots: int, length: int, chunk: int, rows: int, mesh: Mesh | None, dtype: np.dtype
) -> _Compiled:
    """The jitted functions of an engine of these sizes; engines of equal sizes share what they compiled.

    Every result has a fixed sharding: one that the compiler chose could differ from the argument's and make the next
    call compile again.
    """
    if mesh is None:
        whole = by_slot = slot_cache = by_row = row_cache = SingleDeviceSharding(jax.devices()[0])
    else:
        shares = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
        slot_axes = None if slots % shares else BATCH_AXES
        row_axes = None if rows % shares else BATCH_AXES
        head_axis = None if config.num_kv_heads % mesh.shape["tensor"] else "tensor"
        whole, by_slot, slot_cache, by_row, row_cache = (
            NamedSharding(mesh, PartitionSpec(*axes))
            for axes in ((), (slot_axes,), (None, slot_axes, None, head_axis), (row_axes,), (None, row_axes, None, head_axis))
        )
    empty = functools.partial(device.empty_slots, config, slots, length, dtype)
    state = jax.tree.map(lambda _: by_slot, jax.eval_shape(empty))._replace(cache=KVCache(slot_cache, slot_cache))
    return _Compiled(
        empty=jax.jit(empty, out_shardings=state),
        prefill=jax.jit(
            functools.partial(device.prefill_prompts, dtype=dtype),
            out_shardings=device.Prefilled(by_row, row_cache, row_cache),
        ),
        insert=jax.jit(device.insert, donate_argnums=0, out_shardings=state),
        decode=jax.jit(
            functools.partial(device.decode_chunk, steps=chunk), donate_argnums=1, out_shardings=(state, whole)
        ),
        score=jax.jit(
            functools.partial(_score_rows, dtype=dtype), static_argnames="convention", out_shardings=whole
        ),
    )
