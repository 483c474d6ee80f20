"""How stages follow one another.

A stage that has ended is not run again; one that was killed goes on from its journal or checkpoint.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spare_jax.runs.run import Run
from spare_jax.runs.settings import Config

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage: its function, which returns the names of what it wrote, and what it is made from.

    `keys` are the parts of the config that it reads; `needs` are files or directories of the work directory that must
    be there, `reads` those that it reads where there are any. `given` are keys of the config that may name a file from
    elsewhere, or anything of the work directory, which must stay what it was. A `derived` stage is quick and made anew
    in every run. Where the stage is run once `per` value of some keys of the config, "{0}", "{1}", ... in its needs and
    reads are these values.
    """

    run: Callable[[Run], list[str]]
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    derived: bool = False
    per: tuple[str, ...] = ()

    def label(self, name: str, config: Config) -> str:
        """What the stage `name` is called in manifests and journals."""
        return "-".join((name, *(_value(config, key) for key in self.per)))

    def files(self, of: Sequence[str], config: Config) -> list[str]:
        """`needs` or `reads` under this config."""
        return [path.format(*(_value(config, key) for key in self.per)) for path in of]


def chosen(config: Config, stages: Mapping[str, Stage]) -> list[str]:
    """The config's stages, in its order.

    Raises:
      ValueError: a stage that does not exist.
    """
    if unknown := set(config.stages) - set(stages):
        raise ValueError(f"config.stages names {min(unknown)!r}: the stages are {', '.join(stages)}")
    return list(config.stages)


def settings_of(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """The part of the config that lies under `keys`, nested as the config is."""
    part: dict[str, Any] = {}
    for key in keys:
        value, place = config, part
        *parents, last = key.split(".")
        for parent in parents:
            value, place = value[parent], place.setdefault(parent, {})
        value = value[last]
        place[last] = value.to_dict() if isinstance(value, ConfigDict) else value
    return part


def _value(config: Config, key: str) -> Any:
    """The config's value under a key as it is written on the command line, "grpo.reward"."""
    return functools.reduce(ConfigDict.__getitem__, key.split("."), config)


def _given_files(run: Run, keys: Iterable[str]) -> dict[str, Path]:
    """What the config names under `keys`, by their keys: files, and directories of the work directory. Other
    directories and hub ids are left out."""
    found, work = {}, run.work.path.resolve()
    for key in keys:
        named = _value(run.config, key)
        own, path = (work / named).resolve(), Path(named).resolve()
        if work in own.parents and own.exists():
            found[f"config.{key}"] = own
        elif path.is_file():
            found[f"config.{key}"] = path
    return found


def execute(run: Run, names: Sequence[str], stages: Mapping[str, Stage]) -> None:
    """Run the stages that have not ended yet, each under its manifest.

    A stage some of whose programs failed for a cause that may pass has not ended: the next run asks these again. What
    later stages make of it until then is made anew when the answers have come.

    Raises:
      ValueError: a stage lacks its inputs.
      StoreError: a stage has run in this directory with other settings or on other inputs.
    """
    for name in names:
        if not stages[name].derived:
            run.work.check(stages[name].label(name, run.config), settings_of(run.config, stages[name].keys))
    for name in names:
        stage = stages[name]
        needs, reads = (stage.files(of, run.config) for of in (stage.needs, stage.reads))
        for needed in needs:
            if not (run.work.path / needed).exists():
                raise ValueError(f"stage {name} needs {run.work.path / needed}: run the stages before it first")
        started = time.perf_counter()
        if stage.derived:
            stage.run(run)
        else:
            label, part = stage.label(name, run.config), settings_of(run.config, stage.keys)
            inputs: dict[str, str | Path] = {
                path: path for path in (*needs, *reads) if (run.work.path / path).exists()
            } | _given_files(run, stage.given)
            if run.work.done(label, part, inputs):
                logger.info("%-22s done before", label)
                continue
            run.work.begin(label, part, inputs)
            outputs = stage.run(run)
            if any(failure.passing for failure in run.failures.get(label, {}).values()):
                logger.warning("%-22s not done: the next run asks again for what has failed", label)
                run.work.suspend(label, outputs)
            else:
                run.work.complete(label, outputs)
        run.measured.setdefault(name, {})["seconds"] = round(time.perf_counter() - started, 3)
