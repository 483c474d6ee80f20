"""The report's figures: line charts as inline SVG, bars and intervals as HTML, all without scripts.

Colours and type sizes are in style.py, under the class names used here. The numbers of every figure are in a table too:
within it (bars, intervals) or folded below it (charts).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from spare_jax.report.markup import DASH, count, decimal, is_number, percent, points, text

# User units of the charts' view box; small, so that type stays legible where the chart is 320 pixels wide.
_WIDTH, _HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 92, 18, 42
_LABEL_GAP = 14


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart: `kind` is its class in style.py, `points` are (x, y), y a fraction; either may be None."""

    label: str
    kind: str
    points: tuple[tuple[float | None, float | None], ...]

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if is_number(x) and is_number(y)]


@dataclasses.dataclass(frozen=True)
class Bar:
    """One row of a bar table; `value` is a fraction or None, `shown` the HTML beside the bar."""

    label: str
    kind: str
    value: float | None
    shown: str


@dataclasses.dataclass(frozen=True)
class Interval:
    """A difference of two fractions with its interval; `shown` is the HTML beside it."""

    label: str
    mean: float | None
    low: float | None
    high: float | None
    shown: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_mark: tuple[float, str] | None = None,
    y_mark: tuple[float, str] | None = None,
    dots: bool = True,
) -> str:
    """Lines over a common x axis, each labelled at its right end; "" where no line has a point.

    Args:
      lines: drawn in this order, later ones on top; y is a fraction, shown in per cent.
      title: a description of the chart for screen readers.
      x_label, y_label: the axes' names.
      x_range, y_range: the axes' extent; fitted to the data where None.
      x_mark, y_mark: a vertical and a horizontal rule, (position, label).
      dots: mark every point of the lines.
    """
    drawn = [line for line in lines if line.known]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.known]
    ys = [y for line in drawn for _, y in line.known] + ([y_mark[0]] if y_mark else [])
    x_low, x_high = x_range or (min(xs), max(xs))
    y_ticks = _ticks(*(y_range or (min(ys), max(ys))), at_most=5)
    y_low, y_high = y_range or (min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)))
    x_of = _scale(x_low, x_high, _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(y_low, y_high, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in y_ticks:
        if y_low - 1e-9 <= tick <= y_high + 1e-9:
            y = y_of(tick)
            parts.append(_rule("grid", _LEFT, y, _WIDTH - _RIGHT, y))
            parts.append(_label("tick end", _LEFT - 6, y + 4, f"{100 * tick:.0f}"))
    for tick in _ticks(x_low, x_high, at_most=6):
        if x_low - 1e-9 <= tick <= x_high + 1e-9:
            parts.append(_label("tick middle", x_of(tick), _HEIGHT - _BOTTOM + 17, _axis_number(tick)))
    parts.append(_rule("axis", _LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM))
    parts.append(_label("axis-name middle", (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label))
    ends: list[tuple[float, float, str, str]] = []
    if x_mark:
        x = x_of(x_mark[0])
        parts.append(_rule("mark", x, _TOP, x, _HEIGHT - _BOTTOM))
        parts.append(_label("mark-name middle", x, _TOP - 6, x_mark[1]))
    if y_mark:
        y = y_of(y_mark[0])
        parts.append(_rule("mark", _LEFT, y, _WIDTH - _RIGHT, y))
        ends.append((y, _WIDTH - _RIGHT, "mark-name", y_mark[1]))
    for line in drawn:
        placed = [(x_of(x), y_of(y)) for x, y in line.known]
        parts.append(f'<polyline class="line {line.kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}"/>')
        for (x, y), (px, py) in zip(line.known, placed, strict=True) if dots or len(placed) == 1 else ():
            tip = text(f"{line.label}, {_axis_number(x)}: {percent(y)}")
            parts.append(
                f'<circle class="dot {line.kind}" cx="{px:.1f}" cy="{py:.1f}" r="2.6"><title>{tip}</title></circle>'
            )
        ends.append((placed[-1][1], placed[-1][0], f"line-name {line.kind}", line.label))
    ends.sort()
    for (end_y, end_x, kind, label), y in zip(ends, _apart([y for y, *_ in ends]), strict=True):
        if _WIDTH - _RIGHT - end_x > 1 or abs(y - end_y) > 3:
            parts.append(_rule("leader", end_x + 4, end_y, _WIDTH - _RIGHT + 9, y))
        parts.append(_label(f"{kind} start", _WIDTH - _RIGHT + 11, y + 4, label))
    svg = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg>"
    )
    return f'<p class="y-name">{text(y_label)}</p>{svg}{_chart_table(drawn, x_label)}'


def reliability_chart(bins: Sequence[tuple[float, float, int]], *, title: str) -> str:
    """Observed share of right steps over the score, one disc per bin with its area by the number of steps.

    Args:
      bins: (mean score, share of right steps, number of steps).
      title: a description of the chart for screen readers.
    """
    if not bins:
        return ""
    x_of = _scale(0, 1, _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(0, 1, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_rule("grid", x_of(0), y_of(tick), x_of(1), y_of(tick)))
        parts.append(_label("tick end", _LEFT - 6, y_of(tick) + 4, f"{100 * tick:.0f}"))
        parts.append(_label("tick middle", x_of(tick), _HEIGHT - _BOTTOM + 17, f"{tick:g}"))
    parts.append(_rule("mark", x_of(0), y_of(0), x_of(1), y_of(1)))
    parts.append(_label("axis-name middle", (x_of(0) + x_of(1)) / 2, _HEIGHT - 6, "score"))
    largest = max(n for _, _, n in bins)
    rows = []
    for score, right, n in bins:
        radius = 2.5 + 9.5 * math.sqrt(n / largest)
        tip = text(f"score {score:.2f}: {percent(right)} right, {count(n)} steps")
        parts.append(
            f'<circle class="disc" cx="{x_of(score):.1f}" cy="{y_of(right):.1f}" r="{radius:.1f}">'
            f"<title>{tip}</title></circle>"
        )
        rows.append((decimal(score), percent(right), count(n)))
    svg = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg>"
    )
    return f'<p class="y-name">steps that are right, %</p>{svg}{_folded(("score", "right", "steps"), rows)}'


def bar_table(bars: Sequence[Bar], caption: str) -> str:
    """Fractions as horizontal bars from zero, each row with its name and number."""
    rows = "".join(
        f'<tr class="{bar.kind}"><th scope="row">{text(bar.label)}</th>'
        f'<td class="track" aria-hidden="true"><i style="width:{100 * min(max(bar.value or 0, 0), 1):.2f}%"></i></td>'
        f'<td class="num">{bar.shown}</td></tr>'
        for bar in bars
    )
    return f'<table class="bars"><caption>{text(caption)}</caption><tbody>{rows}</tbody></table>'


def interval_table(intervals: Sequence[Interval], caption: str) -> str:
    """Differences as dots with their intervals around a line at zero, on one scale."""
    ends = [v for i in intervals for v in (i.mean, i.low, i.high) if v is not None]
    low, high = min([-0.02, *ends]), max([0.02, *ends])
    margin = 0.04 * (high - low)
    place = _scale(low - margin, high + margin, 0, 100)
    rows = []
    for interval in intervals:
        marks = f'<i class="zero" style="left:{place(0):.2f}%"></i>'
        if interval.low is not None and interval.high is not None:
            left, right = place(interval.low), place(interval.high)
            marks += f'<i class="span" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
        if interval.mean is not None:
            marks += f'<i class="point" style="left:{place(interval.mean):.2f}%"></i>'
        rows.append(
            f'<tr><th scope="row">{text(interval.label)}</th>'
            f'<td class="track" aria-hidden="true"><div>{marks}</div></td><td class="num">{interval.shown}</td></tr>'
        )
    return f'<table class="intervals"><caption>{text(caption)}</caption><tbody>{"".join(rows)}</tbody></table>'


def interval_text(mean: float, low: float | None, high: float | None, p: float | None = None) -> str:
    """Mean and interval in percentage points, as HTML: "+6.1 [3.0, 9.2] p 0.012"."""
    bounds = "" if low is None or high is None else f" <small>[{points(low)}, {points(high)}]</small>"
    tested = "" if p is None else f" <small>p {'&lt; 0.001' if p < 0.001 else decimal(p, 3)}</small>"
    return f"{points(mean)}{bounds}{tested}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float, at_most: int) -> list[float]:
    """Round numbers at equal distances, the first not above `low` and the last not below `high`."""
    if high - low < 1e-12:
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    magnitude = 10.0 ** math.floor(math.log10((high - low) / at_most))
    step = next(s for m in (1, 2, 5, 10, 20) if math.ceil(high / (s := m * magnitude)) - math.floor(low / s) <= at_most)
    return [round(i * step, 10) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Sorted heights of labels, moved apart so that none overlaps the next or lies below the plot."""
    placed = list(heights)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + _LABEL_GAP)
    lowest = float(_HEIGHT - _BOTTOM)
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], lowest)
        lowest = placed[i] - _LABEL_GAP
    return placed


def _axis_number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _label(kind: str, x: float, y: float, label: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text(label)}</text>'


def _chart_table(lines: Sequence[Line], x_label: str) -> str:
    """The numbers of a chart as a table: a row per x where all lines have the same x, else a row per point."""
    if all([x for x, _ in line.points] == [x for x, _ in lines[0].points] for line in lines):
        rows = []
        for i, (x, _) in enumerate(lines[0].points):
            if not is_number(x):
                continue
            values = [line.points[i][1] for line in lines]
            rows.append((_axis_number(x), *(DASH if v is None or not is_number(v) else percent(v) for v in values)))
        return _folded((x_label, *(line.label for line in lines)), rows)
    rows = [(line.label, _axis_number(round(x)), percent(y)) for line in lines for x, y in line.known]
    return _folded(("", x_label, "value"), rows)


def _folded(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        '<details class="data"><summary>The numbers</summary><div class="scroll" tabindex="0">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
