"""How stages follow one another, and which settings each takes.

A stage is a function of a run and of settings. Each argument is a part of the config: its name is the part's, and its
type says what the stage reads of it. So the config of an experiment has the keys that its stages take, and the manifest
of a stage those that it takes itself.

A stage that has ended is not run again; one that was killed goes on from its journal or checkpoint.
"""

import dataclasses
import functools
import inspect
import logging
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from spare_jax.runs import settings
from spare_jax.runs.run import MeshSizes, Run

logger = logging.getLogger(__name__)

RUN: settings.Tree = {"seed": int, "task": str, "mesh": settings.tree_of(MeshSizes)}  # every stage is made from these


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage: its function, which returns the names of what it wrote, and what it is made from.

    `needs` are files or directories of the work directory that must be there, `reads` those that it reads where there
    are any; "{grpo[reward]}" in their names is the value of config.grpo.reward. A `derived` stage is quick and made
    anew in every run. A work directory has the stage once `per` value of some keys.
    """

    run: Callable[..., list[str]]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    derived: bool = False
    per: tuple[str, ...] = ()

    @property
    def tree(self) -> settings.Tree:
        """What may be set of the stage."""
        return functools.reduce(settings.merged, (_tree(*argument) for argument in _arguments(self.run)), RUN)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the config that the stage reads."""
        return settings.pruned(config, self.tree)

    def label(self, name: str, config: Mapping[str, Any]) -> str:
        """What the stage `name` is called in manifests and journals."""
        values = (functools.reduce(lambda part, word: part[word], key.split("."), config) for key in self.per)
        return "-".join((name, *map(str, values)))

    def files(self, of: Sequence[str], config: Mapping[str, Any]) -> list[str]:
        """`needs` or `reads` under this config."""
        return [path.format_map(config) for path in of]

    def arguments(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """What the stage takes, read from the config.

        Raises:
          ValueError: a value does not fit, or the config lacks what the stage takes.
        """
        given = {}
        for argument, hint in _arguments(self.run):
            if lacking := set(_tree(argument, hint)) - set(config):
                raise ValueError(
                    f"stage {name} takes config.{min(lacking)}, and this config has none: use one that has the stage"
                )
            is_group = _is_group(hint)
            given[argument] = settings.read(hint, config if is_group else config[argument], _key(argument, hint))
        return given


def _arguments(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and types of a stage's settings."""
    hints = typing.get_type_hints(function, include_extras=True)
    return [(name, hints[name]) for name in inspect.signature(function).parameters if name != "run"]


def _is_group(hint: Any) -> bool:
    """Whether the fields of a dataclass are parts of the config, and it is none itself."""
    return getattr(hint, "is_group", False)


def _key(argument: str, hint: Any) -> str:
    return "config" if _is_group(hint) else f"config.{argument}"


def _tree(argument: str, hint: Any) -> settings.Tree:
    return settings.tree_of(hint) if _is_group(hint) else {argument: settings.tree_of(hint)}


def _defaults(stage: Stage) -> dict[str, Any]:
    """What the stage's settings are where nobody says anything: those that have a default."""
    found = {}
    given = inspect.signature(stage.run).parameters
    for argument, hint in _arguments(stage.run):
        if (default := given[argument].default) is not inspect.Parameter.empty:
            found[argument] = default
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            plain = settings.listed(hint())
            found = settings.merged(found, plain if _is_group(hint) else {argument: plain})
    return found


def experiment(
    stages: Mapping[str, Stage], *, seed: int, task: str, mesh: MeshSizes | None = None, **parts: Any
) -> ml_collections.ConfigDict:
    """The config of an experiment: its stages, in their order, and all that they take.

    Args:
      parts: by their names; of each what no stage reads is left out, and what is not given is as its type has it.

    Raises:
      ValueError: a part that no stage takes, or one that has no default and is not given.
    """
    tree = merged_trees(stages.values())
    if unknown := set(parts) - set(tree):
        raise ValueError(f"no stage among {', '.join(stages)} takes {min(unknown)}")
    given = {name: settings.listed(of) for name, of in parts.items()}
    given |= {"seed": seed, "task": task, "mesh": settings.listed(mesh or MeshSizes())}
    defaults = functools.reduce(settings.merged, map(_defaults, stages.values()))
    values = settings.merged(defaults, settings.pruned(given, tree))
    if lacking := set(tree) - set(values):
        raise ValueError(f"{min(lacking)} has no default: give it")
    config = settings.config_dict(values, tree)
    config.stages = tuple(stages)
    return config


def merged_trees(stages: Iterable[Stage]) -> settings.Tree:
    """What may be set of the stages together."""
    return functools.reduce(settings.merged, (stage.tree for stage in stages))


def chosen(names: Sequence[str], stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """The stages of these names, in their order.

    Raises:
      ValueError: a stage that does not exist.
    """
    if unknown := set(names) - set(stages):
        raise ValueError(f"config.stages names {min(unknown)!r}: the stages are {', '.join(stages)}")
    return {name: stages[name] for name in names}


def execute(run: Run, stages: Mapping[str, Stage], config: Mapping[str, Any]) -> None:
    """Run the stages that have not ended yet, each under its manifest.

    A stage some of whose programs failed for a cause that may pass has not ended: the next run asks these again. What
    later stages make of it until then is made anew when the answers have come.

    Args:
      config: plain values, as `settings.listed` gives them.

    Raises:
      ValueError: a stage lacks its inputs or settings.
      StoreError: a stage has run in this directory with other settings or on other inputs.
    """
    arguments = {name: stage.arguments(name, config) for name, stage in stages.items()}
    for name, stage in stages.items():
        if not stage.derived:
            run.work.check(stage.label(name, config), stage.settings(config))
    for name, stage in stages.items():
        needs, reads = (stage.files(of, config) for of in (stage.needs, stage.reads))
        for needed in needs:
            if not (run.work.path / needed).exists():
                raise ValueError(f"stage {name} needs {run.work.path / needed}: run the stages before it first")
        started = time.perf_counter()
        if stage.derived:
            stage.run(run, **arguments[name])
        else:
            label, part = stage.label(name, config), stage.settings(config)
            inputs: dict[str, str | Path] = {
                path: path for path in (*needs, *reads) if (run.work.path / path).exists()
            } | _given_files(run, settings.named_files(part, stage.tree, "config"))
            if run.work.done(label, part, inputs):
                logger.info("%-22s done before", label)
                continue
            run.work.begin(label, part, inputs)
            outputs = stage.run(run, **arguments[name])
            if any(failure.passing for failure in run.failures.get(label, {}).values()):
                logger.warning("%-22s not done: the next run asks again for what has failed", label)
                run.work.suspend(label, outputs)
            else:
                run.work.complete(label, outputs)
        run.measured.setdefault(name, {})["seconds"] = round(time.perf_counter() - started, 3)


def _given_files(run: Run, named: Iterable[tuple[str, str]]) -> dict[str, Path]:
    """What the config names of files, and of directories of the work directory, by their keys. Other directories and
    hub ids are left out."""
    found, work = {}, run.work.path.resolve()
    for key, name in named:
        own, path = (work / name).resolve(), Path(name).resolve()
        if work in own.parents and own.exists():
            found[key] = own
        elif path.is_file():
            found[key] = path
    return found
