"""A task's rows, read from a directory of JSON lines, a directory of Parquet files, or a data set of the hub."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spare_jax.formats import files
from spare_jax.formats.fields import field
from spare_jax.records import Gold, Problem, RecordError
from spare_jax.storage.jsonlines import StoreError, convert_rows

T = TypeVar("T")
Fields = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""A row as question, context sentences, reference steps and accepted answers."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")
_HUB_SPLITS = {"dev": "validation", "math500": "test"}


def read_split(
    path: str | Path,
    file: str,
    parse: Callable[[Any], T],
    on_error: str,
    malformed: list[str] | None,
) -> Iterator[tuple[int, T]]:
    """The rows of one split, parsed, with their numbers from 1.

    Args:
      path: a directory that holds `file`, or Parquet files; or a hub id, with ":<configuration>" behind it where the
        data set has several ("openai/gsm8k:main").
      file: the split's file, JSON lines or a JSON array. Parquet files and the hub are asked for a split of its name
        without suffix, and for "validation" in place of "dev".
      parse: makes a value of a decoded row; raises a ValueError that names the field at fault (`required` does).
      on_error, malformed: as for `jsonlines.convert_rows`.

    Raises:
      StoreError: there is no such file or data set, or a row is malformed; names source, row and field.
    """
    source, stem = Path(path) / file, Path(file).stem
    from_hub = not Path(path).exists() and _HUB_ID.fullmatch(str(path))
    if not source.is_file() and (from_hub or any(Path(path).glob("**/*.parquet"))):
        rows = files.rows(path, _HUB_SPLITS.get(stem, stem))
        return convert_rows(f"{path}, {stem}", rows, lambda _, row: parse(row), on_error, malformed)
    return convert_rows(source, files.rows(source), lambda _, row: parse(files.decoded(row)), on_error, malformed)


def read_problems(
    task: str,
    splits: Mapping[str, str],
    path: str | Path,
    split: str,
    parse: Callable[[Any], Fields],
    on_error: str,
    malformed: list[str] | None,
) -> Iterator[tuple[Problem, Gold]]:
    """The problems of one split in the order of the file; ids hold the row's number from 1, "gsm8k-train-00001".

    Args:
      task: the first part of the ids.
      splits: the file of each split.
      path, parse, on_error, malformed: as for `read_split`.

    Raises:
      StoreError: no such split or file, or a malformed row; names source, row and field.
    """
    rows = read_split(path, split_file(task, splits, split), parse, on_error, malformed)
    for number, (question, context, steps, answers) in rows:
        problem_id = f"{task}-{split}-{number:05d}"
        yield Problem(problem_id, question, context), Gold(problem_id, answers, steps)


def split_file(task: str, splits: Mapping[str, str], split: str) -> str:
    """The file of a split. Raises StoreError where the task has no such split; names the splits that it has."""
    if split not in splits:
        raise StoreError(f"{task} has no split {split!r}: it has {', '.join(splits)}")
    return splits[split]


def required(row: Any, name: str, hint: type[T] = str) -> T:
    """`row[name]` as the type `hint` (lists become tuples), not empty.

    Raises:
      RecordError: `row` is no object, or the field is missing, of another type, or empty; names the field.
    """
    if isinstance(row, Mapping) and row.get(name) is None:
        there = ", ".join(str(key) for key in row if row[key] is not None) or "none"
        raise RecordError(f"field {name!r} is missing, the row has {there}: name a copy with the published fields")
    value = field(row, name, hint)
    if not (value.strip() if isinstance(value, str) else value):
        raise RecordError(f"field {name!r} is empty")
    return value
