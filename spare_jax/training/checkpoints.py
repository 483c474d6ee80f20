"""Checkpoints of a training run, by Orbax, written while training goes on.

`latest/` holds what a killed run needs to go on bit for bit, `best/` the parameters of the best dev loss. Files hold
plain dicts from a leaf's path to its array, never objects: a change of a class cannot make them unreadable.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The two checkpoint directories of one run; a context manager that waits for the writer at its end.

    Of the latest the last `keep` are kept. Orbax sets itself up in the first save, which takes 2-3 seconds whatever its
    size.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int = 1):
        path = pathlib.Path(directory).absolute()
        self._latest = _manager(path / "latest", keep)
        self._best = _manager(path / "best", 1)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._latest.close()
        self._best.close()

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Begin to save `state` (any tree of arrays) and `progress` (JSON values) as the latest, after `step` steps."""
        if step in self._latest.all_steps():
            return
        by_path = _by_path(state)
        self._latest.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(by_path),
                progress=ocp.args.JsonSave(progress),
                layout=ocp.args.JsonSave(_layout(by_path)),
            ),
        )

    def drop(self, step: int) -> None:
        """Remove what was saved as the latest after `step` steps, if it was: the one before is the latest again."""
        self._latest.wait_until_finished()
        if step in self._latest.all_steps():
            self._latest.delete(step)

    def save_best(self, step: int, params: Any) -> None:
        """Begin to save the parameters after `step` steps as the best. A resumed run meets its own again: kept."""
        if step not in self._best.all_steps():
            self._best.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(_by_path(params))), force=True)

    def progress(self) -> dict[str, Any] | None:
        """What `save` was last given as `progress`, None where there is no checkpoint."""
        step = self._latest.latest_step()
        if step is None:
            return None
        return self._latest.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]

    def restore(self, like: Any, shardings: Any) -> Any:
        """The latest state, as a tree like `like` (shapes and dtypes suffice), laid out by `shardings`.

        Raises:
          ValueError: the checkpoint holds other arrays than `like`; names the first.
        """
        self._latest.wait_until_finished()
        step = self._latest.latest_step()
        assert step is not None, "nothing to restore: ask progress() first"
        found = self._latest.restore(step, args=ocp.args.Composite(layout=ocp.args.JsonRestore()))["layout"]
        wanted = _layout(_by_path(like))
        for name in wanted | found:
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"checkpoint {self._latest.directory}/{step} is another model's: {name} is {found.get(name)} "
                    f"there and {wanted.get(name)} in this run; remove {self._latest.directory.parent} to train anew"
                )
        return _restore(self._latest, step, like, shardings)

    def restore_best(self, step: int, like: Any, shardings: Any) -> Any:
        """The best parameters, which `save_best` was given at `step`."""
        self._best.wait_until_finished()
        return _restore(self._best, step, like, shardings)


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


def _restore(manager: ocp.CheckpointManager, step: int, like: Any, shardings: Any) -> Any:
    targets = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)
    by_path = _by_path(targets)
    found = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(by_path)))["state"]
    return jax.tree.unflatten(jax.tree.structure(targets), [found[name] for name in by_path])
