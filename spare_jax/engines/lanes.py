"""The host's account of some slots: which sample is in which, which pages it reads, and what it has generated."""

import collections
import dataclasses

import jax
import numpy as np

from spare_jax.engines import slots as device
from spare_jax.engines.compiled import Compiled
from spare_jax.engines.grammar import GrammarState, GrammarTables
from spare_jax.engines.prefixes import Node, Pieces
from spare_jax.engines.sampling import digest32
from spare_jax.models.cache import KEY_BLOCK, Pages, SlotGroups
from spare_jax.models.decoder import Decoder
from spare_jax.programs import Completion, Failure, Sample

MAX_ADMITTED = 32  # samples that one call of `insert` puts into slots
GROUP_SIZES = 8, 8, 1  # most slots of a group, for each of the three ranges of Job.page_ranges


@dataclasses.dataclass
class Job:
    """A Sample request under way; its completions, by sample, arrive in any order."""

    request_id: str
    request: Sample
    pieces: Pieces
    grammar: tuple[int, int, int] = (0, 0, 0)  # number, initial state, least tokens: see Grammars.add
    node: Node | None = None  # the end of its prompt, once that has pages
    pages: tuple[int, ...] = ()  # of the whole prompt
    shared: int = 0  # how many of them the declared prefix fills
    completions: dict[int, Completion | Failure] = dataclasses.field(default_factory=dict)

    def set_prompt(self, node: Node) -> None:
        """Note the node of the prompt's end, and with it the prompt's pages."""
        self.node = node
        prefix = self.request.prefix
        self.pages, self.shared = node.pages(), len(prefix.all_ids()) // KEY_BLOCK if prefix else 0

    def page_ranges(self) -> list[tuple[int, int]]:
        """Its pages as three half-open ranges, by who else reads them: other requests with the same declared prefix;
        the other samples of this request; nobody. The second is empty where n is 1, else the third."""
        rest, nothing = (self.shared, len(self.pages)), (0, 0)
        return [(0, self.shared), *((rest, nothing) if self.request.n > 1 else (nothing, rest))]


@dataclasses.dataclass
class _Occupant:
    """The sample in a slot and what it has generated so far."""

    job: Job
    sample: int
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)


class Lane:
    """Some of an engine's slots, which are decoded together.

    `admit` and `collect` keep the account and use no device. `decode` uses the device and touches no account, so the
    lanes of an engine can decode in threads of their own.

    Args:
      chunk: decode steps per call of `decode`.
      max_pages: most pages of a prompt.
      groups_per_batch: groups of slots whose attention to shared pages is computed at once.
    """

    def __init__(
        self, compiled: Compiled, slots: int, chunk: int, max_pages: int, groups_per_batch: int, seed_key: jax.Array
    ):
        self._compiled = compiled
        self._chunk = chunk
        self._seed_key = seed_key
        self._state = compiled.slots()
        self._occupants: list[_Occupant | None] = [None] * slots
        self._entering: list[device.Admission] = []
        self._max_pages, self._groups_per_batch = max_pages, groups_per_batch
        self._groups: tuple[SlotGroups, ...] | None = None  # None: to be made anew

    @property
    def free(self) -> int:
        """How many slots hold no sample."""
        return sum(occupant is None for occupant in self._occupants)

    @property
    def busy(self) -> bool:
        """Whether any slot holds a sample."""
        return any(occupant is not None for occupant in self._occupants)

    def admit(self, ready: collections.deque[tuple[Job, int]]) -> None:
        """Put the first of the samples that are `ready`, whose prompts are computed, into the free slots."""
        free = collections.deque(slot for slot, occupant in enumerate(self._occupants) if occupant is None)
        while free and ready:
            count = min(MAX_ADMITTED, len(free), len(ready))
            entering = [(free.popleft(), *ready.popleft()) for _ in range(count)]
            for slot, job, sample in entering:
                self._occupants[slot] = _Occupant(job, sample)
            self._entering.append(_admission(entering, len(self._occupants)))
            self._groups = None

    def decode(self, model: Decoder, pages: Pages, tables: GrammarTables | None) -> np.ndarray:
        """Insert what was admitted, decode one chunk, and fetch what it generated (see slots.decode_chunk)."""
        for entering in jax.device_put(self._entering, self._compiled.replicated):
            self._state = self._compiled.insert(self._state, pages, entering, self._seed_key)
        self._entering = []
        if self._groups is None:
            self._groups = jax.device_put(self._groups_of_slots(), self._compiled.replicated)
        self._state, chunk = self._compiled.decode(model, self._state, pages, self._groups, tables)
        return jax.device_get(chunk)

    def collect(self, fetched: np.ndarray) -> tuple[int, list[Job]]:
        """Note what a chunk generated; returns its number of tokens, and the jobs that are complete with it."""
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
            self._occupants[slot] = self._groups = None
            job = occupant.job
            job.completions[occupant.sample] = _completion(occupant)
            if len(job.completions) == job.request.n:
                completed.append(job)
        return sum(counts), completed

    def _groups_of_slots(self) -> tuple[SlotGroups, ...]:
        """The slots grouped by the pages that they share, for each of the three ranges of Job.page_ranges."""
        together: list[dict[tuple[int, ...], list[int]]] = [{} for _ in GROUP_SIZES]
        jobs = {slot: occupant.job for slot, occupant in enumerate(self._occupants) if occupant}
        for slot, job in jobs.items():
            for (start, end), slots_by_pages in zip(job.page_ranges(), together, strict=True):
                if start < end and job.node:
                    key = start, min(job.node.end, end * KEY_BLOCK), *job.pages[start:end]
                    slots_by_pages.setdefault(key, []).append(slot)
        sizes = len(self._occupants), self._groups_per_batch, self._max_pages
        return tuple(slot_groups(*kind, *sizes) for kind in zip(together, GROUP_SIZES, strict=True))


