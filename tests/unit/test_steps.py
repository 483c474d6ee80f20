"""The steps of solutions in the layouts that models write: texts, and the ids that were sampled."""

import json

import pytest
from cpu_seconds import cpu_seconds
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, MORE
from real_data import folder
from small_tokenizer import SPLITS, small_tokenizer
from tests_config import ROOT

from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode
from spare_jax.steps.lines import split_lines, step_texts
from spare_jax.steps.split import LONGEST, split_prose, split_steps
from spare_jax.tasks import competition, gsm8k, math

MARKS = (
    *(
        "\n",
        "\n\n",
        "\n  ",
        " ",
        ". ",
        ": ",
        "## Step 1: ",
        "**Step 2:** ",
        "**Sum**\n",
        "1. ",
        "2. ",
        "- ",
        "\\[",
        "\\]",
    ),
    *(
        "$$",
        "$",
        "\\(",
        "\\)",
        "```\n",
        "~~~",
        "\\begin{aligned}",
        "\\end{aligned}",
        "| a |\n|---|\n",
        "---\n",
        "[asy]",
    ),
    *(
        "The answer is 7.",
        "So",
        "we add",
        "2 + 3 = 5",
        "\\boxed{5}",
        "where x = 2",
        "#### 7",
        "éа 🍎",
        "e.g. ",
        "<step>",
    ),
)
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=6)), max_size=24).map("".join)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layouts_of_the_docs(name):
    text, steps = LAYOUTS[name]
    assert step_texts(split_steps(text)) == steps
    for task in (math.task(), gsm8k.task(), competition.task("aime24")):
        assert step_texts(task.split_steps(text)) == steps


def test_the_docs_show_the_layouts():
    page = (ROOT / "docs" / "tasks.md").read_text()
    assert shown(LAYOUTS) in page


def shown(layouts: dict[str, tuple[str, tuple[str, ...]]]) -> str:
    """The layouts for docs/tasks.md, each step's number before its first line."""
    parts = []
    for name, (text, _) in layouts.items():
        lines = [f"{name[0].upper()}{name[1:]}:", ""]
        for number, piece in enumerate(split_steps(text), 1):
            first, *more = [line for line in piece.split("\n") if line.strip()]
            lines += [f"    {number}  {first.rstrip()}", *(f"       {line.rstrip()}" for line in more)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


@pytest.mark.parametrize(("text", "count"), MORE)
def test_relatives_of_the_layouts(text, count):
    pieces = split_steps(text)
    assert len(pieces) == count, pieces
    assert "".join(pieces) == text


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("lines", "sections")])
def test_a_step_is_not_cut_again(name):
    """Nor on one line, as records have it, but for the lines of a list."""
    for piece in split_steps(LAYOUTS[name][0]):
        assert split_steps(piece) == (piece,)


@given(TEXTS)
@settings(deadline=None, max_examples=300)
def test_nothing_is_lost_and_no_step_is_blank(text):
    for split in (split_steps, split_prose):
        pieces = split(text)
        assert "".join(pieces) == text
        assert all(piece.strip() for piece in pieces) or pieces == (text,)


@pytest.mark.parametrize("split", list(SPLITS))
@pytest.mark.parametrize("text", [text for text, _ in LAYOUTS.values()])
def test_sampled_ids_are_cut_as_their_text(split, text):
    """Wherever no id holds both the end of a step and what follows."""
    tokenizer = small_tokenizer(split)
    ids = encode(tokenizer, text)
    steps, spans, whole = solve.split_solution(tokenizer, ids, (), split_steps)
    assert whole == text
    assert [solve.one_line(solve.decode(tokenizer, ids[start:stop])) for start, stop in spans] == list(steps)
    if split != "none":
        assert steps == step_texts(split_steps(text))


@pytest.mark.parametrize("split", list(SPLITS))
@given(text=TEXTS, data=st.data())
@settings(deadline=None, max_examples=100)
def test_spans_hold_every_id_that_says_something(split, text, data):
    tokenizer = small_tokenizer(split)
    ids = encode(tokenizer, text)
    cut = data.draw(st.integers(0, len(ids)))  # inside a character, too
    for some in (ids[:cut], ids[cut:], [*ids[cut:], *ids[:cut]]):
        steps, spans, whole = solve.split_solution(tokenizer, some, (), split_steps)
        assert whole == solve.decode(tokenizer, some)
        covered = [i for start, stop in spans for i in range(start, stop)]
        assert covered == sorted(set(covered)) and all(0 <= i < len(some) for i in covered)
        # What lies between two steps is decoded together: half a blank character alone is none.
        ends = [0, *(end for span in spans for end in span), len(some)]
        between = [some[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True)]
        assert not any(solve.decode(tokenizer, ids_between).strip() for ids_between in between)
        assert all(step and "\n" not in step for step in steps) and len(steps) == len(spans)


@pytest.mark.parametrize(
    "text", ["√2 🍎🍎. Then 🍎.\n\n因此。答案是7。", "🍎\n🍎\n🍎 🍎. 🍎", "a. 🍎b\nThe answer is 🍎."]
)
def test_characters_of_several_ids_are_counted_once(text):
    for split in ("line_end", "words"):
        tokenizer = small_tokenizer(split)
        ids = encode(tokenizer, text)
        assert any("\ufffd" in solve.decode(tokenizer, [token]) for token in ids)
        for rule in (split_steps, split_lines):
            assert solve.split_solution(tokenizer, ids, (), rule)[0] == step_texts(rule(text))


HOSTILE = (
    *(
        "\\[",
        "1. ",
        "$$",
        "|",
        "**",
        "\n",
        "```\n",
        "~~~\n",
        "- ",
        "# ",
        "## Step 1\n",
        "Step 1: ",
        "|a\n",
        "$a ",
        "$a$ ",
    ),
    *(
        "\\begin{a}",
        "\\(",
        "[asy]",
        "`",
        ". A",
        "mr. A",
        '."',
        "x\n\n",
        "**Step 1:** a\n",
        "#### 1\n",
        "a:\n",
        "<a>",
        "\t",
    ),
    *(
        "</step>",
        " ки",
        "|--|\n",
        "---\n",
        "[\n",
        "\\textbf{",
        "_",
        "。",
        "\r",
        "1",
        "a\n",
        "|-|-|\n",
        "So \n",
        "A. B. ",
    ),
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear_in_the_text(unit):
    for length in (LONGEST, 1_000_000):
        text = (unit * (length // len(unit) + 1))[:length]
        assert cpu_seconds(lambda text=text: split_steps(text)) < 0.5
        assert "".join(split_steps(text)) == text


def test_solutions_of_real_models():
    """ProcessBench's steps are paragraphs that somebody has joined; almost every one of them ends where a step ends."""
    theirs = ends = 0
    lines = [line for name in ("math", "gsm8k") for line in (folder("processbench") / f"{name}.jsonl").open()]
    for row in map(json.loads, lines):
        pieces = split_steps("\n\n".join(row["steps"]))
        at, ours = 0, set()
        for piece in pieces:
            at += len(piece)
            ours.add(at)
            assert len(piece.strip()) > 2
        at = 0
        for step in row["steps"][:-1]:
            at += len(step) + 2
            theirs += 1
            ends += at in ours
    assert ends / theirs > 0.97
