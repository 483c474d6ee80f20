"""Exact truth of candidate steps in the multihop world, by ProcessBench's rule.

A step is right if, by what the story tells, the path that it names leads to the person that it states; if it goes via
another entry, the story must tell that the two are the same. Steps may be merged into a longer path, stand in any
order, and state true things that the answer does not need. Wrong are: a wrong person, a path that the story does not
tell, a detour via an entry that is not told to be the same, text that names no path, and an answer before right steps
have established every entry on the question's path.

An explanation "Ada's boss: said X, Ada's boss is Y" gives the reason for the label: X and Y are the same if and only if
the step is right. For an answer that comes too early Y is the first entry that nothing has established, and for a wrong
detour X includes it.
"""

import dataclasses
import re
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.multihop import RELATIONS, Entry, Story, story_of
from spare_jax.worlds.verdict import Verdict

ERRORS = ("RELATION", "PERSON", "UNTOLD", "WAY", "PREMISE", "PROPAGATED", "ANSWER", "FORMAT")
"""Categories of wrong steps, in this order: the person at another relation of the same person; another wrong person; a
path that the story does not tell; a detour via an entry that is not the same; an answer that is not established yet; an
answer that follows from an earlier error; another wrong answer; text that names no path."""

HELD_OUT_ERRORS = ("WAY",)
"""Categories kept out of all training of judges."""

_RELATION = "|".join(RELATIONS)
_FORWARD = re.compile(rf"([A-Z][a-z]+)((?:'s (?:{_RELATION}))+)")
_BACKWARD = re.compile(rf"((?:[Tt]he (?:{_RELATION}) of )+)([A-Z][a-z]+)")
_STEP = re.compile(r"\s*(.+?) is (?:(.+): )?([A-Z][a-z]+)\s*\.?\s*")
_ANSWER = re.compile(r"\s*The answer is ([A-Z][a-z]+)\s*\.?\s*")


def stated_answer(step: str) -> str | None:
    """The name of a step "The answer is Ben.", None for any other step."""
    match = _ANSWER.fullmatch(step)
    return match[1] if match else None


@dataclasses.dataclass
class _Known:
    """From the candidate's earlier steps: which entries are established, by the number of the right step that did so,
    and the wrong persons that were claimed for each entry."""

    established: dict[Entry, int]
    claimed: dict[Entry, set[str]]


def judge(problem: Problem, gold: Gold, steps: Sequence[str]) -> list[Verdict]:
    """One verdict per step; see the module's docstring for the rule."""
    story = story_of(gold)
    reference = {}
    for number, step in enumerate(gold.steps, 1):
        if parsed := _parse(step):
            start, relations = parsed[0]
            reference[start, relations[0]] = number
    known, verdicts = _Known({}, {}), []
    for number, step in enumerate(steps, 1):
        answer = stated_answer(step)
        if answer is not None:
            verdicts.append(_judge_answer(answer, story, known, len(gold.steps)))
        else:
            verdicts.append(_judge_step(step, number, story, known, reference))
    return verdicts


Path = tuple[str, tuple[str, ...]]


def _path(text: str) -> Path | None:
    """A person and the relations to follow, from either wording; None for other text."""
    if match := _FORWARD.fullmatch(text):
        return match[1], tuple(match[2].removeprefix("'s ").split("'s "))
    if match := _BACKWARD.fullmatch(text):
        return match[2], tuple(reversed(match[1].lower().removeprefix("the ").removesuffix(" of ").split(" of the ")))
    return None


def _words(person: str, relations: Sequence[str]) -> str:
    return "'s ".join((person, *relations))


def _parse(step: str) -> tuple[Path, Path | None, str] | None:
    """A step's path, the entry that it goes via, if any, and the person that it states; None for other text."""
    match = _STEP.fullmatch(step)
    if match is None or (path := _path(match[1])) is None:
        return None
    via = _path(match[2]) if match[2] else None
    return None if match[2] and via is None else (path, via, match[3])


def _follow(path: Path, story: Story) -> list[Entry] | None:
    """The entries on a path, None where the story does not tell one of them."""
    at, entries = path[0], []
    for relation in path[1]:
        entries.append((at, relation))
        if (at, relation) not in story.values:
            return None
        at = story.values[at, relation]
    return entries


def _judge_step(step: str, number: int, story: Story, known: _Known, reference: dict[Entry, int]) -> Verdict:
    parsed = _parse(step)
    if parsed is None:
        return Verdict(False, "FORMAT", "no path is named")
    path, via, claim = parsed
    words = _words(*path)
    entries = _follow(path, story)
    if entries is None:
        known.claimed.setdefault((path[0], path[1][-1]), set()).add(claim)
        return Verdict(False, "UNTOLD", f"{words}: said {claim}, {words} is not told")
    right = story.values[entries[-1]]
    error = None
    if claim != right:
        others = {value for (person, _), value in story.values.items() if person == entries[-1][0]}
        error = "RELATION" if claim in others else "PERSON"
    elif via is not None and not _is_same(entries, via, story):
        error = "WAY"
    shown = f"{_words(*via)}: {claim}" if via is not None and error == "WAY" else claim
    verdict = Verdict(
        error is None,
        error,
        f"{words}: said {shown}, {words} is {right}",
        tuple(sorted({i for entry in entries for i in _sentences(entry, story)})),
        tuple(sorted({at for entry in entries if (at := _established(entry[0], story, known, number))})),
        tuple(sorted(reference[entry] for entry in entries if entry in reference)),
    )
    for entry in entries if error is None else ():
        known.established.setdefault(entry, number)
    if error is not None:
        known.claimed.setdefault(entries[-1], set()).add(claim)
    return verdict


def _is_same(entries: Sequence[Entry], via: Path, story: Story) -> bool:
    """Whether the path has one relation and the story tells that its entry and `via` are the same."""
    twin = (via[0], via[1][0])
    pairs = {(fact.entry, fact.same) for fact in story.facts if fact.same}
    return len(entries) == len(via[1]) == 1 and ((entries[0], twin) in pairs or (twin, entries[0]) in pairs)


def _sentences(entry: Entry, story: Story) -> list[int]:
    """Ids, from 1, of the sentences that tell an entry: outright, else of the one that equates it with another entry
    and of those that tell that one outright."""
    direct = [i for i, fact in enumerate(story.facts, 1) if fact.entry == entry and not fact.same]
    if direct:
        return direct
    for i, fact in enumerate(story.facts, 1):
        for side, twin in ((fact.entry, fact.same), (fact.same, fact.entry)):
            if side == entry and twin:
                direct_of_twin = [j for j, f in enumerate(story.facts, 1) if f.entry == twin and not f.same]
                if direct_of_twin:
                    return [i, *direct_of_twin]
    return []


def _established(person: str, story: Story, known: _Known, before: int) -> int | None:
    """The number of the earliest step that established an entry with the value `person`, if there is one."""
    return min((at for e, at in known.established.items() if story.values[e] == person and at < before), default=None)


def _judge_answer(answer: str, story: Story, known: _Known, last_reference: int) -> Verdict:
    way = story.way
    right = story.values[way[-1]]
    missing = next((entry for entry in way if entry not in known.established), None)
    error = None
    if answer != right:
        error = "PROPAGATED" if any(answer in claims for claims in known.claimed.values()) else "ANSWER"
    elif missing is not None:
        error, right = "PREMISE", _words(missing[0], missing[1:])
    at = known.established.get(way[-1])
    return Verdict(
        error is None, error, f"answer: said {answer}, is {right}", (), (at,) if at else (), (last_reference,)
    )
