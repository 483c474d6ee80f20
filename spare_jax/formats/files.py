"""Read a file or a data set of the hub in any format, by name, and write records as JSON lines in any format."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spare_jax import remote_code
from spare_jax.formats import (
    math_shepherd,
    omegaprm,
    plain,
    prm800k,
    prmbench,
    processbench,
    rlhflow,
    trl_preference,
    trl_stepwise,
)
from spare_jax.formats.fields import Row
from spare_jax.records import LabelledSolution, Record
from spare_jax.storage.jsonlines import StoreError, convert_rows, decode, lines, read_json, write_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """`records_of(row, default_id)`: the records of a row, with `default_id` where the row has no id.
    `row_of(record)`: its inverse, None where the format cannot express the record."""

    records_of: Callable[[Row, str], tuple[Record, ...]]
    row_of: Callable[[Any], Row | None]


# Records are LabelledSolution, but for trl_preference, whose are Preference.
FORMATS = {
    "trl_stepwise": Format(trl_stepwise.records_of, trl_stepwise.row_of),
    "math_shepherd": Format(math_shepherd.records_of, math_shepherd.row_of),
    "prm800k_neutral_right": Format(functools.partial(prm800k.records_of, neutral=True), prm800k.row_of),
    "prm800k_neutral_wrong": Format(functools.partial(prm800k.records_of, neutral=False), prm800k.row_of),
    "prm800k_neutral_masked": Format(functools.partial(prm800k.records_of, neutral=None), prm800k.row_of),
    "rlhflow": Format(rlhflow.records_of, rlhflow.row_of),
    "processbench": Format(processbench.records_of, processbench.row_of),
    "prmbench": Format(prmbench.records_of, prmbench.row_of),
    "omegaprm": Format(omegaprm.records_of, omegaprm.row_of),
    "plain": Format(plain.records_of, plain.row_of),
    "trl_preference": Format(trl_preference.records_of, trl_preference.row_of),
}


def read(
    source: str | Path,
    format_name: str,
    *,
    split: str = "train",
    on_error: str = "raise",
    malformed: list[str] | None = None,
) -> Iterator[Any]:
    """The records of a source, in its order; a row without id gets the file's name and its number, "<name>-00001".
    Solutions without steps are kept, and a warning counts them.

    Args:
      source, split: as for `rows`.
      format_name: a key of FORMATS.
      on_error, malformed: as for `jsonlines.convert_rows`.

    Raises:
      StoreError: there is no such format or source, or a row is malformed; names source, row and field.
    """
    chosen, stem = _format(format_name), Path(source).name.partition(".")[0]
    empty: list[str] = []

    def convert(number: int, row: Any) -> tuple[Record, ...]:
        return chosen.records_of(decoded(row), f"{stem}-{number:05d}")

    for _, records in convert_rows(source, rows(source, split), convert, on_error, malformed):
        empty += [r.solution.id for r in records if isinstance(r, LabelledSolution) and not r.solution.steps]
        yield from records
    if empty:
        logger.warning("%s: %d solutions have no steps, nothing to judge; the first: %s", source, len(empty), empty[0])


def write(path: str | Path, format_name: str, records: Iterable[Record]) -> int:
    """Write one row per record as JSON lines, in the order given; the file is whole or not there.

    Returns:
      How many records were left out because the format cannot express them.

    Raises:
      StoreError: there is no such format.
    """
    chosen, left_out = _format(format_name), 0

    def expressible() -> Iterator[Row]:
        nonlocal left_out
        for record in records:
            row = chosen.row_of(record)
            if row is None:
                left_out += 1
            else:
                yield row

    write_lines(path, expressible())
    return left_out


def rows(source: str | Path, split: str = "train") -> Iterator[tuple[int, Any]]:
    """The rows of a data set with their numbers from 1. A line of a JSON lines file comes as bytes that are not decoded
    yet, so that an error in it counts as one of its row.

    Args:
      source: a .jsonl, .json (JSON lines, or one array of rows) or .parquet file; or a directory for `datasets`; or a
        hub id, with ":<configuration>" behind it where the data set has several.
      split: which part of a hub id or directory.

    Raises:
      StoreError: there is no such source, it cannot be read, or it has no rows.
    """
    path, kind, number = Path(source), Path(source).suffix.lower(), 0
    if kind == ".parquet":
        numbered = enumerate(_parquet_rows(path), 1)
    elif kind not in (".jsonl", ".json"):
        numbered = enumerate(_dataset(str(source), split), 1)
    elif kind == ".json" and _is_array(path):
        numbered = enumerate(read_json(path), 1)
    else:
        numbered = lines(path)
    for number, row in numbered:
        yield number, row
    if not number:
        raise StoreError(f"{source} holds no rows: check the path, and what was to write it")


def decoded(row: Any) -> Any:
    """The value of a row of `rows`. Raises ValueError where it is a line that is no JSON."""
    return decode(row) if isinstance(row, bytes) else row


def _is_array(path: Path) -> bool:
    """Whether a .json file is one array and not JSON lines: no row begins with a bracket."""
    for _, line in lines(path):
        return line.decode("utf-8-sig", errors="replace").lstrip().startswith("[")
    return False


def _parquet_rows(path: Path) -> Iterator[Any]:
    # Neither this nor `datasets` is imported before it is needed: each takes a second.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise StoreError(f"{path}: {_first_line(error)}: check the path, and that it is a Parquet file") from None


def _dataset(name: str, split: str) -> Iterable[Any]:
    from datasets.exceptions import DatasetsError

    hub_id, _, configuration = name.partition(":")
    try:
        return remote_code.load_dataset(hub_id, configuration or None, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise StoreError(
            f"data set {name!r}, split {split!r}: {_first_line(error)}: name a .jsonl or .parquet file, a directory, "
            "or a hub id, and a split that it has"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise StoreError(f"format {name!r} is unknown: choose among {', '.join(FORMATS)}")
    return FORMATS[name]
