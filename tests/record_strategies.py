"""Hypothesis strategies for records, built from their type hints."""

import dataclasses
import types
import typing

from hypothesis import strategies as st

from spare_jax.records import Judgement, Preference, Record, StepJudgement

# Every character there is: line ends of all kinds, control characters, halves of surrogate pairs.
TEXT = st.text(st.characters(), max_size=12)


def record(cls: type[Record]) -> st.SearchStrategy:
    if cls is Preference:
        return _preferences()
    if cls is Judgement:
        return _judgements()
    return st.builds(cls, **{name: _values(hint) for name, hint in typing.get_type_hints(cls).items()})


@st.composite
def _judgements(draw) -> Judgement:
    """Of any kind; what failed has no label, no score and no outcome."""
    values = {name: draw(_values(hint)) for name, hint in typing.get_type_hints(Judgement).items()}
    if values["failure"]:
        values |= {"steps": (StepJudgement(),) * len(values["steps"]), "outcome": None, "outcome_score": None}
    return Judgement(**values)


@st.composite
def _preferences(draw) -> Preference:
    """Any two solutions, behind steps that both begin with; some or all of these count as shared."""
    values = {name: draw(_values(hint)) for name, hint in typing.get_type_hints(Preference).items()}
    shared = draw(_values(tuple[str, ...]))
    for side in ("chosen", "rejected"):
        values[side] = dataclasses.replace(values[side], steps=(*shared, *values[side].steps))
    return Preference(**values | {"shared_steps": draw(st.integers(0, len(shared)))})


def _values(hint) -> st.SearchStrategy:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(_values, args))
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(_values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(_values, args))
    if isinstance(hint, type) and issubclass(hint, Record):
        return record(hint)
    return {
        str: TEXT,
        int: st.integers(-(2**63), 2**63),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        types.NoneType: st.none(),
    }[hint]
