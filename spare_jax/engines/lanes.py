"""The host side of a set of slots: which sample sits where, and what it has generated."""

import collections
import dataclasses

import jax
import numpy as np

from spare_jax.engines import slots as device
from spare_jax.engines.compiled import Compiled
from spare_jax.engines.sampling import digest32
from spare_jax.models.decoder import Decoder
from spare_jax.programs import Completion, Sample

ENTRIES = 32  # samples that one `insert` call can bring into slots


@dataclasses.dataclass
class Job:
    """A Sample request on its way; `completions` fills up in any order."""

    request_id: str
    request: Sample
    ids: list[int]
    completions: dict[int, Completion] = dataclasses.field(default_factory=dict)


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
    """

    def __init__(self, compiled: Compiled, slots: int, chunk: int, seed_key: jax.Array):
        self._compiled = compiled
        self._chunk = chunk
        self._seed_key = seed_key
        self._state = compiled.empty()
        self._prefilled: device.Prefilled | None = None
        self._occupants: list[_Occupant | None] = [None] * slots
        self._waiting: collections.deque[tuple[int, Job, int]] = collections.deque()  # row of the prefill, job, sample
        self._plan: list[tuple[np.ndarray, np.ndarray] | device.Admission] = []

    @property
    def free(self) -> int:
        """Slots that could take a sample now."""
        return sum(occupant is None for occupant in self._occupants)

    @property
    def busy(self) -> bool:
        """Whether any slot holds a sample."""
        return any(occupant is not None for occupant in self._occupants)

    def start(self, jobs: list[Job], ids: np.ndarray, lengths: np.ndarray) -> None:
        """Take over `jobs`, whose prompts are the first rows of `ids` [rows, bucket]. Only while slots are free."""
        self._plan.append((ids, lengths))
        self._waiting.extend((row, job, k) for row, job in enumerate(jobs) for k in range(job.request.n))
        self.admit()

    def admit(self) -> None:
        """Give free slots to samples whose prompt this lane has run; then none waits, or no slot is free."""
        free = collections.deque(slot for slot, occupant in enumerate(self._occupants) if occupant is None)
        while free and self._waiting:
            count = min(ENTRIES, len(free), len(self._waiting))
            entering = [(free.popleft(), *self._waiting.popleft()) for _ in range(count)]
            for slot, _, job, sample in entering:
                self._occupants[slot] = _Occupant(job, sample)
            self._plan.append(_admission(entering, len(self._occupants)))

    def work(self, model: Decoder) -> np.ndarray:
        """Prefill and insert what was admitted, decode one chunk, and fetch it (see slots.decode_chunk)."""
        for step in jax.device_put(self._plan, self._compiled.place):
            if isinstance(step, device.Admission):
                self._state = self._compiled.insert(self._state, self._prefilled, step, self._seed_key)
            else:
                self._prefilled = self._compiled.prefill(model, *step)
        self._plan = []
        if not self._waiting:
            self._prefilled = None
        self._state, chunk = self._compiled.decode(model, self._state)
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
            self._occupants[slot] = None
            job = occupant.job
            reason = "stop" if occupant.ids[-1] in job.request.stop else "length"
            job.completions[occupant.sample] = Completion(tuple(occupant.ids), tuple(occupant.logprobs), reason)
            if len(job.completions) == job.request.n:
                completed.append(job)
        return sum(counts), completed


def _admission(entering: list[tuple[int, int, Job, int]], slots: int) -> device.Admission:
    """The arrays of an `insert` call, from (slot, row, job, sample) of each sample."""
    slot, row, length, sample, limit, top_k = np.zeros((6, ENTRIES), np.int32)
    digest = np.zeros(ENTRIES, np.uint32)
    temperature, top_p = np.ones((2, ENTRIES), np.float32)
    stops = np.full((ENTRIES, device.MAX_STOPS), -1, np.int32)
    slot[:] = slots + np.arange(ENTRIES)  # slots that do not exist: unused entries are dropped
    for i, (to, from_row, job, k) in enumerate(entering):
        request = job.request
        slot[i], row[i], sample[i] = to, from_row, k
        length[i], digest[i] = len(job.ids), digest32(job.request_id)
        limit[i], top_k[i] = request.max_tokens, request.top_k
        temperature[i], top_p[i] = request.temperature, request.top_p
        stops[i, : len(request.stop)] = request.stop
    return device.Admission(slot, row, length, digest, sample, device.Settings(limit, temperature, top_p, top_k, stops))
