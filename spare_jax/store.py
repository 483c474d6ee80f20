"""Where records rest: the files of one work directory, and what each stage's output was made from.

    <kind>.jsonl              records, one JSON object a line, sorted by id; judgements/<judge>.jsonl,
                              verifications/<name>.jsonl and preferences/<name>.jsonl likewise
    <stage>.journal.jsonl     answers to the requests of a stage that has not ended (programs.py)
    manifests/<stage>.json    the settings that the stage read, digests of its inputs, the names of its outputs
    runs/<n>.json             seconds and rates: what differs from run to run lives apart from the records

A file of records is written once, when its stage ends, under another name, and then renamed: it is whole or it is not
there. The journal alone carries the progress inside a stage.
"""

import collections
import concurrent.futures
import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from spare_jax.jsonlines import StoreError, digest, fingerprint, read_json, read_lines, write_json, write_lines
from spare_jax.programs import Completion
from spare_jax.records import Gold, Judgement, Preference, Problem, Record, Solution

logger = logging.getLogger(__name__)

MAX_UNWRITTEN = 256  # answers that a kill can cost a journal

# The record type and the field that identifies a record, by the first part of the kind's name.
KINDS: dict[str, tuple[type[Record], str]] = {
    "problems": (Problem, "id"),
    "gold": (Gold, "problem_id"),
    "solutions": (Solution, "id"),
    "judgements": (Judgement, "solution_id"),
    "verifications": (Judgement, "id"),  # several of a solution
    "preferences": (Preference, "id"),
}


