"""Where records rest: the files of one work directory, and what each stage's output was made from.

    <kind>.jsonl              records, one JSON object a line, sorted by id; judgements/<judge>.jsonl,
                              verifications/<name>.jsonl and preferences/<name>.jsonl likewise
    <stage>.journal.jsonl     answers to the requests of a stage that has not ended (programs.py)
    manifests/<stage>.json    the settings that the stage read, digests of its inputs and of its outputs; "suspended":
                              what it wrote so far, where it is to go on; "provisional": its inputs that were so
    runs/<n>.json             seconds and rates: what differs from run to run lives apart from the records

A file of records is written once, when its stage ends, under another name, and then renamed: it is whole or it is not
there. The journal alone carries the progress inside a stage. What is no longer as it was written is not believed: the
sums of a journal's lines and the digests of outputs tell.
"""

import collections
import concurrent.futures
import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from spare_jax.programs import Completion
from spare_jax.records import Gold, Judgement, Preference, Problem, Record, Solution
from spare_jax.storage.jsonlines import (
    StoreError,
    digest,
    fingerprint,
    naming,
    read_json,
    read_lines,
    write_json,
    write_lines,
)

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
    names the stage's fingerprint: a journal of another one is started anew. Every line ends with a sum of itself and of
    all lines before it, so that none is believed that was changed, moved or copied.

    Raises:
      StoreError: a line can be read and is not as it was written, or not behind the lines before it; names the first.
    """

    def __init__(self, path: Path, stage_fingerprint: str):
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._file = path.open("a+b")
        try:
            self._end, self._sum = self._scan(stage_fingerprint)
        except StoreError:
            self._file.close()
            raise
        self._file.truncate(self._end)
        self._failure: OSError | None = None
        if self._end == 0:
            line, self._sum = _line({"fingerprint": stage_fingerprint}, self._sum)
            self._append(line)
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
        with naming(self.path):
            self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
        while self._writing:
            self._writing.popleft().result()

    def _write(self, request_id: str, completions: tuple[Completion, ...]) -> None:
        try:
            if self._failure is not None:  # no line may follow one that is not whole
                raise self._failure
            line, line_sum = _line({"id": request_id, "completions": [vars(c) for c in completions]}, self._sum)
            place = self._end, len(line)
            self._append(line)
            self._sum, self._places[request_id] = line_sum, place
        finally:
            del self._unwritten[request_id]

    def _append(self, line: bytes) -> None:
        try:
            with naming(self.path):
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            self._failure = error
            raise
        self._end += len(line)

    def _scan(self, stage_fingerprint: str) -> tuple[int, bytes]:
        """Fill the table of places; the length of the part of the file that is whole, and the sum of its last line."""
        self._file.seek(0)
        end, before = 0, b""
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            body = line[:-_SUM_LENGTH] + b"}"
            line_sum = _sum_behind(before, body)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or row.keys().isdisjoint({"sum", "fingerprint"}):
                logger.warning("%s is unreadable from line %d on: that part is dropped", self.path, number)
                break
            try:
                if line[-_SUM_LENGTH:] != b',"sum":"%s"}\n' % line_sum:
                    raise ValueError
                if number == 1 and row["fingerprint"] != stage_fingerprint:
                    logger.warning("%s belongs to other settings or inputs: started anew", self.path)
                    return 0, b""
                if number > 1:
                    self._places[_read_answer(line)[0]] = (end, len(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreError(
                    f"{self.path}:{number}: not as it was written, or by another version: "
                    f"delete the file, or its lines from {number} on, and what they answered is asked again"
                ) from None
            end, before = end + len(line), line_sum
        return end, before


class WorkDir:
    """One work directory. Only the holder of `lock` may write to it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._written: set[str] = set()  # by this object, perhaps for a stage that has not ended

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
          StoreError: the file is missing, or not as its stage wrote it, or a line is malformed; names file, line and
            field.
        """
        record_type, _ = KINDS[kind.split("/")[0]]
        self._check_unchanged(self.file(kind))
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
        self._written.add(f"{kind}.jsonl")
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
          StoreError: it has run with other settings or on other inputs, or an output is not as it has written it. A
            stage that was made from suspended outputs, which have changed, counts as not run.
        """
        self._check_inputs(stage, settings, self._digests(inputs))
        manifest = self._manifest(stage)
        if manifest is None or manifest["outputs"] is None:
            return False
        for name in manifest["outputs"]:
            self._check_written(name, digest(self.path / name))
        return True

    def begin(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str | Path]) -> None:
        """Note what `stage` is about to be made from. Raises as `done` does."""
        digests = self._digests(inputs)
        self._check_inputs(stage, settings, digests)
        unsettled: set[str] = set()  # what has gaps, or was made from what has
        for manifest in map(_read_manifest, self._manifests()):
            unsettled.update(manifest["suspended"], (manifest["provisional"] and manifest["outputs"]) or ())
        manifest = {
            "settings": settings,
            "inputs": digests,
            "outputs": None,
            "provisional": sorted(name for name, path in inputs.items() if self._own_name(path) in unsettled),
            "suspended": [],
        }
        self.write_json(f"manifests/{_name(stage)}.json", manifest)

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
          outputs: paths from the work directory. Where one of them is deleted later, the stage counts as not run;
            where one is changed, it is an error to read it.
        """
        names = sorted(str(output) for output in outputs)
        if missing := [name for name in names if not (self.path / name).exists()]:
            raise StoreError(f"stage {stage} did not write {missing[0]} in {self.path}")
        path = self._manifest_path(stage)
        written = {name: digest(self.path / name) for name in names}
        write_json(path, _read_manifest(path) | {"outputs": written, "suspended": []})
        self._drop_journals(stage)

    def suspend(self, stage: str, outputs: Iterable[str | Path]) -> None:
        """Note what `stage`, which has begun, wrote so far, and that it is to go on: some of what it asked failed for a
        cause that may pass. Its journals stay. A stage that is made from these outputs is made anew when they change.
        """
        path = self._manifest_path(stage)
        write_json(path, _read_manifest(path) | {"suspended": sorted(map(str, outputs))})

    def _forget(self, stage: str, manifest: Mapping[str, Any]) -> None:
        """Remove what a stage wrote, its manifest and its journals. A training's checkpoints lie beside its export."""
        for name in (*(manifest["outputs"] or ()), *manifest["suspended"]):
            output = self.path / name
            for path in (output, output.with_name("checkpoints")) if output.is_dir() else (output,):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._drop_journals(stage)
        self._manifest_path(stage).unlink()

    def _drop_journals(self, stage: str) -> None:
        for journal in (self.path / f"{stage}.journal.jsonl", *self.path.glob(f"{stage}.*.journal.jsonl")):
            journal.unlink(missing_ok=True)

    def _check_inputs(self, stage: str, settings: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        self.check(stage, settings)
        manifest = self._manifest(stage)
        if manifest is None:
            return
        for name in sorted(digests.keys() | manifest["inputs"].keys()):
            if digests.get(name) != manifest["inputs"].get(name):
                if name in manifest["provisional"]:
                    logger.info("%-22s made anew: what it was made from had gaps, and has changed", stage)
                    return self._forget(stage, manifest)
                raise StoreError(
                    f"stage {stage} in {self.path} was made from another {name!r} than there is now: "
                    f"give another --workdir, or delete {self._manifest_path(stage)} to make stage {stage} again"
                )

    def _own_name(self, path: str | Path) -> str:
        return os.path.relpath(self.path / path, self.path)

    def _manifests(self) -> list[Path]:
        return sorted((self.path / "manifests").glob("*.json"))

    def _manifest_path(self, stage: str) -> Path:
        return self.path / "manifests" / f"{_name(stage)}.json"

    def _manifest(self, stage: str) -> dict[str, Any] | None:
        """The stage's manifest; None where there is none, or where an output it names has been deleted."""
        path = self._manifest_path(stage)
        if not path.exists():
            return None
        manifest = _read_manifest(path)
        outputs = manifest["outputs"]
        if outputs is not None and not all((self.path / name).exists() for name in outputs):
            return None
        return manifest

    def _digests(self, inputs: Mapping[str, str | Path]) -> dict[str, str]:
        digests = {}
        for name, path in inputs.items():
            digests[name] = digest(self.path / path)
            self._check_written(path, digests[name])
        return digests

    def _check_unchanged(self, file: Path) -> None:
        if file.is_file():
            self._check_written(file, digest(file))

    def _check_written(self, path: str | Path, found: str) -> None:
        """Refuse what has another digest than any stage noted that wrote it; what no stage has noted may be anything.

        A path that several stages write is as the last of them left it.
        """
        name = self._own_name(path)
        if name in self._written:
            return
        noted = {
            manifest.stem: outputs[name]
            for manifest in self._manifests()
            if name in (outputs := _read_manifest(manifest)["outputs"] or {})
        }
        if noted and found not in noted.values():
            raise StoreError(
                f"{self.path / name} is not as stage {' or '.join(noted)} wrote it: "
                "put it back, or delete it to have it made again"
            )

    # Other files

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file (metrics.json, config.json) as `jsonlines.write_json` does."""
        self._written.add(name)
        write_json(self.path / name, value)

    def read_json(self, name: str) -> Any:
        """The value of one JSON file.

        Raises:
          StoreError: it is missing, malformed, or not as its stage wrote it.
        """
        self._check_unchanged(self.path / name)
        return read_json(self.path / name)

    def next_run(self) -> int:
        """The first free n of runs/<n>.json, to be written with write_json; counts from 1."""
        return max(self._run_numbers(), default=0) + 1

    def measured(self) -> list[tuple[str, dict[str, Any]]]:
        """What the runs have measured, in their order: a stage, and its figures by name.

        Raises:
          StoreError: a runs/<n>.json is of another shape; names it.
        """
        found = []
        for number in self._run_numbers():
            path = self.path / "runs" / f"{number}.json"
            try:
                stages = read_json(path)["stages"].items()
                if not all(isinstance(figures, dict) for _, figures in stages):
                    raise ValueError
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreError(f"{path} is no run's: delete it, it holds nothing but seconds and rates") from None
            found += stages
        return found

    def _run_numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.path / "runs").glob("*.json") if path.stem.isdecimal())


_UNSET = object()


def _journal_name(stage: str, part: str) -> str:
    return f"{_name(stage)}.{_name(part)}.journal.jsonl" if part else f"{_name(stage)}.journal.jsonl"


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w+-]*", text):
        raise StoreError(f"{text!r} cannot be the name of a stage: use letters, digits, _ and -")
    return text


def _line(row: Mapping[str, Any], before: bytes) -> tuple[bytes, bytes]:
    """A row as a journal's line, and its sum. NaN and infinity are kept: a stage must see after a restart what it would
    have seen without."""
    body = json.dumps(row, separators=(",", ":")).encode()
    line_sum = _sum_behind(before, body)
    return b'%s,"sum":"%s"}\n' % (body[:-1], line_sum), line_sum


_SUM_LENGTH = len(',"sum":"0123456789abcdef"}\n')


def _sum_behind(before: bytes, body: bytes) -> bytes:
    """16 hexadecimal digits that stand for a journal's line, without its own sum, and all lines before it."""
    return hashlib.blake2b(body, key=before, digest_size=8).hexdigest().encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest, each part of which is what it should be."""
    try:
        manifest = read_json(path)
        _flat(manifest["settings"])
        outputs = {} if manifest["outputs"] is None else manifest["outputs"]
        lists = manifest["provisional"], manifest["suspended"]
        texts = [*manifest["inputs"].values(), *outputs.values(), *itertools.chain(*lists)]
        known = {"settings", "inputs", "outputs", "provisional", "suspended"}
        if (
            manifest.keys() == known
            and all(isinstance(names, list) for names in lists)
            and all(isinstance(text, str) for text in texts)
        ):
            return manifest
    except (StoreError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise StoreError(f"{path} is no manifest: delete it to make stage {path.stem} again")


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
