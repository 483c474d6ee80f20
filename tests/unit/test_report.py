"""The page: inert whatever models wrote, complete whatever is missing, and alone in the world."""

import contextlib
import copy
import html.parser
import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spare_jax.evaluation.accuracy import Pool, selection_metrics
from spare_jax.evaluation.curves import accuracy_curves
from spare_jax.evaluation.process_errors import first_error
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, LabelledSolution, Problem, Solution, StepJudgement
from spare_jax.report import process_bench
from spare_jax.report.figures import Line, line_chart
from spare_jax.report.markup import count, percent, points, seconds, text
from spare_jax.report.page import render

_VOID = {"meta", "br"}
_INERT = (
    _VOID
    | {"html", "head", "title", "style", "body", "header", "main", "footer", "section", "nav", "h1", "h2", "h3", "p"}
    | {"ul", "ol", "li", "dl", "dt", "dd", "div", "span", "b", "i", "small", "code", "a", "details", "summary"}
    | {"figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    | {"svg", "line", "polyline", "circle", "text"}
)
_HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></title><!--&lt;\x00\x1b[0m\ud800\u202e"


class _Elements(html.parser.HTMLParser):
    """Collects elements and attributes, and checks that what opens closes in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> while {self.open[-1:]} is open"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError("the page writes no comments")


def _check_inert(page: str) -> _Elements:
    elements = _Elements(page)
    assert elements.tags <= _INERT, elements.tags - _INERT
    for name, value in elements.attributes:
        assert not name.startswith("on"), name
        assert name not in ("src", "srcset", "action", "formaction", "xlink:href"), name
        assert name != "href" or re.fullmatch("#[a-z-]+", value), value
        assert name != "style" or re.fullmatch(r"((left|width):-?[0-9.]+%;?)+", value), value
    assert len(elements.ids) == len(set(elements.ids))
    page.encode("utf-8")
    return elements


def _metrics() -> dict[str, Any]:
    """Plausible metrics, made by the functions that make the real ones."""
    pools, scores = [], []
    for i in range(24):
        right = [(i * 7 + j * 5) % 4 < 2 for j in range(4)]
        pools.append(
            Pool(f"p{i}", tuple("1" if r else str(2 + j) for j, r in enumerate(right)), tuple(right), (9,) * 4)
        )
        scores.append([[0.6 + 0.01 * j, 0.8 if r else 0.3 + 0.05 * (i % 7)] for j, r in enumerate(right)])
    flat = [steps for candidates in scores for steps in candidates]
    rights = [r for pool in pools for r in pool.outcomes]
    rankers: dict[str, Any] = dict.fromkeys(
        ("prm", "orm", "likelihood", "prm_at_init", "position_only", "length_only"), scores
    )
    judge = dict.fromkeys(("step_accuracy", "error_precision", "error_recall", "kappa"), 0.9)
    judge |= {"parse_failure_rate": 0.01, "missed_step_rate": 0.0, "tokens_per_solution": 1234.5}
    judge |= {"explanation_agreement": 0.987, "explanations": 300, "reference_right": 0.995, "reference_steps": 90}
    judge["wrong_reference_drop"] = 0.3
    judge["right_answer_wrong_process"] = {"n": 4, "share": 0.1, "found": 0.5, "exact": 0.25}
    part = Part(
        [pool.problem_id for pool in pools for _ in pool.outcomes],
        [[True, r] for r in rights],
        [[8, 5 + i % 9] for i, _ in enumerate(rights)],
        [r or i % 9 == 0 for i, r in enumerate(rights)],
    )
    threshold, chosen_on = choose_on(part, "dev", flat)
    prm = {"threshold": threshold, "threshold_chosen_on": chosen_on}
    prm |= measure([first_error(steps, threshold) for steps in flat], part, baseline_guesses(part, part), 0)
    prm |= measure_scores(flat, part)
    return {
        "seed": 0,
        "n_problems": 24,
        "n_samples": 4,
        "policy": {"pass_at_1": 0.5, "out_of_distribution": {"pass_at_1": 0.25}},
        "judges": {
            "spare": judge,
            "spare_out_of_distribution": judge,
            "spare_no_reference": judge,
            "spare_wrong_reference": judge | {"step_accuracy": 0.6},
        },
        "selection": selection_metrics(pools, rankers) | {"out_of_distribution": selection_metrics(pools, rankers)},
        "curves": accuracy_curves(pools, rankers, {"prm": [[12] * 4] * 24}),
        "prm": prm | {"out_of_distribution": prm},
    }


def _example(words: str = "4 * 12 = 48"):
    step = {
        "text": words,
        "truth": False,
        "label": True,
        "score": 0.25,
        "explanation": words,
        "context": [1, 2],
        "steps": [1],
        "reference": [words],
        "errors": [words],
    }
    return {
        "question": words,
        "context": [words],
        "reference": [words, words],
        "answer": words,
        "gold_answer": words,
        "outcome": False,
        "score": 0.5,
        "steps": [step],
    }


def _meta(words: str = "tiny"):
    return {
        "task": words,
        "generated": True,
        "device": words,
        "models": {"generator": words, "judge": words, "prm": words, words: words},
        "counts": {words: 12345},
        "runs": [
            {"stage": words, "seconds": 61.0, "prompt_tokens": 1000, "generated_tokens": 10},
            {"stage": words, "seconds": 5, "generated_tokens": 1},
        ],
    }


def _paths(value, prefix=()):
    """The path of every figure in nested metrics."""
    if isinstance(value, dict):
        return [path for key, part in value.items() for path in _paths(part, (*prefix, key))]
    if isinstance(value, list):
        return [path for i, part in enumerate(value) for path in _paths(part, (*prefix, i))]
    return [prefix]


def test_hostile_words_are_shown_and_do_nothing():
    metrics = _metrics()
    metrics["reasons"] = {"prm.at_half.f1": _HOSTILE}
    metrics["prm"]["at_half"]["f1"] = None
    page = render(metrics, [_example(_HOSTILE)], _meta(_HOSTILE))
    elements = _check_inert(page)
    shown = "".join(elements.words)
    assert shown.count("<script>alert(1)</script>\"'><img src=x onerror=alert(2)>") >= 20
    assert "\x00" not in page
    assert "\x1b" not in page


@given(st.text(), st.text(alphabet="<>\"'&/=! -\\;abc"))
@settings(max_examples=30, deadline=None)
def test_any_words_leave_the_page_whole(words, markup):
    _check_inert(render(_metrics(), [_example(words + markup)], _meta(markup + words)))


@given(st.text(max_size=200))
@settings(deadline=None)
def test_text_gives_back_every_printable_character(words):
    back = html.unescape(text(words))
    assert [b for b, w in zip(back, words, strict=True) if b != w and b not in "\ufffd?"] == []
    assert all(w == b or not w.isprintable() for b, w in zip(back, words, strict=True))


def test_endless_text_is_cut():
    assert len(text("x" * 100_000)) < 5000


def test_the_page_needs_nothing_from_outside():
    page = render(_metrics(), [_example()], _meta())
    _check_inert(page)
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|<iframe|<img", page.replace("</", "<"))
    assert "default-src 'none'" in page
    assert len(page) < 200_000


def test_every_section_and_figure_is_there():
    page = render(_metrics(), [_example(), _example()], _meta())
    elements = _check_inert(page)
    sections = ["selection", "scaling", "judge", "first-error", "calibration", "shift", "costs", "steps", "notes"]
    assert [i for i in elements.ids if not i.startswith("h-")] == sections
    assert page.count("<svg") == 8  # three pairs of curves, the sweep, calibration
    assert page.count('<details class="solution"') == 2
    assert "not measured" not in page
    assert "98.7\u202f%" in page and "99.5\u202f%" in page
    assert "undefined" not in page
    shown = "".join(elements.words)
    assert "on the same solutions changes by \u221230.0 points: it judges by the reference" in shown
    assert "judge and truth differ" in shown
    assert "a setting of the experiment, not a finding" in shown
    assert "1 min 06 s" in shown.replace("\u202f", " ")  # both runs of the stage added up


def test_the_page_of_process_bench_is_inert_and_says_where_it_chose():
    problem, steps = Problem("p", _HOSTILE), (_HOSTILE, "b")
    solution = Solution("p/0", "p", steps, _HOSTILE, "stop")
    human = LabelledSolution(problem, solution, Judgement("p/0", "human", (StepJudgement(True), StepJudgement(False))))
    said = Judgement("p/0", "x", (StepJudgement(score=0.25, explanation=_HOSTILE), StepJudgement()))
    measured = {key: value for key, value in _METRICS["prm"].items() if key != "out_of_distribution"}
    metrics = {
        "threshold": 0.375,
        "threshold_chosen_on": {"part": _HOSTILE, "n": 2, "f1": 0.5},
        "test": measured,
        "dev": measured,
    }
    page = process_bench.render(metrics, _HOSTILE, [human], [said], [(False, None)], _HOSTILE)
    shown = "".join(_check_inert(page).words)
    assert "at 0.375, chosen on <script>" in shown and page.count("<svg") == 2
    assert "step length alone" in shown and "Right answer, wrong process" in shown
    # A row that was not judged says so, and a refused headline is a dash with its reason.
    refused = metrics | {"reasons": {"headline.test.judge.f1": _HOSTILE}}
    failed = Judgement("p/0", "x", (StepJudgement(),) * 2, parsed=False, failure=_HOSTILE)
    page = process_bench.render(refused, "x", [human], [failed], [(None, None)], "x")
    assert "not judged: <script>" in "".join(_check_inert(page).words)
    assert "First\u2011error F1 <span" in page and "First\u2011error F1 <span" not in process_bench.render(
        metrics, "x", [human], [said], [(False, None)], "x"
    )
    whole = Judgement("p/0", "outcome", outcome=True)  # a judge of whole answers says nothing of steps
    _check_inert(process_bench.render({}, "outcome", [human], [whole], [()], "x"))


def test_what_is_missing_stands_beside_the_figures_and_headlines_are_refused():
    metrics = _metrics()
    assert "missing:" not in render(metrics, [], {})
    absent = {_HOSTILE: 3, "undecided": 1200, "none": 0, "odd": "4"}
    for path in ("selection.intervals.prm", "judges.spare", "prm.judge", "prm.right_answer_wrong_process"):
        group = metrics
        for key in path.split("."):
            group = group[key]
        group["missing"] = absent
    metrics["selection"]["out_of_distribution"]["intervals"]["prm"]["missing"] = {"no solution": 7}
    page = render(metrics, [], {})
    shown = "".join(_check_inert(page).words).replace("\u202f", " ")
    (bar,) = re.findall(r'<tr class="prm"><th scope="row">weighted by PRM</th>.*?</tr>', page)
    assert "203 missing" in bar
    assert shown.count("1 203 missing: <script>") >= 4 and shown.count("undecided 1 200") >= 4
    assert "none 0" not in shown and "odd" not in shown
    assert "Out of distribution, weighted by PRM: 7 missing: no solution 7." in shown
    value = percent(metrics["selection"]["prm"]["weighted"]["last"])
    quoted = '<dd class="value">' + value
    before = render(metrics, [], {}).count(quoted)
    why = "no headline: 9 of 20 are missing"
    metrics["reasons"] = {
        f"headline.selection.{path}": why for path in ("prm.weighted.last", "prm_minus_majority.mean")
    }
    page = render(metrics, [], {})
    assert page.count(quoted) == before - 1 and value in page  # it is shown with what it is over, and not quoted
    assert f"{why}: <code>headline.selection.prm_minus_majority.mean</code>" in page
    assert "<code>headline.selection.prm.weighted.last</code>" in page
    assert "points against the majority vote" not in page.split("</header>")[0]


def test_models_are_named_briefly_in_the_text_and_fully_at_the_end():
    page = render({}, [], {"models": {"generator": "/data/models/small-qwen/"}, "trained": False})
    assert "The policy (small-qwen) answers" in page
    assert "generator /data/models/small-qwen/" in page
    assert "made earlier weights the vote" in page


def test_the_interval_decides_what_the_headline_says():
    metrics = _metrics()
    for low, verdict in ((0.01, "it excludes zero"), (-0.01, "it includes zero, so no difference is shown")):
        metrics["selection"]["prm_minus_majority"] = {"mean": 0.061, "low": low, "high": 0.11}
        page = render(metrics, [], {})
        assert "+6.1 points against the majority vote" in page
        assert verdict in page


def test_nothing_known_is_still_a_page():
    page = render({}, [], {})
    elements = _check_inert(page)
    shown = "".join(elements.words)
    assert "not measured in this run: selection." in shown
    assert "No solution was kept for this page." in shown
    assert "not a finding" not in shown  # nobody said that the data is generated
    assert "<svg" not in page


def test_all_null_is_still_a_page_that_says_why():
    metrics = _metrics()
    for path in _paths(metrics):
        _set(metrics, path, None)
    elements = _check_inert(render(metrics, [dict.fromkeys(_example()), {"steps": [{}]}], dict.fromkeys(_meta())))
    assert "undefined on this data" in "".join(elements.words)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_missing_null_or_broken_figure_leaves_the_page_whole(data):
    metrics = copy.deepcopy(_METRICS)
    for path in data.draw(st.lists(st.sampled_from(_paths(_METRICS)), min_size=1, max_size=8)):
        cut = path[: data.draw(st.integers(1, len(path)))]
        _set(metrics, cut, data.draw(st.sampled_from([None, math.nan, math.inf, "<b>", True, [], {}, [None], 0.0])))
    page = render(metrics, [_example()], _meta())
    _check_inert(page)
    assert not re.search(r"\b(nan|inf)\b", page, flags=re.IGNORECASE)


def test_a_null_shows_a_dash_and_its_reason():
    metrics = _metrics()
    metrics["judges"]["spare"]["error_recall"] = None
    assert "undefined on this data (what it divides by is empty): <code>judges.spare.error_recall</code>" in render(
        metrics, [], {}
    )
    metrics["reasons"] = {"judges.spare": "the judge was given no wrong solution"}
    page = render(metrics, [], {})
    assert "\u2013 the judge was given no wrong solution: <code>judges.spare.error_recall</code>" in page
    metrics["prm"]["at_half"]["f1"] = None
    assert render(metrics, [], {}).count("<code>prm.at_half.f1</code>") == 1  # told where it is missing, nowhere else
    del metrics["selection"]["orm"]
    page = render(metrics, [], {})
    assert "weighted by ORM" not in page
    assert "not measured in this run: <code>selection.orm</code>" in page


def test_numbers_are_written_for_readers():
    assert percent(0.6234) == "62.3\u202f%"
    assert [points(v) for v in (0.061, -0.05, 0.0001, -0.0001)] == ["+6.1", "\u22125.0", "0.0", "0.0"]
    assert count(1234567.4) == "1\u202f234\u202f567"
    assert [seconds(v).replace("\u202f", " ") for v in (8.42, 59.96, 425, 7265)] == [
        "8.4 s",
        "1 min 00 s",
        "7 min 05 s",
        "2 h 01 min",
    ]


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5), (0.0, 1.0), (0.501, 0.502, 0.503)])
def test_lines_stay_inside_their_chart(values):
    lines = [Line("PRM", "prm", tuple(enumerate(values))), Line("other", "orm", tuple(enumerate(values)))]
    chart = line_chart(lines, title="t", x_label="x", y_label="y")
    for points_ in re.findall(r'points="([^"]*)"', chart):
        for pair in points_.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 400
            assert 0 <= y <= 270
    labels = [float(y) for y in re.findall(r'class="line-name[^>]* y="([0-9.]+)"', chart)]
    assert abs(labels[0] - labels[1]) >= 14 - 0.2
    crowd = [Line(f"line {i}", "orm", ((0, 1.0), (1, 1.0))) for i in range(6)]
    chart = line_chart(crowd, title="t", x_label="x", y_label="y", y_range=(0.0, 1.0))
    heights = sorted(float(y) for y in re.findall(r'class="line-name[^>]* y="([0-9.-]+)"', chart))
    assert heights[0] > 10
    assert all(b - a >= 14 - 0.2 for a, b in itertools.pairwise(heights))
    assert line_chart([Line("empty", "prm", ((1, None),))], title="t", x_label="x", y_label="y") == ""


def _set(metrics, path, value):
    """Set the figure at a path; silently nothing where an earlier change has removed the way."""
    *way, last = path
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for key in way:
            metrics = metrics[key]
        metrics[last] = copy.deepcopy(value)


_METRICS = _metrics()
