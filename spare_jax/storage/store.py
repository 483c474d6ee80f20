"""The files of one work directory, and from what each stage made its output.

    <kind>.jsonl              records, one JSON object a line, sorted by id; judgements/<judge>.jsonl,
                              verifications/<name>.jsonl and preferences/<name>.jsonl likewise
    <stage>.journal.jsonl     answers to the requests of a stage that has not ended (journal.py)
    manifests/<stage>.json    a stage's settings and digests of its inputs and outputs; "suspended" names outputs of a
                              stage that is to go on, "provisional" inputs that were suspended or made from such
    runs/<n>.json             seconds and rates, which differ from run to run

A file of records is written when its stage ends, under another name, and then renamed: it is whole or not there. Only
the journal holds progress within a stage. Reading a file that has changed since its stage wrote it is an error.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from spare_jax.records import Gold, Judgement, Preference, Problem, Record, Solution
from spare_jax.storage.journal import Journal
from spare_jax.storage.jsonlines import (
    StoreError,
    digest,
    fingerprint,
    read_json,
    read_lines,
    write_json,
    write_lines,
)

logger = logging.getLogger(__name__)

# The record type and the field that identifies a record, by the first part of the kind's name.
KINDS: dict[str, tuple[type[Record], str]] = {
    "problems": (Problem, "id"),
    "gold": (Gold, "problem_id"),
    "solutions": (Solution, "id"),
    "judgements": (Judgement, "solution_id"),
    "verifications": (Judgement, "id"),  # several of a solution
    "preferences": (Preference, "id"),
}


class WorkDir:
    """One work directory. Only the holder of `lock` may write to it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._written: set[str] = set()  # files that this object wrote, perhaps for a stage that has not ended

    @contextlib.contextmanager
    def lock(self) -> Iterator[Self]:
        """Make the directory if need be, and keep other processes from using it.

        The lock ends with the process, however it ends, unless a forked child of it lives on.

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

    def read(self, kind: str) -> list[Any]:
        """The records of a kind, in the order of the file.

        Raises:
          StoreError: the file is missing, or not as its stage wrote it, or a line is malformed; names file, line and
            field.
        """
        record_type, _ = KINDS[kind.split("/")[0]]
        self._check_unchanged(self.file(kind))
        return [record for _, record in read_lines(self.file(kind), record_type.from_json)]

    def write(self, kind: str, records: Iterable[Record], as_given: bool = False) -> None:
        """Replace the file of a kind by these records, sorted by id or, with `as_given`, in the order given.

        Raises:
          StoreError: a record is of another type, or an id occurs twice.
        """
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
        """Raise where `stage` was run here with other settings; changes nothing. Called for every stage of a run before
        the first one starts.

        Args:
          settings: the part of the config that the stage reads, as nested JSON values.

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
        """Whether `stage` has ended with these settings and inputs and its outputs are there. A stage made from
        suspended outputs that have changed since is forgotten, with what it wrote, and counts as not run.

        Args:
          settings: as for `check`.
          inputs: name -> file or directory that the stage reads, absolute or relative to the work directory.

        Raises:
          StoreError: the stage was run with other settings or on other inputs, or an output has changed since.
        """
        self._check_inputs(stage, settings, self._digests(inputs))
        manifest = self._manifest(stage)
        if manifest is None or manifest["outputs"] is None:
            return False
        for name in manifest["outputs"]:
            self._check_written(name, digest(self.path / name))
        return True

    def begin(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str | Path]) -> None:
        """Write the manifest of a stage that is about to run. Arguments and errors are those of `done`."""
        digests = self._digests(inputs)
        self._check_inputs(stage, settings, digests)
        unsettled: set[str] = set()  # outputs that are suspended, or were made from such
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
        """The journal of a stage that has begun; `part` names one of several journals of the stage.

        Raises:
          StoreError: the stage has not begun.
        """
        manifest = self._manifest(stage)
        if manifest is None:
            raise StoreError(f"stage {stage} has not begun in {self.path}: call begin before journal")
        path = self.path / _journal_name(stage, part)
        return Journal(path, fingerprint([manifest["settings"], manifest["inputs"]]))

    def has_journal(self, stage: str, part: str = "") -> bool:
        """Whether an earlier run began this part of the stage and did not complete the stage."""
        return (self.path / _journal_name(stage, part)).exists()

    def complete(self, stage: str, outputs: Iterable[str | Path]) -> None:
        """Note the outputs of a stage that has ended, and delete its journals.

        Args:
          outputs: paths relative to the work directory. When one is deleted later, the stage counts as not run; when
            one is changed, reading it is an error.

        Raises:
          StoreError: an output is not there.
        """
        names = sorted(str(output) for output in outputs)
        if missing := [name for name in names if not (self.path / name).exists()]:
            raise StoreError(f"stage {stage} did not write {missing[0]} in {self.path}")
        path = self._manifest_path(stage)
        written = {name: digest(self.path / name) for name in names}
        write_json(path, _read_manifest(path) | {"outputs": written, "suspended": []})
        self._drop_journals(stage)

    def suspend(self, stage: str, outputs: Iterable[str | Path]) -> None:
        """Note the outputs of a stage that is to go on in a later run, because requests failed for a cause that may
        pass. Its journals stay. Stages that are made from these outputs meanwhile are made anew when they change."""
        path = self._manifest_path(stage)
        write_json(path, _read_manifest(path) | {"suspended": sorted(map(str, outputs))})

    def _forget(self, stage: str, manifest: Mapping[str, Any]) -> None:
        """Delete a stage's outputs, manifest and journals; and the checkpoints that lie beside a trained model."""
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

    def _check_written(self, path: str | Path, digest_now: str) -> None:
        """Raise where a file has another digest than the stages noted that wrote it; one of several is enough. A file
        that no stage has noted may be anything."""
        name = self._own_name(path)
        if name in self._written:
            return
        noted = {
            manifest.stem: outputs[name]
            for manifest in self._manifests()
            if name in (outputs := _read_manifest(manifest)["outputs"] or {})
        }
        if noted and digest_now not in noted.values():
            raise StoreError(
                f"{self.path / name} is not as stage {' or '.join(noted)} wrote it: "
                "put it back, or delete it to have it made again"
            )

    # Other files

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file of the directory ("metrics.json") as `jsonlines.write_json` does."""
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
        """The n of the next runs/<n>.json, from 1."""
        return max(self._run_numbers(), default=0) + 1

    def measured(self) -> list[tuple[str, dict[str, Any]]]:
        """Seconds and rates of all runs in their order: (stage, {name: figure}).

        Raises:
          StoreError: a runs/<n>.json has another shape; names it.
        """
        measured = []
        for number in self._run_numbers():
            path = self.path / "runs" / f"{number}.json"
            try:
                stages = read_json(path)["stages"].items()
                if not all(isinstance(figures, dict) for _, figures in stages):
                    raise ValueError
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreError(f"{path} is no run's: delete it, it holds nothing but seconds and rates") from None
            measured += stages
        return measured

    def _run_numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.path / "runs").glob("*.json") if path.stem.isdecimal())


_UNSET = object()


def _journal_name(stage: str, part: str) -> str:
    return f"{_name(stage)}.{_name(part)}.journal.jsonl" if part else f"{_name(stage)}.journal.jsonl"


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w+-]*", text):
        raise StoreError(f"{text!r} cannot be the name of a stage: use letters, digits, _ and -")
    return text


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest all of whose parts have the right types. Raises StoreError."""
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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"prm": {"tag": 1}} -> {"prm.tag": 1}."""
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))
