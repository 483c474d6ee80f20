"""The engine that runs a decoder on this machine's devices: prompts in shared pages, slots refilled as sequences end,
scores.

What a request gets back depends on the request, the model, the seed and this engine's sizes alone (ARCHITECTURE.md):
a prompt is computed in the pieces that the request declares, each padded to a bucket that its own length decides, in
a batch whose number of rows the bucket decides; and randomness is keyed by the request id (sampling.py).
"""

import collections
import concurrent.futures
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Sequence, Sized
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from spare_jax.engines.compiled import compile_functions
from spare_jax.engines.grammar import Grammars
from spare_jax.engines.lanes import Job, Lane
from spare_jax.engines.prefixes import Node, Pieces, PrefixTree
from spare_jax.engines.slots import MAX_STOPS
from spare_jax.models.cache import KEY_BLOCK, Piece, blocks_of
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import Head, ReadOut
from spare_jax.models.sharding import shardings_of
from spare_jax.programs import Completion, Failure, Request, Sample, Score

MAX_ROWS = 16  # of a batch of pieces
Answer = tuple[Completion, ...] | Failure
T = TypeVar("T")
Q = TypeVar("Q", bound=Sized)


def bucket_length(length: int, max_length: int) -> int:
    """The padded length of a sequence: the least of 64, 128, 192, 256, 384, 512, 768, ... that holds it, or
    max_length if that is less."""
    bucket = 64
    while bucket < length:
        # 64 * (1, 2, 3, 4, 6, 8, 12, 16, ...): powers of two, and from 128 on their middles.
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 and bucket > 64 else 1 << bucket.bit_length()
    return min(bucket, max_length)


