"""The command line's surface: settings are frozen dataclasses, which become a ConfigDict and are read back from it."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from spare_jax.keys import FileName, is_listed
from spare_jax.records import convert

# Keys that have had another name.
RENAMED = {"models.verifier": "models.generative"}

# What may be set, by its key: a type, or of a dataclass such a tree. Keys of a mapping are anybody's.
Tree = Mapping[str, Any]
ANY = "*"


def listed(value: Any) -> Any:
    """Settings as plain values, a dataclass as its keys; tuples stay."""
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if is_listed(value, field))
        return {field.name: listed(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {name: listed(of) for name, of in value.items()}
    return value


def read(hint: Any, value: Any, key: str) -> Any:
    """What stands under `key` as the type that a stage takes: a dataclass is read from a mapping, or from another one,
    that has its fields and perhaps more.

    Raises:
      ValueError: a value does not fit; names the key.
    """
    hint = _without_note(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        given, hints = value if isinstance(value, Mapping) else listed(value), fields_of(hint)
        return hint(**{name: read(hints[name], given[name], f"{key}.{name}") for name in given if name in hints})
    if _is_mapping(hint):
        return {name: read(typing.get_args(hint)[1], of, f"{key}.{name}") for name, of in value.items()}
    if typing.get_origin(hint) is typing.Literal:
        hint = str  # which words there are the dataclass knows
    return convert(value, hint, key)


def fields_of(hint: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by their names."""
    hints = typing.get_type_hints(hint, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(hint)}


def tree_of(hint: Any) -> Any:
    """What may be set of a type."""
    if dataclasses.is_dataclass(hint):
        return {name: tree_of(of) for name, of in fields_of(hint).items()}
    return {ANY: tree_of(typing.get_args(hint)[1])} if _is_mapping(hint) else hint


def merged(one: Any, other: Any) -> Any:
    """Two trees, or two mappings of plain values, in one; where both have a key the other one's counts."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    both = {name: merged(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}


def pruned(value: Any, tree: Any) -> Any:
    """Plain values without what is not in the tree."""
    if not isinstance(tree, Mapping):
        return value
    return {name: pruned(of, _below(tree, name)) for name, of in value.items() if name in tree or ANY in tree}


def check_keys(value: Mapping[str, Any], tree: Tree, key: str = "config") -> None:
    """Raises ValueError for a key that is not in the tree; names it, and its new name where it has one."""
    for name, of in value.items():
        if name not in tree and ANY not in tree:
            raise ValueError(no_such_key(f"{key}.{name}", tree))
        below = _below(tree, name)
        if isinstance(below, Mapping) and isinstance(of, Mapping):
            check_keys(of, below, f"{key}.{name}")


def no_such_key(key: str, known: Mapping[str, Any] = types.MappingProxyType({})) -> str:
    """What a user is told of a key that there is not."""
    old = key.removeprefix("config.")
    for name, new in RENAMED.items():
        if f"{old}.".startswith(f"{name}."):
            return f"there is no config key {key} any more: it is config.{new}{old.removeprefix(name)}"
    others = f"there are {', '.join(sorted(known))}" if known else "config.json of a run has all of its keys"
    return f"there is no config key {key}: {others}"


def config_dict(value: Mapping[str, Any], tree: Tree) -> ml_collections.ConfigDict:
    """Plain values as a ConfigDict. What is None can be set to what its type allows."""
    config = ml_collections.ConfigDict()
    for name, of in value.items():
        below = _below(tree, name)
        if isinstance(of, Mapping):
            config[name] = config_dict(of, below)
        else:
            config[name] = placeholder(_some(below)) if of is None else of
    return config


def named_files(value: Any, tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """What plain values name of files, directories and hub ids, by their keys."""
    if isinstance(tree, Mapping):
        for name, of in value.items():
            yield from named_files(of, _below(tree, name), f"{key}.{name}")
    elif tree == FileName and value:
        yield key, value


def _below(tree: Tree, name: str) -> Any:
    return tree[name] if name in tree else tree[ANY]


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) is Mapping


def _without_note(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _some(hint: Any) -> type:
    """The type that stands beside None."""
    return next((of for of in typing.get_args(hint) if of is not type(None)), hint)


def parse_argument(argument: str | None, **defaults: bool | int | str) -> dict[str, bool | int | str]:
    """Read `a,b=3` behind a config's name: a word alone means True, a value takes the type of its default.

    Raises:
      ValueError: a key without default, or a value that does not fit; says which there are.
    """
    values = dict(defaults)
    for item in filter(None, (argument or "").split(",")):
        key, given, text = item.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {key!r} is unknown: choose among {', '.join(defaults)}")
        kind = type(defaults[key])
        if not given and kind is not bool:
            raise ValueError(f"config argument {key!r} needs a value: write {key}=...")
        try:
            values[key] = (text or "true").lower() == "true" if kind is bool else kind(text)
        except ValueError:
            raise ValueError(f"config argument {key}={text!r} is no {kind.__name__}") from None
    return values
