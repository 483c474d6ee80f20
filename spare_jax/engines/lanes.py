"""The host side of a set of slots: which sample sits where, which pages it reads, and what it has generated."""

import collections
import dataclasses

import jax
import numpy as np

from spare_jax.engines import slots as device
from spare_jax.engines.compiled import Compiled
from spare_jax.engines.grammar import GrammarTables, Place
from spare_jax.engines.prefixes import Node, Pieces
from spare_jax.engines.sampling import digest32
from spare_jax.models.cache import KEY_BLOCK, Pages, Readers
from spare_jax.models.decoder import Decoder
from spare_jax.programs import Completion, Failure, Sample

ENTRIES = 32  # samples that one `insert` call can bring into slots
MEMBERS = 8, 8, 1  # slots that can read the same pages together: see Job.reads


@dataclasses.dataclass
class Job:
    """A Sample request on its way; `completions` fills up in any order."""

    request_id: str
    request: Sample
    pieces: Pieces
    grammar: tuple[int, int, int] = (0, 0, 0)  # number, first state, least tokens: see Grammars.add
    node: Node | None = None  # the end of its prompt, once that is held
    pages: tuple[int, ...] = ()  # of the whole prompt
    shared: int = 0  # how many of them the declared prefix fills
    completions: dict[int, Completion | Failure] = dataclasses.field(default_factory=dict)

    def hold(self, node: Node) -> None:
        """The prompt has its pages."""
        self.node = node
        prefix = self.request.prefix
        self.pages, self.shared = node.pages(), len(prefix.all_ids()) // KEY_BLOCK if prefix else 0

    def reads(self) -> list[tuple[int, int]]:
        """Which of its pages its samples read together with whom, as ranges: a declared prefix with other requests
        that have it, the rest with the other samples, or each alone where n is 1."""
        rest, nothing = (self.shared, len(self.pages)), (0, 0)
        return [(0, self.shared), *((rest, nothing) if self.request.n > 1 else (nothing, rest))]


@dataclasses.dataclass
class _Occupant:
    """The sample in a slot, and what it has generated so far."""

    job: Job
    sample: int
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)


class Lane:
    """Slots that are decoded together.

    `admit` and `collect` do the bookkeeping and touch no device; `work` talks to the device and touches nothing but
    the device's arrays, so the lanes of an engine can work in threads of their own.

    Args:
      blocks: most pages of a prompt.
      tile: slots that read their pages at once.
    """

    def __init__(self, compiled: Compiled, slots: int, chunk: int, blocks: int, tile: int, seed_key: jax.Array):
        self._compiled = compiled
        self._chunk = chunk
        self._seed_key = seed_key
        self._state = compiled.slots()
        self._occupants: list[_Occupant | None] = [None] * slots
        self._entering: list[device.Admission] = []
        self._blocks, self._tile = blocks, tile
        self._readers: tuple[Readers, ...] | None = None  # None: to be made anew

    @property
    def free(self) -> int:
        """Slots that could take a sample now."""
        return sum(occupant is None for occupant in self._occupants)

    @property
    def busy(self) -> bool:
        """Whether any slot holds a sample."""
        return any(occupant is not None for occupant in self._occupants)

    def admit(self, ready: collections.deque[tuple[Job, int]]) -> None:
        """Give free slots to samples whose prompts are computed; then none waits, or no slot is free."""
        free = collections.deque(slot for slot, occupant in enumerate(self._occupants) if occupant is None)
        while free and ready:
            count = min(ENTRIES, len(free), len(ready))
            entering = [(free.popleft(), *ready.popleft()) for _ in range(count)]
            for slot, job, sample in entering:
                self._occupants[slot] = _Occupant(job, sample)
            self._entering.append(_admission(entering, len(self._occupants)))
            self._readers = None

    def work(self, model: Decoder, pages: Pages, tables: GrammarTables | None) -> np.ndarray:
        """Insert what was admitted, decode one chunk, and fetch it (see slots.decode_chunk)."""
        for entering in jax.device_put(self._entering, self._compiled.place):
            self._state = self._compiled.insert(self._state, pages, entering, self._seed_key)
        self._entering = []
        if self._readers is None:
            self._readers = jax.device_put(self._who_reads_what(), self._compiled.place)
        self._state, chunk = self._compiled.decode(model, self._state, pages, self._readers, tables)
        return jax.device_get(chunk)

    def collect(self, fetched: np.ndarray) -> tuple[int, list[Job]]:
        """Note what a chunk generated: the number of tokens, and the jobs that it completed."""
        ids, logprobs = fetched[: self._chunk].T, fetched[self._chunk : -1].view(np.float32).T
        counts = (ids >= 0).sum(axis=1).tolist()
        completed = []
        for slot, (occupant, count, active) in enumerate(
            zip(self._occupants, counts, fetched[-1].tolist(), strict=True)
        ):
            if occupant is None:
                continue
            occupant.ids += ids[slot, :count].tolist()
            occupant.logprobs += logprobs[slot, :count].tolist()
            if active:
                continue
            self._occupants[slot] = self._readers = None
            job = occupant.job
            job.completions[occupant.sample] = _completion(occupant)
            if len(job.completions) == job.request.n:
                completed.append(job)
        return sum(counts), completed

    def _who_reads_what(self) -> tuple[Readers, ...]:
        """The units of this moment, for each kind of pages that samples read."""
        units: list[dict[tuple[int, ...], list[int]]] = [{} for _ in MEMBERS]
        jobs = {slot: occupant.job for slot, occupant in enumerate(self._occupants) if occupant}
        for slot, job in jobs.items():
            for (start, end), some in zip(job.reads(), units, strict=True):
                if start < end and job.node:
                    read = start, min(job.node.end, end * KEY_BLOCK), *job.pages[start:end]
                    some.setdefault(read, []).append(slot)
        sizes = len(self._occupants), self._tile, self._blocks
        return tuple(readers_of(*kind, *sizes) for kind in zip(units, MEMBERS, strict=True))


