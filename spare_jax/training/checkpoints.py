"""Checkpoints of a training run, by Orbax, written while training goes on.

`latest/` holds what a killed run needs to go on bit for bit, `best/` the parameters of the best dev loss. Files hold
plain dicts from a leaf's path to its array, never objects: a change of a class cannot make them unreadable. A checksum
lies beside every array, and one that does not match is an error.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from spare_jax.storage.jsonlines import StoreError, fingerprint


class Checkpoints:
    """The two checkpoint directories of one run; a context manager that waits for the writer at its end.

    `latest/` keeps the last `keep` checkpoints. The first save takes 2-3 seconds whatever its size, in which Orbax sets
    itself up.

    Every method raises OSError where the disk refuses a checkpoint, which may be an earlier one since they are written
    while training goes on, and StoreError where one lacks a part or has changed since it was written.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int = 1):
        self._path = pathlib.Path(directory).absolute()
        with self._writing():
            self._latest = _manager(self._path / "latest", keep)
            self._best = _manager(self._path / "best", 1)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        with self._writing(), contextlib.ExitStack() as closed:
            closed.callback(self._best.close)
            closed.callback(self._latest.close)

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Begin to write `state` (any tree of arrays) and `progress` (JSON values) after `step` steps as the latest."""
        if step in self._latest.all_steps():
            return
        by_path = _by_path(state)
        with self._writing():
            self._latest.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(by_path),
                    progress=ocp.args.JsonSave({"progress": progress, "sum": fingerprint(progress)}),
                    layout=ocp.args.JsonSave(_layout(by_path)),
                    sums=ocp.args.JsonSave(_sums(by_path)),
                ),
            )

    def drop(self, step: int) -> None:
        """Remove the latest checkpoint if it is that of `step` steps: the one before is the latest again."""
        with self._writing():
            self._latest.wait_until_finished()
            if step in self._latest.all_steps():
                self._latest.delete(step)

    def save_best(self, step: int, params: Any) -> None:
        """Begin to write the parameters after `step` steps as the best, unless they are there already, as in a run that
        is resumed."""
        if step in self._best.all_steps():
            return
        by_path = _by_path(params)
        with self._writing():
            self._best.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(by_path), sums=ocp.args.JsonSave(_sums(by_path))),
                force=True,
            )

    def progress(self) -> dict[str, Any] | None:
        """The `progress` of the latest checkpoint, None where there is none."""
        step = self._latest.latest_step()
        if step is None:
            return None
        with self._reading(self._latest, step):
            saved = self._latest.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
            if saved["sum"] != fingerprint(saved["progress"]):
                raise ValueError("its progress is not as it was written")
            return saved["progress"]

    def restore(self, like: Any) -> Any:
        """The latest state, as a tree of arrays like those of `like` or its jax.ShapeDtypeStructs: of their shapes,
        dtypes and shardings.

        Raises:
          ValueError: the checkpoint holds other arrays than `like`; names the first.
        """
        with self._writing():
            self._latest.wait_until_finished()
        step = self._latest.latest_step()
        assert step is not None, "nothing to restore: ask progress() first"
        with self._reading(self._latest, step):
            saved = dict(self._latest.restore(step, args=ocp.args.Composite(layout=ocp.args.JsonRestore()))["layout"])
        wanted = _layout(_by_path(like))
        for name in wanted | saved:
            if wanted.get(name) != saved.get(name):
                raise ValueError(
                    f"checkpoint {self._latest.directory}/{step} is another model's: {name} is {saved.get(name)} "
                    f"there and {wanted.get(name)} in this run; remove {self._latest.directory.parent} to train anew"
                )
        with self._reading(self._latest, step):
            return _restore(self._latest, step, like)

    def restore_best(self, step: int, like: Any) -> Any:
        """The best parameters, saved at `step`, as a tree of arrays like `like`."""
        with self._writing():
            self._best.wait_until_finished()
        with self._reading(self._best, step):
            return _restore(self._best, step, like)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn TensorStore's ValueError over a disk that refuses into the operating system's OSError."""
        try:
            yield
        except ValueError as error:
            if code := re.search(r"os_error_code='(\d+)'", str(error)):
                number = int(code[1])
                raise OSError(number, os.strerror(number), str(self._path)) from None
            raise

    @contextlib.contextmanager
    def _reading(self, manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
        """Turn whatever Orbax and TensorStore raise while reading (it may be anything) into a StoreError with the
        remedy."""
        try:
            yield
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:120]
            latest = manager is self._latest
            remedy = (
                f"delete {manager.directory / str(step)} to go on from the checkpoint before it, or from the start"
                if latest
                else f"delete {self._path} to train anew"
            )
            raise StoreError(
                f"checkpoint {manager.directory / str(step)} cannot be read ({reason}): {remedy}"
            ) from None


def _manager(path: pathlib.Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True, create=True
    )
    return ocp.CheckpointManager(path, options=options)


def _by_path(tree: Any) -> dict[str, Any]:
    """The tree's leaves under their paths: "blocks.query_proj" and the like."""
    paths = jax.tree.leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
    assert len(leaves) == len(paths), "two leaves of a tree share a path"
    return leaves


def _layout(by_path: dict[str, Any]) -> dict[str, list[Any]]:
    """Shape and dtype of each leaf, as JSON gives them back."""
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in by_path.items()}


@jax.jit
def _sums_of(by_path: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A checksum of each array: its bits added up as whole numbers, which gives the same in any order."""

    def total(leaf: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)

    return jax.tree.map(total, by_path)


def _sums(by_path: dict[str, Any]) -> dict[str, int]:
    """The checksums of arrays, as JSON gives them back."""
    return {name: int(value) for name, value in jax.device_get(_sums_of(by_path)).items()}


def _restore(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    targets = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    by_path = _by_path(targets)
    saved = manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(by_path), sums=ocp.args.JsonRestore())
    )
    state, sums = saved["state"], saved["sums"]
    for name, value in _sums(state).items():
        if sums[name] != value:
            raise ValueError(f"{name} is not as it was written")
    return jax.tree.unflatten(jax.tree.structure(targets), [state[name] for name in by_path])