def slot_groups(
    slots_by_pages: dict[tuple[int, ...], list[int]], group_size: int, slots: int, groups_per_batch: int, max_pages: int
) -> SlotGroups:
    """The groups of an engine of `slots` slots.

    Args:
      slots_by_pages: the slots that read the same pages, by what they read: which page of the sequence the first is,
        the position behind the last one, and the page numbers, `max_pages` at most.
      group_size: most slots of a group; more slots that read the same pages make several groups.
      groups_per_batch: groups that are computed at once. With groups of one slot they are all computed at once.
    """
    size = min(slots, groups_per_batch if group_size > 1 else slots)
    batches = -(-slots // size)
    members = np.full((batches * size, group_size), slots, np.int32)
    page_table = np.zeros((batches * size, max_pages), np.int32)
    first, count, end = np.zeros((3, batches * size), np.int32)
    group = 0
    for (start, stop, *pages), together in slots_by_pages.items():
        for i in range(0, len(together), group_size):
            some = together[i : i + group_size]
            members[group, : len(some)] = some
            page_table[group, : len(pages)] = pages
            first[group], count[group], end[group] = start, len(pages), stop
            group += 1

    def batched(x: np.ndarray) -> np.ndarray:
        return x.reshape(batches, size, *x.shape[1:])

    used = np.array(-(-group // size), np.int32)
    return SlotGroups(batched(members), batched(page_table), batched(first), batched(count), batched(end), used)


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
    """The arrays of a call of `insert`, from the (slot, job, sample) of each sample; `slots` is how many there are."""
    slot, last_page, prompt_length, sample, max_tokens, top_k = np.zeros((6, MAX_ADMITTED), np.int32)
    digest = np.zeros(MAX_ADMITTED, np.uint32)
    temperature, top_p = np.ones((2, MAX_ADMITTED), np.float32)
    stops = np.full((MAX_ADMITTED, device.MAX_STOPS), -1, np.int32)
    number, state, nearest, detour, max_detour = np.zeros((5, MAX_ADMITTED), np.int32)
    slot[:] = slots + np.arange(MAX_ADMITTED)  # unused entries name slots that do not exist
    for i, (to, job, k) in enumerate(entering):
        request = job.request
        assert job.node is not None
        slot[i], last_page[i], sample[i] = to, job.node.own_pages[-1], k
        prompt_length[i], digest[i] = job.node.end, digest32(job.request_id)
        max_tokens[i], top_k[i] = request.max_tokens, request.top_k
        temperature[i], top_p[i] = request.temperature, request.top_p
        if request.grammar:
            number[i], state[i], nearest[i] = job.grammar
            max_detour[i] = request.grammar.max_detour
        else:
            stops[i, : len(request.stop)] = request.stop
    settings = device.Settings(max_tokens, temperature, top_p, top_k, stops)
    grammar = GrammarState(number, state, nearest, detour, max_detour)
    return device.Admission(slot, last_page, prompt_length, digest, sample, settings, grammar)
