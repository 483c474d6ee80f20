"""The figures of metrics.json by path, and the reasons of those that are missing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from spare_jax.report.markup import DASH, count, is_number, percent, text


@dataclasses.dataclass
class Numbers:
    """Metrics by dotted path; remembers which were missing until the section that asked explains them."""

    metrics: Mapping[str, Any]
    absent: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def get(self, path: str) -> Any:
        """The value at the path, None where there is none."""
        value: Any = self.metrics
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def number(self, path: str) -> float | None:
        """The figure at the path, None where it is null, missing or no number."""
        value = self.get(path)
        return value if is_number(value) else None

    def show(self, path: str, write: Callable[[float], str] = percent) -> str:
        """The figure as HTML, or a dash."""
        value = self.number(path)
        return self.dash(path) if value is None else text(write(value))

    def quoted(self, path: str) -> str:
        """A headline figure, in per cent; a dash where metrics.json refuses it (evaluation/missing.py)."""
        return self.dash(f"headline.{path}") if self.is_refused(path) else self.show(path)

    def is_refused(self, path: str) -> bool:
        """Whether metrics.json refuses the figure as a headline, since too many rows are missing from it."""
        reasons = self.metrics.get("reasons")
        return isinstance(reasons, Mapping) and f"headline.{path}" in reasons

    def missing(self, path: str) -> str:
        """How many rows are missing from the figures at the path and why, " 4 missing: judge failed 3, undecided 1";
        "" where none are."""
        tallied = self.get(f"{path}.missing")
        counted = (
            {why: n for why, n in tallied.items() if is_number(n) and n > 0} if isinstance(tallied, Mapping) else {}
        )
        if not counted:
            return ""
        words = ", ".join(f"{text(why)} {count(n)}" for why, n in counted.items())
        return f" <small>{count(sum(counted.values()))} missing: {words}</small>"

    def range_of(self, path: str) -> str:
        """The interval at the path ("low", "high") in per cent, " [52.1, 70.8]"; "" where there is none."""
        low, high = self.number(f"{path}.low"), self.number(f"{path}.high")
        return "" if low is None or high is None else f" <small>[{100 * low:.1f}, {100 * high:.1f}]</small>"

    def dash(self, path: str) -> str:
        """A dash in the place of the figure at the path, which is remembered as missing."""
        self.absent.append((path, self._reason(path)))
        return f'<span class="absent" title="{text(self._reason(path))}">{DASH}</span>'

    def has_any(self, path: str) -> bool:
        """Whether there is any figure at the path or below it; if not, the path is remembered as missing."""
        holds = _holds_number(self.get(path))
        if not holds:
            self.absent.append((path, self._reason(path)))
        return holds

    def why_absent(self) -> str:
        """A line that explains the figures that were missing since the last call."""
        by_reason: dict[str, list[str]] = {}
        for path, reason in dict.fromkeys(self.absent):
            by_reason.setdefault(reason, []).append(path)
        self.absent.clear()
        lines = []
        for reason, paths in by_reason.items():
            names = ", ".join(f"<code>{text(path)}</code>" for path in paths[:6])
            lines.append(f"{DASH} {text(reason)}: {names}{f' and {len(paths) - 6} more' if len(paths) > 6 else ''}.")
        return f'<p class="why-absent">{"<br>".join(lines)}</p>' if lines else ""

    def _reason(self, path: str) -> str:
        """Why a figure is missing: the reason that metrics.json gives for its path or the nearest one above it, else
        whether it is null or absent."""
        keys = path.split(".")
        reasons = self.metrics.get("reasons")
        if isinstance(reasons, Mapping):
            for depth in range(len(keys), 0, -1):
                if (prefix := ".".join(keys[:depth])) in reasons:
                    return str(reasons[prefix])
        parent = self.get(".".join(keys[:-1])) if len(keys) > 1 else self.metrics
        if isinstance(parent, Mapping) and keys[-1] in parent:
            return "undefined on this data (what it divides by is empty)"
        return "not measured in this run"


def _holds_number(value: Any) -> bool:
    """Is `value` a number, or does it hold one at any depth?"""
    if isinstance(value, Mapping):
        return any(_holds_number(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_number(part) for part in value)
    return is_number(value)
