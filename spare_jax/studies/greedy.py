"""Columns of tables about greedy answers (`policies.figures`), over all seeds of a policy."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.statistics import bootstrap, paired_bootstrap, ratio_or_none
from spare_jax.studies.markdown import interval, rate, rate_within

Cells = Sequence[Mapping[str, Any]]  # of one kind of policy, one per seed
ACCURACIES = ("accuracy", "right and sound", "wrong process")
DIFFERENCES = ACCURACIES[:2]


def accuracies(cells: Cells, side: str) -> tuple[str, str, str]:
    """The columns ACCURACIES, on one of `policies.SIDES`."""
    right, sound = _all(cells, side, "right"), _all(cells, side, "sound")
    hits = sum(filter(None, right))
    wrong_process = ratio_or_none(hits - sum(filter(None, sound)), hits)
    return rate_within(bootstrap(right)), rate_within(bootstrap(sound)), rate(wrong_process)


def differences(ours: Cells, theirs: Cells, side: str) -> tuple[int, tuple[str, ...]]:
    """The number of seeds that both policies have, and the columns DIFFERENCES, ours minus theirs, over these; no
    columns if there are none."""
    shared = {cell["seed"] for cell in ours} & {cell["seed"] for cell in theirs}
    if not shared:
        return 0, ()
    ours, theirs = ([cell for cell in cells if cell["seed"] in shared] for cells in (ours, theirs))
    intervals = (paired_bootstrap(_all(ours, side, key), _all(theirs, side, key)) for key in ("right", "sound"))
    return len(shared), tuple(map(interval, intervals))


def _all(cells: Cells, side: str, key: str) -> list[int | None]:
    """A figure of every problem of every cell; None where it is missing."""
    return [value for cell in cells for value in cell[side][key]]
