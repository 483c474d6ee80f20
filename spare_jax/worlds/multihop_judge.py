"""Exact truth of candidate steps in the multihop world, by ProcessBench's rule.

A step is right if the path that it names leads to the person that it says, by what the story tells: directly, or
through entries that are told to be the same. Steps may be merged into a longer path, stand in any order, and say true
things that the answer does not need. Wrong are: a wrong person, a path that the story does not tell, a way over an
entry that is not told to be the same, text that names no path, and an answer before the whole way to it has been
established by right steps.

An explanation "Ada's boss: said X, Ada's boss is Y" gives the reason for the label: X and Y are the same if and only if
the step is right. Of an answer that comes too early Y is the first entry on its way that nothing has established, and
of a wrong way X names the way.
"""

import dataclasses
import re
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.multihop import RELATIONS, Entry, Story, story_of
from spare_jax.worlds.verdict import Verdict

ERRORS = ("RELATION", "PERSON", "UNTOLD", "WAY", "PREMISE", "PROPAGATED", "ANSWER", "FORMAT")
"""Categories of wrong steps: whom another relation of the same person gives; another wrong person; a path that the
story does not tell; a way over an entry that is not the same; an answer before its way was established; an answer that
follows from an earlier error; another wrong answer; text that names no path."""

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
    """What the candidate's earlier steps have said: entries by the right step that established them, wrong claims."""

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
    """A person and the relations to follow, in either way of putting it."""
    if match := _FORWARD.fullmatch(text):
        return match[1], tuple(match[2].removeprefix("'s ").split("'s "))
    if match := _BACKWARD.fullmatch(text):
        return match[2], tuple(reversed(match[1].lower().removeprefix("the ").removesuffix(" of ").split(" of the ")))
    return None


def _words(person: str, relations: Sequence[str]) -> str:
    return "'s ".join((person, *relations))


def _parse(step: str) -> tuple[Path, Path | None, str] | None:
    """A step's path, the way that it goes over, and the person that it says."""
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
    path, via, said = parsed
    words = _words(*path)
    entries = _follow(path, story)
    if entries is None:
        known.claimed.setdefault((path[0], path[1][-1]), set()).add(said)
        return Verdict(False, "UNTOLD", f"{words}: said {said}, {words} is not told")
    right = story.values[entries[-1]]
    error = None
    if said != right:
        others = {value for (person, _), value in story.values.items() if person == entries[-1][0]}
        error = "RELATION" if said in others else "PERSON"
    elif via is not None and not _is_same(entries, via, story):
        error = "WAY"
    shown = f"{_words(*via)}: {said}" if via is not None and error == "WAY" else said
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
        known.claimed.setdefault(entries[-1], set()).add(said)
    return verdict


def _is_same(entries: Sequence[Entry], via: Path, story: Story) -> bool:
    """Whether a path of one relation may go over `via`: the two are told to be the same."""
    other = (via[0], via[1][0])
    pairs = {(fact.entry, fact.same) for fact in story.facts if fact.same}
    return len(entries) == len(via[1]) == 1 and ((entries[0], other) in pairs or (other, entries[0]) in pairs)


def _sentences(entry: Entry, story: Story) -> list[int]:
    """Ids of the sentences that tell an entry: the one that does so outright, else that it is the same as another, and
    the other's."""
    direct = [i for i, fact in enumerate(story.facts, 1) if fact.entry == entry and not fact.same]
    if direct:
        return direct
    for i, fact in enumerate(story.facts, 1):
        for one, other in ((fact.entry, fact.same), (fact.same, fact.entry)):
            if one == entry and other:
                told = [j for j, f in enumerate(story.facts, 1) if f.entry == other and not f.same]
                if told:
                    return [i, *told]
    return []


def _established(person: str, story: Story, known: _Known, before: int) -> int | None:
    """The earlier step that found `person`, if there is one."""
    return min((at for e, at in known.established.items() if story.values[e] == person and at < before), default=None)


def _judge_answer(answer: str, story: Story, known: _Known, last_reference: int) -> Verdict:
    way = story.way
    right = story.values[way[-1]]
    missing = next((entry for entry in way if entry not in known.established), None)
    error = None
    if answer != right:
        error = "PROPAGATED" if any(answer in said for said in known.claimed.values()) else "ANSWER"
    elif missing is not None:
        error, right = "PREMISE", _words(missing[0], missing[1:])
    at = known.established.get(way[-1])
    return Verdict(
        error is None, error, f"answer: said {answer}, is {right}", (), (at,) if at else (), (last_reference,)
    )