def token_bytes(config: DecoderConfig, dtype: DTypeLike) -> int:
    """Bytes of the keys and values of one token."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * jnp.dtype(dtype).itemsize


@dataclasses.dataclass
class _Scoring:
    """A Score request on its way."""

    request_id: str
    request: Score
    context: Pieces  # what stands before the piece in which it has positions
    ids: tuple[int, ...]  # that piece
    keep: bool  # whether the piece may be continued by later requests
    node: Node | None = None  # what it uses


@dataclasses.dataclass
class _Row:
    """A piece to be computed behind `parent`: for a node, for a score, or for both."""

    parent: Node
    ids: tuple[int, ...]
    node: Node | None = None
    scoring: _Scoring | None = None


class LocalEngine:
    """Answers `Sample` and `Score` requests with one decoder.

    Args:
      model: parameters; on a mesh already placed with their shardings.
      config: the decoder's sizes.
      pad_id: any valid id; fills rows, and no result depends on it.
      seed: with the request id decides every draw.
      slots: how many sequences are decoded at once; fewer where `cache_bytes` hold fewer.
      max_length: most tokens of prompt and answer together.
      max_tokens: most tokens of an answer; None for max_length.
      cache_bytes: for keys and values. None for what `slots` sequences of the greatest lengths need, or for what an
        accelerator has left if that is less.
      chunk: decode steps between two visits of the host.
      prefill_tokens: tokens of a batch of prompts; a batch has as many rows of its bucket, but 1 to 16.
      lanes: how many threads share out the slots. A decode step of a small model keeps one CPU core busy and no
        more, so a CPU wants as many lanes as it has cores; an accelerator wants 1.
      mesh: where to compute; None for the default device.
      read_out: how `Score` requests without answers of their own are read; None if there are none.
      head: the reward model's own, where `read_out` reads one.
      tokens: the bytes of every token (prompts/chat.py), for requests with a grammar; empty if there are none.
      dtype: of computation and cache.

    Raises:
      ValueError: a size is below 1, lanes do not divide slots or meet a mesh, max_length exceeds what the model was
        made for, or cache_bytes do not hold one sequence per lane.
    """

    def __init__(
        self,
        model: Decoder,
        config: DecoderConfig,
        pad_id: int,
        seed: int,
        slots: int = 128,
        max_length: int = 512,
        max_tokens: int | None = None,
        cache_bytes: int | None = None,
        chunk: int = 16,
        prefill_tokens: int = 2048,
        lanes: int = 1,
        mesh: Mesh | None = None,
        read_out: ReadOut | None = None,
        head: Head | None = None,
        tokens: Sequence[bytes] = (),
        dtype: DTypeLike = jnp.float32,
    ):
        max_tokens = max_length if max_tokens is None else min(max_tokens, max_length)
        sizes = {"slots": slots, "max_length": max_length, "chunk": chunk, "prefill_tokens": prefill_tokens}
        for name, value in (sizes | {"lanes": lanes, "max_tokens": max_tokens}).items():
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
        self._config, self._mesh = config, mesh
        self._pad_id = pad_id
        self._max_length, self._max_tokens = max_length, max_tokens
        self._prefill_tokens = prefill_tokens
        self._read_out = read_out
        block_bytes = KEY_BLOCK * token_bytes(config, dtype)
        slots, pages = _share_out(cache_bytes, block_bytes, slots, lanes, max_length, max_tokens)
        self._compiled = compile_functions(config, slots // lanes, max_tokens, pages, chunk, mesh, jnp.dtype(dtype))
        self._head = jax.device_put(head, self._compiled.place)
        seed_key = jax.device_put(jax.random.key(seed), self._compiled.place)
        self._blocks = blocks_of(max_length)
        tile = min(slots // lanes, 8 if jax.default_backend() == "cpu" else 64)
        self._lanes = [Lane(self._compiled, slots // lanes, chunk, self._blocks, tile, seed_key) for _ in range(lanes)]
        self._threads = concurrent.futures.ThreadPoolExecutor(lanes) if lanes > 1 else None
        self._pages, self._num_pages = self._compiled.pages(), pages
        self._tree = PrefixTree(pages)
        self._grammars = Grammars([*tokens, *[b""] * (config.vocab_size - len(tokens))]) if tokens else None
        self._tables: tuple[Any, Any] = None, None  # as the grammars have them, and on the device
        self._jobs: dict[Any, list[tuple[int, int, Job]]] = {}  # heaps by bucket: -max_tokens, number, job
        self._ready: collections.deque[tuple[Job, int]] = collections.deque()  # samples whose prompts are computed
        self._scores: dict[Any, collections.deque[_Scoring]] = {}  # by bucket and what is read
        self._finished: list[tuple[str, Answer]] = []
        self._underway: set[str] = set()
        self._stats = collections.Counter(
            requests=0, prompt_tokens=0, computed_tokens=0, generated_tokens=0, scored_tokens=0, prefills=0, chunks=0
        )

    @property
    def stats(self) -> dict[str, int]:
        """Work done since the engine was made.

        prompt_tokens and scored_tokens are what an engine that shares nothing would have read for the requests that
        were taken up (a prompt counts for each of its n samples), computed_tokens what this one has.
        """
        return dict(self._stats)

    def renew(self, model: Decoder) -> None:
        """Answer with other parameters of the same decoder from now on, and forget every prompt that the old ones read.

        Parameters that lie where the engine computes are not copied: they must not be donated while it works.

        Raises:
          ValueError: a request is under way: it would be answered half by each.
        """
        if self._underway:
            raise ValueError(f"LocalEngine: {len(self._underway)} requests are under way: renew it once they are done")
        where = self._compiled.place if self._mesh is None else shardings_of(model, self._mesh)
        self._model = jax.device_put(model, where)
        self._tree = PrefixTree(self._num_pages)

    def submit(self, request_id: str, request: Request) -> None:
        """Queue a request.

        Raises:
          ValueError: the request cannot be answered, or its id is under way already; says what to change.
        """
        if request_id in self._underway:
            raise ValueError(f"request {request_id!r} is under way already: request ids must be unique")
        pieces = _pieces(request)
        if fault := self._fault(request, pieces):
            raise ValueError(f"request {request_id!r}: {fault}")
        self._underway.add(request_id)
        self._stats["requests"] += 1
        if isinstance(request, Sample):
            job = Job(request_id, request, pieces, self._grammar(request))
            queue = self._jobs.setdefault(self._bucket(pieces[-1]), [])
            heapq.heappush(queue, (-request.max_tokens, self._stats["requests"], job))
        elif request.positions:
            scoring = _scoring(request_id, request, pieces)
            key = self._bucket(scoring.ids), *_reading(scoring)
            self._scores.setdefault(key, collections.deque()).append(scoring)
        else:
            self._finished.append((request_id, (Completion(),)))

    def poll(self) -> list[tuple[str, Answer]]:
        """Read prompts for free slots and one batch to score per lane, then decode one chunk; the requests that this
        finished."""
        jobs, scorings = self._take_jobs(), self._take_scores()
        self._compute(self._rows_to_compute(scorings))
        for scoring in scorings:
            assert scoring.node is not None
            self._tree.release(scoring.node)
        self._ready.extend((job, k) for job in jobs for k in range(job.request.n))
        for lane in sorted(self._lanes, key=lambda lane: -lane.free):
            lane.admit(self._ready)
        busy = [lane for lane in self._lanes if lane.busy]
        tables = self._grammars and self._grammars.tables
        if tables is not self._tables[0]:
            self._tables = tables, jax.device_put(tables, self._compiled.place)
        work = [functools.partial(lane.work, self._model, self._pages, self._tables[1]) for lane in busy]
        chunks = self._run(work)
        for lane, chunk in zip(busy, chunks, strict=True):
            tokens, completed = lane.collect(chunk)
            self._stats.update(chunks=1, generated_tokens=tokens)
            for job in completed:
                assert job.node is not None
                self._tree.release(job.node)
                answers = [job.completions[k] for k in range(job.request.n)]
                failure = next((answer for answer in answers if isinstance(answer, Failure)), None)
                self._finished.append((job.request_id, failure or tuple(answers)))  # pyright: ignore[reportArgumentType]
        finished, self._finished = self._finished, []
        self._underway.difference_update(request_id for request_id, _ in finished)
        return finished

    def _fault(self, request: Request, pieces: Pieces) -> str | None:
        """What makes a request impossible to answer, and the remedy."""
        ids = tuple(itertools.chain.from_iterable(pieces))
        if not ids:
            return "the prompt is empty: give it at least one token"
        if not 0 <= min(ids) <= max(ids) < self._config.vocab_size:
            return f"an id lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
        if not self._tree.fits(pieces):
            return "its pieces want more pages than there are: declare fewer prefixes, or raise cache_bytes"
        if isinstance(request, Score):
            if request.answers is None and self._read_out is None:
                return "this engine scores nothing: construct it with the read-out of a reward model"
            if not all(0 <= answer < self._config.vocab_size for answer in request.answers or ()):
                return f"an answer lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
            if len(ids) > self._max_length:
                return f"{len(ids)} tokens exceed max_length={self._max_length}: shorten the text or raise max_length"
            if request.positions and not 0 <= min(request.positions) <= max(request.positions) < len(ids):
                return f"a position lies outside the {len(ids)} tokens: count positions from the start of the prefix"
            return None
        if request.max_tokens < 1:
            return f"max_tokens={request.max_tokens}: ask for at least one token"
        if request.max_tokens > self._max_tokens:
            return f"max_tokens={request.max_tokens} exceeds the {self._max_tokens} of this engine: lower it"
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
        if request.grammar is not None:
            if request.stop:
                return "it has a grammar and stop ids: leave the stop ids out, the grammar says where a text ends"
            if self._grammars is None:
                return "this engine knows no grammars: construct it with the bytes of its tokens"
            if request.grammar.max_detour < 0:
                return f"max_detour={request.grammar.max_detour}: use 0 or more"
            try:
                least = self._grammar(request)[2]
            except ValueError as error:
                return str(error)
            if request.max_tokens < least:
                return f"max_tokens={request.max_tokens}, and the shortest text of its grammar takes {least}: raise it"
        if any(not 0 <= stop < self._config.vocab_size for stop in request.stop):
            return f"a stop id lies outside the vocabulary of {self._config.vocab_size}: use this model's tokenizer"
        return None

    def _grammar(self, request: Sample) -> tuple[int, int, int]:
        if request.grammar is None or self._grammars is None:
            return 0, 0, 0
        return self._grammars.add(request.grammar.pattern)

    def _bucket(self, ids: tuple[int, ...]) -> int:
        return bucket_length(len(ids), self._max_length)

    def _rows_of(self, bucket: int) -> int:
        return min(max(1, self._prefill_tokens // bucket), MAX_ROWS)

    def _take_jobs(self) -> list[Job]:
        """Jobs for the free slots, as far as their prompts find room: full batches, as long as there are such.

        Those that may write the most go first: slots that run together then end together, and few are idle at the end.
        """
        taken: list[Job] = []
        free = sum(lane.free for lane in self._lanes) - len(self._ready)
        while free > 0 and self._jobs:
            bucket, queue = _longest(self._jobs)
            for _ in range(min(self._rows_of(bucket), len(queue))):
                _, _, job = queue[0]
                node = self._tree.hold(job.pieces)
                if node is None:
                    return taken
                job.hold(node)
                heapq.heappop(queue)
                taken.append(job)
                free -= job.request.n
                self._stats["prompt_tokens"] += node.end * job.request.n
            if not queue:
                del self._jobs[bucket]
        return taken

    def _take_scores(self) -> list[_Scoring]:
        """A batch of Score requests per lane, as far as they find room."""
        taken: list[_Scoring] = []
        for _ in self._lanes:
            if not self._scores:
                break
            key, queue = _longest(self._scores)
            for _ in range(min(self._rows_of(key[0]), len(queue))):
                scoring = queue[0]
                scoring.node = self._tree.hold((*scoring.context, scoring.ids) if scoring.keep else scoring.context)
                if scoring.node is None:
                    return taken
                taken.append(queue.popleft())
                self._stats["scored_tokens"] += len(scoring.ids) + sum(map(len, scoring.context))
            if not queue:
                del self._scores[key]
        return taken

    def _rows_to_compute(self, scorings: list[_Scoring]) -> list[_Row]:
        """A row for every new node and every score, in one where a score's piece is a new node."""
        rows = {node: _Row(node.parent, node.ids, node) for node in self._tree.new if node.parent}
        self._tree.new = []
        more = []
        for scoring in scorings:
            assert scoring.node is not None
            if scoring.keep and scoring.node in rows and rows[scoring.node].scoring is None:
                rows[scoring.node].scoring = scoring
            else:
                parent = scoring.node.parent if scoring.keep else scoring.node
                assert parent is not None
                more.append(_Row(parent, scoring.ids, scoring=scoring))
        return [*rows.values(), *more]

    def _compute(self, rows: list[_Row]) -> None:
        """Compute rows, those first on which others wait; store the nodes and note the scores."""
        while rows:
            now = [row for row in rows if row.parent.computed]
            rows = [row for row in rows if not row.parent.computed]
            batches: dict[Any, list[list[_Row]]] = {}
            for row in now:
                bucket = self._bucket(row.ids)
                some = batches.setdefault((bucket, *_reading(row.scoring)), [[]])
                if len(some[-1]) == self._rows_of(bucket):
                    some.append([])
                some[-1].append(row)
            waiting = list(itertools.chain.from_iterable(batches.values()))
            while waiting:
                group, waiting = waiting[: len(self._lanes)], waiting[len(self._lanes) :]
                for batch, read in zip(
                    group, self._run([functools.partial(self._read, b) for b in group]), strict=True
                ):
                    self._keep(batch, *read)

    def _read(self, batch: list[_Row]) -> tuple[tuple[jax.Array, ...], np.ndarray | None]:
        """Hidden states, keys and values of a batch, and its scores [rows, positions] where it has any."""
        bucket = self._bucket(batch[0].ids)
        count = self._rows_of(bucket)
        ids = np.full((count, bucket), self._pad_id, np.int32)
        table, before = np.zeros((count, self._blocks), np.int32), np.zeros(count, np.int32)
        for i, row in enumerate(batch):
            pages = row.parent.pages()
            ids[i, : len(row.ids)] = row.ids
            table[i, : len(pages)], before[i] = pages, row.parent.end
        arrays = jax.device_put((ids, table, before), self._compiled.place)
        read = self._compiled.extend(self._model, self._pages, *arrays)
        width, answers = _reading(batch[0].scoring)
        if not width:
            return read, None
        positions = np.zeros((count, width), np.int32)
        for i, row in enumerate(batch):
            if row.scoring:
                wanted = row.scoring.request.positions
                positions[i, : len(wanted)] = np.array(wanted) - row.parent.end
        positions = jax.device_put(positions, self._compiled.place)
        read_out = ReadOut(answers) if answers else self._read_out
        scores = self._compiled.score(self._model, self._head, read[0], positions, read_out)
        return read, jax.device_get(scores)

    def _keep(self, batch: list[_Row], read: tuple[jax.Array, ...], scores: np.ndarray | None) -> None:
        """Store the nodes of a batch and note its scores."""
        count, bucket = read[0].shape[:2]
        if any(row.node for row in batch):
            source, filled, last = np.zeros((3, count), np.int32)
            length = np.ones(count, np.int32)
            nowhere = np.iinfo(np.int32).max
            pages, last = np.full((count, blocks_of(bucket) + 1), nowhere, np.int32), np.full(count, nowhere, np.int32)
            for i, row in enumerate(batch):
                if row.node:
                    filled[i] = row.node.start % KEY_BLOCK
                    source[i] = row.parent.own[-1] if filled[i] else 0
                    length[i] = len(row.ids)
                    pages[i, : len(row.node.own)] = row.node.own
                    last[i] = row.node.own[-1]
                    row.node.computed = True
            piece = jax.device_put(Piece(source, filled, length, pages, last), self._compiled.place)
            self._pages = self._compiled.store(self._pages, *read, piece)
        self._stats.update(prefills=1, computed_tokens=sum(len(row.ids) for row in batch))
        for i, row in enumerate(batch):
            if row.scoring and scores is not None:
                found = scores[i, : len(row.scoring.request.positions)].tolist()
                answer = (Completion(scores=tuple(found)),) if np.isfinite(found).all() else _NO_SCORE
                self._finished.append((row.scoring.request_id, answer))

    def _run(self, work: list[Callable[[], T]]) -> list[T]:
        """The results of `work`, done at the same time where there are threads."""
        if self._threads is None:
            return [item() for item in work]
        return [future.result() for future in [self._threads.submit(item) for item in work]]


