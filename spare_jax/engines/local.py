"""The engine that runs a decoder on this machine's devices: a shared prefix cache, continuous batching, and scoring.

A request's answer depends on the request, the model, the seed and this engine's sizes alone (ARCHITECTURE.md, "What a
completion depends on"). A prompt is prefilled in the pieces that the request declares. A piece is padded to a bucket
that its own length decides, in a batch whose number of rows the bucket decides. Randomness is keyed by the request id
(sampling.py).
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
from spare_jax.models.cache import KEY_BLOCK, PageWrites, blocks_of
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import Head, ReadOut
from spare_jax.models.sharding import shardings_of
from spare_jax.programs import Completion, Failure, Request, Sample, Score

MAX_ROWS = 16  # of a prefill batch
Answer = tuple[Completion, ...] | Failure
T = TypeVar("T")
Q = TypeVar("Q", bound=Sized)


def bucket_length(length: int, max_length: int) -> int:
    """The length to which a sequence is padded: the least of 64, 128, 192, 256, 384, 512, 768, ... that is enough, at
    most max_length."""
    bucket = 64
    while bucket < length:
        # 64 * (1, 2, 3, 4, 6, 8, 12, 16, ...): powers of two, and from 128 on their middles.
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 and bucket > 64 else 1 << bucket.bit_length()
    return min(bucket, max_length)


def token_bytes(config: DecoderConfig, dtype: DTypeLike) -> int:
    """Bytes that the keys and values of one token take, over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * jnp.dtype(dtype).itemsize


@dataclasses.dataclass
class _ScoreJob:
    """A Score request under way."""

    request_id: str
    request: Score
    context: Pieces  # the pieces before all of its positions
    ids: tuple[int, ...]  # the rest of the prompt, as one piece: every position lies in it
    keep: bool  # whether that piece becomes a node, since later requests may continue it
    node: Node | None = None  # the node of that piece if it is kept, else the node of the context


@dataclasses.dataclass
class _PrefillRow:
    """A piece to be prefilled behind `parent`: to become a node, to be scored, or both."""

    parent: Node
    ids: tuple[int, ...]
    node: Node | None = None
    score_job: _ScoreJob | None = None