def readers_of(units: dict[tuple[int, ...], list[int]], members: int, slots: int, tile: int, blocks: int) -> Readers:
    """Readers for `slots` slots. `units` has the slots that read together, by what they read: the number of the first
    page in its chain, the position behind the last one, and the pages, `blocks` at most."""
    size = min(slots, tile if members > 1 else slots)
    tiles = -(-slots // size)
    readers = np.full((tiles * size, members), slots, np.int32)
    pages = np.zeros((tiles * size, blocks), np.int32)
    first, count, end = np.zeros((3, tiles * size), np.int32)
    unit = 0
    for (start, stop, *read), together in units.items():
        for i in range(0, len(together), members):
            some = together[i : i + members]
            readers[unit, : len(some)] = some
            pages[unit, : len(read)] = read
            first[unit], count[unit], end[unit] = start, len(read), stop
            unit += 1

    def tiled(x: np.ndarray) -> np.ndarray:
        return x.reshape(tiles, size, *x.shape[1:])

    used = np.array(-(-unit // size), np.int32)
    return Readers(tiled(readers), tiled(pages), tiled(first), tiled(count), tiled(end), used)


def _completion(occupant: _Occupant) -> Completion | Failure:
    if not np.isfinite(occupant.logprobs[-1]):
        return Failure(
            f"the model's logits are not finite (NaN or infinity) at token {len(occupant.ids) - 1} of sample "
            f"{occupant.sample}: look for such values in its weights, and compute in float32"
        )
    request = occupant.job.request
    reason = "stop" if request.grammar or occupant.ids[-1] in request.stop else "length"
    return Completion(tuple(occupant.ids), tuple(occupant.logprobs), reason)


def _admission(entering: list[tuple[int, Job, int]], slots: int) -> device.Admission:
    """The arrays of an `insert` call, from (slot, job, sample) of each sample."""
    slot, page, start, sample, limit, top_k = np.zeros((6, ENTRIES), np.int32)
    digest = np.zeros(ENTRIES, np.uint32)
    temperature, top_p = np.ones((2, ENTRIES), np.float32)
    stops = np.full((ENTRIES, device.MAX_STOPS), -1, np.int32)
    grammar, state, nearest, detour, max_detour = np.zeros((5, ENTRIES), np.int32)
    slot[:] = slots + np.arange(ENTRIES)  # slots that do not exist: unused entries are dropped
    for i, (to, job, k) in enumerate(entering):
        request = job.request
        assert job.node is not None
        slot[i], page[i], sample[i] = to, job.node.own[-1], k
        start[i], digest[i] = job.node.end, digest32(job.request_id)
        limit[i], top_k[i] = request.max_tokens, request.top_k
        temperature[i], top_p[i] = request.temperature, request.top_p
        if request.grammar:
            grammar[i], state[i], nearest[i] = job.grammar
            max_detour[i] = request.grammar.max_detour
        else:
            stops[i, : len(request.stop)] = request.stop
    settings = device.Settings(limit, temperature, top_p, top_k, stops)
    place = Place(grammar, state, nearest, detour, max_detour)
    return device.Admission(slot, page, start, digest, sample, settings, place)