_NO_SCORE = Failure(
    "the model's scores are not finite (NaN or infinity): look for such values in its weights, and compute in float32"
)


def _pieces(request: Request) -> Pieces:
    """A request's prompt: what its prefixes declare, and its own ids, each as one piece."""
    pieces, prefix = [request.ids], request.prefix
    while prefix is not None:
        pieces.append(prefix.ids)
        prefix = prefix.parent
    return tuple(piece for piece in reversed(pieces) if piece)


def _scoring(request_id: str, request: Score, pieces: Pieces) -> _Scoring:
    """Cut a Score request in two: the pieces before its first position, and all others as one.

    Where that one is the request's own ids behind a declared prefix, it is kept: a solution that grows by a step
    declares it as a prefix the next time.
    """
    known = start = 0
    while known < len(pieces) - 1 and start + len(pieces[known]) <= min(request.positions):
        start += len(pieces[known])
        known += 1
    ids = tuple(itertools.chain.from_iterable(pieces[known:]))
    keep = known > 0 and known == len(pieces) - 1
    return _Scoring(request_id, request, pieces[:known], ids, keep)


def _reading(scoring: _Scoring | None) -> tuple[int, tuple[int, int] | None]:
    """What rows of a batch have in common: the padded number of positions (a power of two, at least 16; 0 where nothing
    is scored) and the answers that are compared there."""
    if scoring is None:
        return 0, None
    return max(16, 1 << (len(scoring.request.positions) - 1).bit_length()), scoring.request.answers


