"""Charts beside one another."""

from spare_jax.report.numbers import Numbers


def pair(*charts: tuple[str, str, str], beside: str = "", numbers: Numbers) -> str:
    """Charts, (svg, caption, metrics path), side by side where there is room, with the HTML `beside` before them; and
    why a chart without data is missing."""
    shown = f"<div>{beside}</div>" if beside else ""
    shown += "".join(f"<figure><figcaption>{caption}</figcaption>{svg}</figure>" for svg, caption, _ in charts if svg)
    for svg, _, path in charts:
        if not svg:
            numbers.dash(path)
    return (f'<div class="pair">{shown}</div>' if shown else "") + numbers.why_absent()