class Journal:
    """Answers to requests, on disk soon after they are put (the protocol of programs.py).

    A thread of the journal's own does the writing, one write to the operating system per answer, which keeps it when
    the process is killed. What a kill loses, MAX_UNWRITTEN answers at most, is asked for again; what is torn or
    unreadable is dropped on opening, with all that follows. Only places in the file are held in memory. The first line
    names the stage's fingerprint: a journal of another one is started anew.
    """

    def __init__(self, path: Path, stage_fingerprint: str):
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._file = path.open("a+b")
        self._end = self._scan(stage_fingerprint)
        self._file.truncate(self._end)
        if self._end == 0:
            self._append(json.dumps({"fingerprint": stage_fingerprint}).encode() + b"\n")
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "journal")
        self._unwritten: dict[str, tuple[Completion, ...]] = {}
        self._writing: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    def __len__(self) -> int:
        return len(self._places.keys() | self._unwritten.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, request_id: str) -> tuple[Completion, ...] | None:
        """The answer to a request, None where it has none yet."""
        if (answer := self._unwritten.get(request_id)) is not None:
            return answer
        place = self._places.get(request_id)
        return None if place is None else _read_answer(os.pread(self._file.fileno(), place[1], place[0]))[1]

    def put(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        """Keep the answer to a request.

        Raises:
          TypeError: this or an earlier completion holds something else than Python's own numbers, which would not come
            back the same. Likewise OSError, where an earlier one could not be written.
        """
        while self._writing and (self._writing[0].done() or len(self._writing) >= MAX_UNWRITTEN):
            self._writing.popleft().result()
        self._unwritten[request_id] = completions
        self._writing.append(self._writer.submit(self._write, request_id, completions))

    def close(self, remove: bool = False) -> None:
        """Write what is left and close the file; `remove` it where the stage's records have been written.

        Raises what `put` raises.
        """
        self._writer.shutdown()
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
        while self._writing:
            self._writing.popleft().result()

    def _write(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        # NaN and infinity are kept here: a stage must see after a restart what it would have seen without.
        try:
            row = {"id": request_id, "completions": [vars(c) for c in completions]}
            line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
            place = self._end, len(line)
            self._append(line)
            self._places[request_id] = place
        finally:
            del self._unwritten[request_id]

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        self._end += len(line)

    def _scan(self, stage_fingerprint: str) -> int:
        """Fill the table of places; the length of the part of the file that is good."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                return end
            try:
                if end == 0 and json.loads(line)["fingerprint"] != stage_fingerprint:
                    logger.warning("%s belongs to other settings or inputs: started anew", self.path)
                    return 0
                if end > 0:
                    self._places[_read_answer(line)[0]] = (end, len(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                logger.warning("%s is unreadable from byte %d on: that part is dropped", self.path, end)
                return end
            end += len(line)
        return end


class WorkDir:
    """One work directory. Only the holder of `lock` may write to it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Self]:
        """Hold the directory for this process, and make it if need be.

        The kernel drops the lock when the process ends, however it ends (unless a forked child of it lives on).

        Raises:
          StoreError: another process holds it, or the path cannot be a directory.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(f"{self.path} is no directory: give another --workdir") from None
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "(not yet named)"
                raise StoreError(
                    f"{self.path} is in use by process {holder}: wait until it ends, or give another --workdir"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield self
        finally:
            os.close(descriptor)

    # Records

    def file(self, kind: str) -> Path:
        """The file of a kind: "problems", "gold", "solutions", "judgements/<judge>", ..."""
        head = kind.split("/")[0]
        if head not in KINDS or not re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)?", kind):
            raise StoreError(f"no kind of record is named {kind!r}; there are {', '.join(KINDS)}, and names below them")
        return self.path / f"{kind}.jsonl"

    def read(self, kind: str, on_error: str = "raise", malformed: list[str] | None = None) -> list[Any]:
        """The records of a kind, in the order of their ids.

        Args:
          on_error, malformed: as for `read_lines`.

        Raises:
          StoreError: the file is missing, or a line is malformed; names file, line and field.
        """
        record_type, _ = KINDS[kind.split("/")[0]]
        return [record for _, record in read_lines(self.file(kind), record_type.from_json, on_error, malformed)]

    def write(self, kind: str, records: Iterable[Record], as_given: bool = False) -> None:
        """Write all records of a kind in place of what was there, sorted by id or in the order `as_given`."""
        path = self.file(kind)
        record_type, id_field = KINDS[kind.split("/")[0]]
        by_id: dict[str, Record] = {}
        for record in records:
            if not isinstance(record, record_type):
                raise StoreError(f"{path}: expected {record_type.__name__}, found {type(record).__name__}")
            record_id = getattr(record, id_field)
            if record_id in by_id:
                raise StoreError(f"{path}: {id_field} {record_id!r} occurs twice")
            by_id[record_id] = record
        ordered = by_id.items() if as_given else sorted(by_id.items())
        write_lines(path, (record.to_json() for _, record in ordered))

    # What a stage was made from

    def check(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Refuse to run `stage` where other settings have run before; touches nothing.

        Call it for every stage of a run before the first one starts.

        Args:
          settings: the part of the config that the stage reads, nested as the config is; JSON values.

        Raises:
          StoreError: names the first config key that differs, and both values.
        """
        manifest = self._manifest(stage)
        if manifest is None:
            return
        old, new = _flat(manifest["settings"]), _flat(_through_json(settings))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key, _UNSET) != new.get(key, _UNSET):
                values = [json.dumps(s[key], ensure_ascii=False) if key in s else "(not set)" for s in (old, new)]
                raise StoreError(
                    f"{self.path} was made with config.{key}={values[0]}, this run asks for {values[1]}: "
                    f"give another --workdir, or delete {self._manifest_path(stage)} to make stage {stage} again"
                )

    def done(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str | Path]) -> bool:
        """Whether `stage` has ended with these settings and inputs, and its outputs are there.

        Args:
          settings: as for `check`.
          inputs: what the stage reads, files or directories by a name of the caller's; relative paths count from the
            work directory.

        Raises:
          StoreError: it has run with other settings or on other inputs.
        """
        self._check_inputs(stage, settings, self._digests(inputs))
        manifest = self._manifest(stage)
        return manifest is not None and manifest["outputs"] is not None

    def begin(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str | Path]) -> None:
        """Note what `stage` is about to be made from. Raises as `done` does."""
        digests = self._digests(inputs)
        self._check_inputs(stage, settings, digests)
        self.write_json(f"manifests/{_name(stage)}.json", {"settings": settings, "inputs": digests, "outputs": None})

    def journal(self, stage: str, part: str = "") -> Journal:
        """The journal of a stage that has begun; `part` tells several of one stage apart.

        Raises:
          StoreError: the stage has not begun.
        """
        manifest = self._manifest(stage)
        if manifest is None:
            raise StoreError(f"stage {stage} has not begun in {self.path}: call begin before journal")
        path = self.path / _journal_name(stage, part)
        return Journal(path, fingerprint([manifest["settings"], manifest["inputs"]]))

    def has_journal(self, stage: str, part: str = "") -> bool:
        """Whether a run of the stage has begun that part and was ended before it completed."""
        return (self.path / _journal_name(stage, part)).exists()

    def complete(self, stage: str, outputs: Iterable[str | Path]) -> None:
        """Note that `stage`, which has begun, has ended and what it wrote; drop its journals.

        Args:
          outputs: paths from the work directory. Where one of them is deleted later, the stage counts as not run.
        """
        names = sorted(str(output) for output in outputs)
        if missing := [name for name in names if not (self.path / name).exists()]:
            raise StoreError(f"stage {stage} did not write {missing[0]} in {self.path}")
        path = self._manifest_path(stage)
        write_json(path, read_json(path) | {"outputs": names})
        for journal in (self.path / f"{stage}.journal.jsonl", *self.path.glob(f"{stage}.*.journal.jsonl")):
            journal.unlink(missing_ok=True)

    def _check_inputs(self, stage: str, settings: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        self.check(stage, settings)
        manifest = self._manifest(stage)
        if manifest is None:
            return
        for name in sorted(digests.keys() | manifest["inputs"].keys()):
            if digests.get(name) != manifest["inputs"].get(name):
                raise StoreError(
                    f"stage {stage} in {self.path} was made from another {name!r} than there is now: "
                    f"give another --workdir, or delete {self._manifest_path(stage)} to make stage {stage} again"
                )

    def _manifest_path(self, stage: str) -> Path:
        return self.path / "manifests" / f"{_name(stage)}.json"

    def _manifest(self, stage: str) -> dict[str, Any] | None:
        """The stage's manifest; None where there is none, or where an output it names has been deleted."""
        path = self._manifest_path(stage)
        if not path.exists():
            return None
        manifest = read_json(path)
        if not (isinstance(manifest, dict) and manifest.keys() == {"settings", "inputs", "outputs"}):
            raise StoreError(f"{path} is no manifest: delete it to make stage {stage} again")
        outputs = manifest["outputs"]
        if outputs is not None and not all((self.path / name).exists() for name in outputs):
            return None
        return manifest

    def _digests(self, inputs: Mapping[str, str | Path]) -> dict[str, str]:
        return {name: digest(self.path / path) for name, path in inputs.items()}

    # Other files

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file (metrics.json, config.json) as `jsonlines.write_json` does."""
        write_json(self.path / name, value)

    def read_json(self, name: str) -> Any:
        """The value of one JSON file; raises as `jsonlines.read_json` does."""
        return read_json(self.path / name)

    def next_run(self) -> int:
        """The first free n of runs/<n>.json, to be written with write_json; counts from 1."""
        numbers = [int(path.stem) for path in (self.path / "runs").glob("*.json") if path.stem.isdecimal()]
        return max(numbers, default=0) + 1


_UNSET = object()


def _journal_name(stage: str, part: str) -> str:
    return f"{_name(stage)}.{_name(part)}.journal.jsonl" if part else f"{_name(stage)}.journal.jsonl"


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w+-]*", text):
        raise StoreError(f"{text!r} cannot be the name of a stage: use letters, digits, _ and -")
    return text


def _read_answer(line: bytes) -> tuple[str, tuple[Completion, ...]]:
    row = json.loads(line)
    completions: list[Completion] = []
    for row_fields in row["completions"]:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row_fields.items()}
        completions.append(Completion(**fields))
    return row["id"], tuple(completions)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"prm": {"tag": 1}} -> {"prm.tag": 1}."""
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))