def _longest(queues: dict[Any, Q]) -> tuple[Any, Q]:
    """The longest queue (the first of equals) and its key: so batches are full while they can be."""
    key = max(queues, key=lambda key: len(queues[key]))
    return key, queues[key]


def _share_out(
    cache_bytes: int | None, block_bytes: int, slots: int, lanes: int, max_length: int, max_tokens: int
) -> tuple[int, int]:
    """How many slots, and pages for prompts: as many slots as hold a prompt and an answer of the greatest lengths
    each, `slots` at most, and pages for what is left."""
    answer, prompt = blocks_of(max_tokens), blocks_of(max_length)
    blocks = slots * (answer + prompt)
    if cache_bytes is None:
        memory = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
        if memory:  # what the weights left; a tenth stays for activations
            blocks = min(blocks, int(0.9 * (memory["bytes_limit"] - memory["bytes_in_use"])) // block_bytes)
    else:
        blocks = cache_bytes // block_bytes
    fitting = min(slots, blocks // (answer + prompt)) // lanes * lanes
    if not fitting:
        raise ValueError(
            f"LocalEngine: keys and values of {lanes} sequences of max_length={max_length} and max_tokens={max_tokens} "
            f"take {lanes * (answer + prompt) * block_bytes:,} bytes, and there are {blocks * block_bytes:,}: raise "
            "cache_bytes, or lower the lengths"
        )
    return fitting, blocks - fitting * answer
