"""The section of curves: accuracy against the number of samples, and against the tokens that they took."""

from collections.abc import Mapping

from spare_jax.report.figures import Line, line_chart
from spare_jax.report.layout import pair
from spare_jax.report.numbers import Numbers
from spare_jax.selection.aggregate import AGGREGATIONS

_RULES = {"weighted": "weighted vote", "best_of_n": "best of N"}
_X = {"n": "samples per problem", "tokens": "tokens per problem"}


def scaling(numbers: Numbers, rankers: Mapping[str, str]) -> tuple[str, str]:
    """The section's introduction, and the section. `rankers`: name -> label of the rankers that get a line."""
    aside = (
        "Subsets of the samples, without replacement, averaged. pass@N is the bound of every choice among N samples. "
        "Reward models read every sample again: over tokens, what the policy wrote and what the reward model read are "
        "counted, so a method must pay for itself."
    )
    common = [("pass@N", "oracle", "pass_at_n", "majority"), ("majority", "majority", "majority.accuracy", "majority")]
    by_ranker = [(label, key, f"{key}.weighted.last", key) for key, label in reversed(list(rankers.items()))]
    shown = pair(
        *(
            _chart(numbers, x, [common[0], *by_ranker[:-1], common[1], *by_ranker[-1:]], "weighted votes by ranker")
            for x in _X
        ),
        numbers=numbers,
    )
    for rule, words in _RULES.items():
        of_prm = [(name, f"prm how-{name}", f"prm.{rule}.{name}", "prm") for name in reversed(AGGREGATIONS)]
        shown += pair(*(_chart(numbers, x, [*common, *of_prm], f"the PRM's {words}") for x in _X), numbers=numbers)
    return aside, shown


def _chart(numbers: Numbers, x: str, rows: list[tuple[str, str, str, str]], subject: str) -> tuple[str, str, str]:
    """(svg, caption, path of metrics.json); rows are (label, class, accuracies, whose tokens), paths in `curves`."""
    lines = []
    for label, kind, path, spender in rows:
        xs, accuracy = (
            numbers.get("curves.n" if x == "n" else f"curves.{spender}.tokens"),
            numbers.get(f"curves.{path}"),
        )
        if isinstance(xs, list) and isinstance(accuracy, list):
            lines.append(Line(label, kind, tuple(zip(xs, accuracy, strict=False))))
    over = "samples" if x == "n" else "tokens"
    caption = f"{subject[0].upper()}{subject[1:]}, over {over}"
    return line_chart(lines, title=caption, x_label=_X[x], y_label="answered right, %"), caption, "curves"
