"""Reads the JSON files of a model directory, which anybody may have written: their size is limited, and every field is
read by a function that checks its type and range."""

import json
import pathlib
import reprlib
from typing import Any, cast

MAX_BYTES = 8 * 2**20  # twenty times the index of the largest models
MAX_MESSAGE = 2000  # characters

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlevel = 3


class ModelError(ValueError):
    """A model directory is missing, incomplete or not supported; the message says what to do. It is one line, even if
    it quotes names and values from the directory that hold line breaks."""

    def __init__(self, message: str):
        printable = "".join(c if c.isprintable() else " " for c in message[:MAX_MESSAGE])
        super().__init__(printable)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError if the file is too large, cannot be read, or holds none."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ModelError(f"{path} has {size:,} bytes: at most {MAX_BYTES:,} are read, replace the file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except ModelError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON ({error}): replace the file") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {shown(content)} and no JSON object: replace the file")
    return content


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file, indented and in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def unreadable(path: pathlib.Path, error: OSError) -> ModelError:
    """The error for a file that the operating system does not let us read."""
    return ModelError(f"{path} cannot be read ({error.strerror or type(error).__name__}): look at its permissions")


def shown(value: Any) -> str:
    """A JSON value as text for an error message, shortened."""
    return _REPR.repr(value)


def wrong_field(path: pathlib.Path, key: str, value: Any, what: str) -> ModelError:
    """The error for a field that must be `what` and has this value."""
    return ModelError(f"{path}: {key}={shown(value)} is not supported: it must be {what}")


def whole_number(
    path: pathlib.Path, raw: dict[str, Any], key: str, default: int | None = None, *, least=1, most
) -> int:
    """The field `key`, a whole number from `least` to `most`. Raises ModelError for anything else."""
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong_field(path, key, value, f"a whole number from {least} to {most}")
    return value


def positive_number(path: pathlib.Path, raw: dict[str, Any], key: str, default: float | None = None) -> float:
    """The field `key`, a number above 0 that a float32 holds. Raises ModelError for anything else."""
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e38:
        raise wrong_field(path, key, value, "a number above 0")
    return float(value)


def flag(path: pathlib.Path, raw: dict[str, Any], key: str) -> bool:
    """The field `key`, true or false; false where it is null or missing. Raises ModelError for anything else."""
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise wrong_field(path, key, value, "true or false")
    return bool(value)


def strings(path: pathlib.Path, raw: dict[str, Any], key: str) -> list[str]:
    """The field `key`, a list of strings; empty where it is null or missing. Raises ModelError for anything else."""
    value = raw.get(key)
    if value is not None and (not isinstance(value, list) or not all(isinstance(item, str) for item in value)):
        raise wrong_field(path, key, value, "a list of strings")
    return cast(list[str], value or [])
