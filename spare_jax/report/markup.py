"""Text and numbers as HTML. All text from a model or a file goes through `text`."""

import html
import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

_LONGEST = 4000  # characters of one text; a model that never stopped must not fill the page
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_THIN_SPACE = "\u202f"
_MINUS = "\u2212"
DASH = "\u2013"  # in the place of a missing figure


def text(value: Any) -> str:
    """Any value as escaped HTML text, safe inside elements and quoted attributes, and always encodable as UTF-8."""
    plain = str(value)
    if len(plain) > _LONGEST:
        plain = plain[:_LONGEST] + " \u2026"
    plain = plain.encode("utf-8", "replace").decode("utf-8")  # lone surrogates, which JSON may carry
    return html.escape(_CONTROL.sub("\ufffd", plain), quote=True)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(rate: float) -> str:
    """A fraction as "62.3 %"."""
    return f"{100 * rate:.1f}{_THIN_SPACE}%".replace("-", _MINUS)


def points(difference: float) -> str:
    """A difference of two fractions, in percentage points with its sign: "+6.1"."""
    rounded = f"{100 * difference:+.1f}"
    return "0.0" if rounded in ("+0.0", "-0.0") else rounded.replace("-", _MINUS)


def decimal(value: float, digits: int = 2) -> str:
    """A plain number with a fixed count of digits."""
    return f"{value:.{digits}f}".replace("-", _MINUS)


def count(value: float) -> str:
    """A number rounded to a whole one, with spaces between thousands."""
    return f"{round(value):,}".replace(",", _THIN_SPACE).replace("-", _MINUS)


def seconds(value: float) -> str:
    """A duration: "8.4 s" below a minute, "3 min 05 s" from there on."""
    if round(value, 1) < 60:
        return f"{value:.1f}{_THIN_SPACE}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{_THIN_SPACE}h {minutes:02d}{_THIN_SPACE}min"
    return f"{minutes}{_THIN_SPACE}min {rest:02d}{_THIN_SPACE}s"


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], caption: str) -> str:
    """A table that scrolls where it does not fit: rows of (class, cells), cells being HTML."""
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{cells[0]}</th>{"".join(f"<td>{c}</td>" for c in cells[1:])}</tr>'
        for kind, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )
