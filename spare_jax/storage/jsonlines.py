"""JSON files and files of JSON lines: read with errors that say where, written whole or not at all, digested.

Text is written as UTF-8 without escapes, keys are sorted, and NaN and infinity, which JSON cannot hold, are refused.
"""

import codecs
import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

# Files up to this size are digested whole, larger ones (weights) by their size and 16 evenly spaced MiB.
WHOLE_DIGEST_BYTES = 1 << 30

R = TypeVar("R")
T = TypeVar("T")


class StoreError(ValueError):
    """A file is malformed, missing, in use, or made from something else; says which and what to do."""


def read_lines(
    path: str | Path,
    convert: Callable[[Any], T],
    on_error: str = "raise",
    malformed: list[str] | None = None,
) -> Iterator[tuple[int, T]]:
    """Read a file of JSON lines: (line number from 1, record) for every line that is not blank.

    Args:
      convert: decoded line -> record; raises a ValueError that names the field at fault.
      on_error, malformed: as for `convert_rows`.

    Raises:
      StoreError: the file is missing, or a line is malformed; names file, line and field.
    """
    return convert_rows(path, lines(path), lambda _, line: convert(decode(line)), on_error, malformed)


def lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank: (line number from 1, line).

    Raises:
      StoreError: the file is missing.
    """
    if not Path(path).is_file():
        raise StoreError(f"{path} does not exist: check the path, or run the stage that writes it")
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip():
                yield number, line


def convert_rows(
    source: str | Path,
    rows: Iterable[tuple[int, R]],
    convert: Callable[[int, R], T],
    on_error: str,
    malformed: list[str] | None,
) -> Iterator[tuple[int, T]]:
    """Convert numbered rows, keeping their numbers.

    Args:
      source: where the rows come from, for messages.
      convert: (number, row) -> record; raises a ValueError that names the field at fault.
      on_error: "raise" ends at the first malformed row, "skip" leaves malformed rows out and warns at the end.
      malformed: "skip" appends one message per row that it leaves out.

    Raises:
      StoreError: a row is malformed; names source, row and field.
    """
    if on_error not in ("raise", "skip"):
        raise StoreError(f'config.data.on_error is {on_error!r}: set it to "raise" or "skip"')
    malformed = [] if malformed is None else malformed
    before = len(malformed)
    for number, row in rows:
        try:
            value = convert(number, row)
        except (ValueError, OverflowError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            if on_error == "raise":
                raise StoreError(f"{source}:{number}: {reason}") from None
            malformed.append(f"{source}:{number}: {reason}")
            continue
        yield number, value
    if count := len(malformed) - before:
        logger.warning("%s: %d malformed lines skipped, the first: %s", source, count, malformed[before])


def write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines with sorted keys, whole or not at all.

    Raises:
      StoreError: a row holds NaN, infinity, or what is no JSON value.
    """
    _replace(Path(path), (_line(row, f"{path}: row {i}") for i, row in enumerate(rows, 1)))


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value, indented, whole or not at all.

    Raises:
      StoreError: it holds NaN, infinity (an undefined rate is None), or what is no JSON value; names the key.
    """
    path = Path(path)
    _refuse(value, path.name, "")
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)
    _replace(path, [_utf8(text), b"\n"])


def read_json(path: str | Path) -> Any:
    """The value of one JSON file.

    Raises:
      StoreError: the file is missing or malformed.
    """
    if not Path(path).is_file():
        raise StoreError(f"{path} does not exist: check the path, or run the stage that writes it")
    try:
        return decode(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: {error}") from None


def fingerprint(value: Any) -> str:
    """Digest of a JSON value, ten hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def digest(path: str | Path) -> str:
    """A digest of a file's contents, or of the names and contents of all files below a directory.

    Raises:
      StoreError: there is nothing at `path`.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return fingerprint([[name, digest(path / name)] for name in names])
    if not path.exists():
        raise StoreError(f"{path} does not exist: check the path, or run the stage that writes it")
    size, block = path.stat().st_size, 1 << 20
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= WHOLE_DIGEST_BYTES:
            while data := file.read(block):
                state.update(data)
        else:
            for i in range(16):
                file.seek((size - block) * i // 15)
                state.update(file.read(block))
    return state.hexdigest()


def decode(line: bytes) -> Any:
    """The value of a line of JSON. Raises ValueError where it is no JSON, or holds NaN or an infinite number."""
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _not_finite(text)


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


def _utf8(text: str) -> bytes:
    # Half of a surrogate pair, which a file may hold as an escape, has no UTF-8: it is written as that escape again.
    return text.encode(errors="backslashreplace")


def _line(row: Mapping[str, Any], where: str) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return _utf8(text) + b"\n"
    except (ValueError, TypeError) as error:
        raise StoreError(f"{where}: {error}") from None


def _refuse(value: Any, file: str, key: str) -> None:
    """Raise where `value` cannot be written without changing it; names the key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise StoreError(f"{file}: key {name!r} under {key!r} is no text")
            _refuse(item, file, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse(item, file, f"{key}[{i}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise StoreError(f"{file}: {key} is {value}: write None where a number is undefined")
    elif value is not None and not isinstance(value, str | int):
        raise StoreError(f"{file}: {key} is a {type(value).__name__}: write Python's own numbers, texts, lists, dicts")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Give the file's name to an OSError that has none, as one of a write to a full disk has."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file under another name, then rename it: readers see the whole old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with naming(path), partial.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