class LocalEngine:
    """Answers `Sample` and `Score` requests with one decoder.

    Args:
      model: parameters; on a mesh already placed with their shardings.
      config: the decoder's sizes.
      pad_id: any valid id; fills up padded rows, and no result depends on it.
      seed: with the request id decides every draw.
      slots: how many sequences are decoded at once; fewer if `cache_bytes` are not enough for so many.
      max_length: most tokens of prompt and answer together.
      max_tokens: most tokens of an answer; None for max_length.
      cache_bytes: for keys and values. None takes what `slots` sequences of the greatest lengths need, but no more
        than nine tenths of what is left of an accelerator's memory.
      chunk: decode steps per call of the decode loop; the host admits and collects samples between calls.
      prefill_tokens: padded tokens of a prefill batch; it has as many rows as that allows, from 1 to 16.
      lanes: how many threads the slots are divided among. A decode step of a small model keeps only one CPU core
        busy, so on a CPU use as many lanes as there are cores; on an accelerator use 1.
      mesh: where to compute; None for the default device.
      read_out: how `Score` requests that name no answers are scored; None if there are no such requests.
      head: the reward model's own head, if `read_out` reads one.
      tokens: the bytes of every token (prompts/chat.py), for requests with a grammar; empty if there are none.
      dtype: of computation and cache.

    Raises:
      ValueError: a size is below 1, lanes do not divide slots, there are several lanes and a mesh of several devices,
        max_length exceeds what the model was made for, or cache_bytes are not enough for one sequence per lane.
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
        slots, pages = _divide_cache(cache_bytes, block_bytes, slots, lanes, max_length, max_tokens)
        self._compiled = compile_functions(config, slots // lanes, max_tokens, pages, chunk, mesh, jnp.dtype(dtype))
        self._head = jax.device_put(head, self._compiled.replicated)
        seed_key = jax.device_put(jax.random.key(seed), self._compiled.replicated)
        self._max_pages = blocks_of(max_length)
        groups_per_batch = min(slots // lanes, 8 if jax.default_backend() == "cpu" else 64)
        sizes = slots // lanes, chunk, self._max_pages, groups_per_batch
        self._lanes = [Lane(self._compiled, *sizes, seed_key) for _ in range(lanes)]
        self._threads = concurrent.futures.ThreadPoolExecutor(lanes) if lanes > 1 else None
        self._pages, self._num_pages = self._compiled.pages(), pages
        self._tree = PrefixTree(pages)
        self._grammars = Grammars([*tokens, *[b""] * (config.vocab_size - len(tokens))]) if tokens else None
        self._tables: tuple[Any, Any] = None, None  # of the grammars: the host's arrays, and the same on the device
        self._jobs: dict[Any, list[tuple[int, int, Job]]] = {}  # heaps by bucket: (-max_tokens, number, job)
        self._ready: collections.deque[tuple[Job, int]] = collections.deque()  # samples whose prompts are prefilled
        self._score_jobs: dict[Any, collections.deque[_ScoreJob]] = {}  # by bucket and _score_shape
        self._finished: list[tuple[str, Answer]] = []
        self._underway: set[str] = set()
        self._stats = collections.Counter(
            requests=0, prompt_tokens=0, computed_tokens=0, generated_tokens=0, scored_tokens=0, prefills=0, chunks=0
        )

    @property
    def stats(self) -> dict[str, int]:
        """Counts of the work done since the engine was made.

        prompt_tokens and scored_tokens are what an engine without a prefix cache would have prefilled for the requests
        that were started, the prompt of a Sample once for each of its n samples; computed_tokens is what this engine
        has prefilled. prefills and chunks count calls.
        """
        return dict(self._stats)

    def update_weights(self, model: Decoder) -> None:
        """Answer with other parameters of the same decoder from now on; the prefix cache of the old ones is dropped.

        Parameters that already lie where the engine computes are not copied: do not donate them while it works.

        Raises:
          ValueError: requests are under way; they would be answered by both.
        """
        if self._underway:
            raise ValueError(
                f"LocalEngine: {len(self._underway)} requests are under way: update the weights once they are done"
            )
        where = self._compiled.replicated if self._mesh is None else shardings_of(model, self._mesh)
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
        if refusal := self._refusal(request, pieces):
            raise ValueError(f"request {request_id!r}: {refusal}")
        self._underway.add(request_id)
        self._stats["requests"] += 1
        if isinstance(request, Sample):
            job = Job(request_id, request, pieces, self._grammar(request))
            queue = self._jobs.setdefault(self._bucket(pieces[-1]), [])
            heapq.heappush(queue, (-request.max_tokens, self._stats["requests"], job))
        elif request.positions:
            score_job = _score_job(request_id, request, pieces)
            key = self._bucket(score_job.ids), *_score_shape(score_job)
            self._score_jobs.setdefault(key, collections.deque()).append(score_job)
        else:
            self._finished.append((request_id, (Completion(),)))

    def poll(self) -> list[tuple[str, Answer]]:
        """Prefill the prompts for free slots and one batch of Score requests per lane, then decode one chunk per lane.

        Returns the (request id, answer) of the requests that this finished.
        """
        jobs, score_jobs = self._take_jobs(), self._take_scores()
        self._prefill(self._rows_to_prefill(score_jobs))
        for score_job in score_jobs:
            assert score_job.node is not None
            self._tree.release(score_job.node)
        self._ready.extend((job, k) for job in jobs for k in range(job.request.n))
        for lane in sorted(self._lanes, key=lambda lane: -lane.free):
            lane.admit(self._ready)
        busy = [lane for lane in self._lanes if lane.busy]
        tables = self._grammars and self._grammars.tables
        if tables is not self._tables[0]:
            self._tables = tables, jax.device_put(tables, self._compiled.replicated)
        work = [functools.partial(lane.decode, self._model, self._pages, self._tables[1]) for lane in busy]
        chunks = self._in_threads(work)
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

    def _refusal(self, request: Request, pieces: Pieces) -> str | None:
        """Why this engine can never answer a request, and the remedy; None where it can."""
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
        """Jobs for the free slots, as many as there are pages for; from the longest queue first, so that prefill
        batches are full.

        Of a queue the jobs with the greatest max_tokens go first: samples that run together then end at about the same
        time, and few slots are idle at the end.
        """
        taken: list[Job] = []
        free = sum(lane.free for lane in self._lanes) - len(self._ready)
        while free > 0 and self._jobs:
            bucket, queue = _longest(self._jobs)
            for _ in range(min(self._rows_of(bucket), len(queue))):
                _, _, job = queue[0]
                node = self._tree.acquire(job.pieces)
                if node is None:
                    return taken
                job.set_prompt(node)
                heapq.heappop(queue)
                taken.append(job)
                free -= job.request.n
                self._stats["prompt_tokens"] += node.end * job.request.n
            if not queue:
                del self._jobs[bucket]
        return taken

    def _take_scores(self) -> list[_ScoreJob]:
        """A batch of Score requests per lane, as many as there are pages for."""
        taken: list[_ScoreJob] = []
        for _ in self._lanes:
            if not self._score_jobs:
                break
            key, queue = _longest(self._score_jobs)
            for _ in range(min(self._rows_of(key[0]), len(queue))):
                score_job = queue[0]
                score_job.node = self._tree.acquire(
                    (*score_job.context, score_job.ids) if score_job.keep else score_job.context
                )
                if score_job.node is None:
                    return taken
                taken.append(queue.popleft())
                self._stats["scored_tokens"] += len(score_job.ids) + sum(map(len, score_job.context))
            if not queue:
                del self._score_jobs[key]
        return taken

    def _rows_to_prefill(self, score_jobs: list[_ScoreJob]) -> list[_PrefillRow]:
        """A row for every new node and every Score request; one row for both where the request's piece is the node."""
        rows = {node: _PrefillRow(node.parent, node.ids, node) for node in self._tree.new if node.parent}
        self._tree.new = []
        more = []
        for score_job in score_jobs:
            assert score_job.node is not None
            if score_job.keep and score_job.node in rows and rows[score_job.node].score_job is None:
                rows[score_job.node].score_job = score_job
            else:
                parent = score_job.node.parent if score_job.keep else score_job.node
                assert parent is not None
                more.append(_PrefillRow(parent, score_job.ids, score_job=score_job))
        return [*rows.values(), *more]

    def _prefill(self, rows: list[_PrefillRow]) -> None:
        """Prefill rows, parents before their children; write the nodes' pages and note the scores."""
        while rows:
            now = [row for row in rows if row.parent.computed]
            rows = [row for row in rows if not row.parent.computed]
            batches: dict[Any, list[list[_PrefillRow]]] = {}
            for row in now:
                bucket = self._bucket(row.ids)
                some = batches.setdefault((bucket, *_score_shape(row.score_job)), [[]])
                if len(some[-1]) == self._rows_of(bucket):
                    some.append([])
                some[-1].append(row)
            waiting = list(itertools.chain.from_iterable(batches.values()))
            while waiting:
                group, waiting = waiting[: len(self._lanes)], waiting[len(self._lanes) :]
                prefilled = self._in_threads([functools.partial(self._prefill_batch, batch) for batch in group])
                for batch, (states, scores) in zip(group, prefilled, strict=True):
                    self._store(batch, states, scores)

    def _prefill_batch(self, batch: list[_PrefillRow]) -> tuple[tuple[jax.Array, ...], np.ndarray | None]:
        """Hidden states, keys and values of a batch; and its scores [rows, positions], None where nothing is scored."""
        bucket = self._bucket(batch[0].ids)
        count = self._rows_of(bucket)
        ids = np.full((count, bucket), self._pad_id, np.int32)
        page_table, before = np.zeros((count, self._max_pages), np.int32), np.zeros(count, np.int32)
        for i, row in enumerate(batch):
            pages = row.parent.pages()
            ids[i, : len(row.ids)] = row.ids
            page_table[i, : len(pages)], before[i] = pages, row.parent.end
        arrays = jax.device_put((ids, page_table, before), self._compiled.replicated)
        states = self._compiled.prefill(self._model, self._pages, *arrays)
        width, answers = _score_shape(batch[0].score_job)
        if not width:
            return states, None
        positions = np.zeros((count, width), np.int32)
        for i, row in enumerate(batch):
            if row.score_job:
                wanted = row.score_job.request.positions
                positions[i, : len(wanted)] = np.array(wanted) - row.parent.end
        positions = jax.device_put(positions, self._compiled.replicated)
        read_out = ReadOut(answers) if answers else self._read_out
        scores = self._compiled.score(self._model, self._head, states[0], positions, read_out)
        return states, jax.device_get(scores)

    def _store(self, batch: list[_PrefillRow], states: tuple[jax.Array, ...], scores: np.ndarray | None) -> None:
        """Write the pages of a batch's nodes and note its scores."""
        count, bucket = states[0].shape[:2]
        if any(row.node for row in batch):
            source, filled, last = np.zeros((3, count), np.int32)
            length = np.ones(count, np.int32)
            nowhere = np.iinfo(np.int32).max
            pages, last = np.full((count, blocks_of(bucket) + 1), nowhere, np.int32), np.full(count, nowhere, np.int32)
            for i, row in enumerate(batch):
                if row.node:
                    filled[i] = row.node.start % KEY_BLOCK
                    source[i] = row.parent.own_pages[-1] if filled[i] else 0
                    length[i] = len(row.ids)
                    pages[i, : len(row.node.own_pages)] = row.node.own_pages
                    last[i] = row.node.own_pages[-1]
                    row.node.computed = True
            writes = jax.device_put(PageWrites(source, filled, length, pages, last), self._compiled.replicated)
            self._pages = self._compiled.write(self._pages, *states, writes)
        self._stats.update(prefills=1, computed_tokens=sum(len(row.ids) for row in batch))
        for i, row in enumerate(batch):
            if row.score_job and scores is not None:
                values = scores[i, : len(row.score_job.request.positions)].tolist()
                answer = (Completion(scores=tuple(values)),) if np.isfinite(values).all() else _NO_SCORE
                self._finished.append((row.score_job.request_id, answer))

    def _in_threads(self, work: list[Callable[[], T]]) -> list[T]:
        """The results of `work`; by a thread each where there are several lanes."""
        if self._threads is None:
            return [item() for item in work]
        return [future.result() for future in [self._threads.submit(item) for item in work]]


_NO_SCORE = Failure(
    "the model's scores are not finite (NaN or infinity): look for such values in its weights, and compute in float32"
)


def _pieces(request: Request) -> Pieces:
    """The pieces of a request's prompt: the ids of each of its prefixes, then its own."""
    pieces, prefix = [request.ids], request.prefix
    while prefix is not None:
        pieces.append(prefix.ids)
        prefix = prefix.parent
    return tuple(piece for piece in reversed(pieces) if piece)


def _score_job(request_id: str, request: Score, pieces: Pieces) -> _ScoreJob:
    """A Score request cut in two: the pieces before its first position, and the others joined to one.

    If that one is the request's own ids, behind a declared prefix, it is kept: a search that adds a step to a solution
    declares the solution so far as the next request's prefix.
    """
    known = start = 0
    while known < len(pieces) - 1 and start + len(pieces[known]) <= min(request.positions):
        start += len(pieces[known])
        known += 1
    ids = tuple(itertools.chain.from_iterable(pieces[known:]))
    keep = known > 0 and known == len(pieces) - 1
    return _ScoreJob(request_id, request, pieces[:known], ids, keep)


def _score_shape(score_job: _ScoreJob | None) -> tuple[int, tuple[int, int] | None]:
    """What the rows of a prefill batch must have in common to be scored by one call: the number of positions, padded to
    a power of two of 16 or more (0 where nothing is scored), and the two answers that are compared, if any."""
    if score_job is None:
        return 0, None
    return max(16, 1 << (len(score_job.request.positions) - 1).bit_length()), score_job.request.answers


def _longest(queues: dict[Any, Q]) -> tuple[Any, Q]:
    """The longest queue, the first of equals, and its key."""
    key = max(queues, key=lambda key: len(queues[key]))
    return key, queues[key]


def _divide_cache(
    cache_bytes: int | None, block_bytes: int, slots: int, lanes: int, max_length: int, max_tokens: int
) -> tuple[int, int]:
    """The number of slots, and of pages for prompts: as many slots, `slots` at most, as there is room for a prompt and
    an answer of the greatest lengths for each; then pages for all that is left."""
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
