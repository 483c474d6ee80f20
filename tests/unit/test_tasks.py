"""Tasks: files of every data set, steps and sentences, answers and their comparison."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_data import folder
from tests_config import ROOT

from spare_jax.evaluation.accuracy import macro_f1
from spare_jax.records import Problem
from spare_jax.steps.lines import line_steps, split_lines, split_sentences, step_texts
from spare_jax.storage.jsonlines import StoreError
from spare_jax.tasks import competition, gsm8k, math, musique, sparp, stepgame
from spare_jax.tasks.answers import (
    LONGEST_ANSWER,
    MathVerifier,
    answers_equal,
    boxed_answer,
    canonical_number,
    extract_number,
    parse_number,
)
from spare_jax.tasks.task import numbered_context

TASK = gsm8k.task()
# Text made of what the patterns look for, in any order.
PIECES = (
    *(
        "the answer is",
        "####",
        "\\boxed{",
        "\\frac",
        "\\frac{1}{0}",
        "\\text{",
        "\\left(",
        "\\sqrt",
        "\\infty",
        "matrix",
    ),
    *("{", "}", "$", ",", ".", "-", "−", "/", "%", "=", " ", "\n", ":", "<<", ">>", "^", "**", "!", "x", "e9"),
    *("12", "0", ",000", "1/0", "½", "٣", "²", "9" * 34, "\\sum_{k=1}^{99}"),
)
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(), max_size=3)), max_size=12).map("".join)


@pytest.fixture(scope="session")
def gsm8k_path() -> Path:
    return folder("gsm8k")


@pytest.fixture(scope="session")
def rows(gsm8k_path):
    """Both splits as the file has them: {split: [(question, answer)]}."""
    return {
        split: [
            (row["question"], row["answer"])
            for row in map(json.loads, (gsm8k_path / f"{split}.jsonl").read_bytes().splitlines())
        ]
        for split in gsm8k.SPLITS
    }


# GSM8K's own files


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_row_loads_and_every_reference_is_correct(gsm8k_path, rows, split, count):
    loaded = list(gsm8k.load(gsm8k_path, split))
    assert len(loaded) == len({p.id for p, _ in loaded}) == count
    for (problem, gold), (question, text) in zip(loaded, rows[split], strict=True):
        assert problem.question == question and problem.id == gold.problem_id
        *lines, last = text.split("\n")
        # The published answer, read without any of our patterns.
        assert gold.answers == (last.removeprefix("#### ").replace(",", ""),)
        assert TASK.answers_equal(TASK.extract_answer(gold.steps), gold.answers)
        assert TASK.answers_equal(TASK.extract_answer(step_texts(TASK.split_steps(text))), gold.answers)  # with marks
        assert not TASK.answers_equal(str(int(gold.answers[0]) + 1), gold.answers)
        assert not any("<<" in step or ">>" in step for step in gold.steps)
        # Splitting loses nothing; loading takes off the marks, the blanks around lines, and nothing else.
        assert "".join(TASK.split_steps(text)) == text
        unmarked = [re.sub("<<.*?>>", "", line).strip() for line in lines]
        assert "\n".join(gold.steps[:-1]) == "\n".join(line for line in unmarked if line)
        assert "".join(split_sentences(question)) == question
        assert numbered_context(problem) and not any("\n" in s for s in numbered_context(problem))


def test_without_its_last_step_a_reference_still_tells_its_answer_most_of_the_time(gsm8k_path):
    """The fallback to the last number earns its place: models forget the last line."""
    pairs = [(TASK.extract_answer(gold.steps[:-1]), gold.answers) for _, gold in gsm8k.load(gsm8k_path, "test")]
    assert sum(TASK.answers_equal(*pair) for pair in pairs) / len(pairs) > 0.9


# Loading


def write_split(path: Path, *lines: object) -> Path:
    (path / "train.jsonl").write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


GOOD = {"question": "Two and two?", "answer": "It is 2 + 2 = <<2+2=4>>4.\n\nSo 4 <<4=4>>\n#### 4"}


def test_a_row_becomes_a_problem_and_its_gold(tmp_path):
    ((problem, gold),) = gsm8k.load(write_split(tmp_path, GOOD | {"extra": 1}), "train")
    assert problem == Problem("gsm8k-train-00001", "Two and two?")
    assert gold.steps == ("It is 2 + 2 = 4.", "So 4", "The answer is 4.")
    assert gold.answers == ("4",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "field 'answer' is missing"),
        ({"answer": "#### 4"}, "field 'question' is missing"),
        (GOOD | {"question": 4}, "question: expected str, found int"),
        (GOOD | {"answer": None}, "field 'answer' is missing, the row has question: name a copy"),
        (GOOD | {"answer": " \n"}, "field 'answer' is empty"),
        (GOOD | {"answer": "It is 4."}, "field 'answer': the last line is 'It is 4.', not '#### ' and a number"),
        (GOOD | {"answer": "It is 4.\n#### four"}, "field 'answer': the last line"),
        (GOOD | {"answer": "#### 4"}, "field 'answer' has no steps"),
        ('{"question"', "not JSON"),
        ("[1]", "row: expected an object"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(tmp_path, row, reason):
    write_split(tmp_path, GOOD, row, GOOD)
    with pytest.raises(StoreError, match=rf"train\.jsonl:2: {reason}"):
        list(gsm8k.load(tmp_path, "train"))
    malformed: list[str] = []
    loaded = list(gsm8k.load(tmp_path, "train", on_error="skip", malformed=malformed))
    assert [p.id for p, _ in loaded] == ["gsm8k-train-00001", "gsm8k-train-00003"]  # ids stay with their lines
    assert len(malformed) == 1


def test_a_missing_file_or_split_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"test\.jsonl does not exist"):
        list(gsm8k.load(tmp_path, "test"))
    with pytest.raises(StoreError, match="no split 'dev': it has train, test"):
        list(gsm8k.load(tmp_path, "dev"))


# Steps and sentences


@given(st.one_of(HOSTILE, st.text(st.sampled_from("ab.!?\"' \n\r\u2028\t"), max_size=40)))
def test_sentences_joined_are_the_text(text):
    assert "".join(split_sentences(text)) == text


@given(st.one_of(HOSTILE, st.text(st.sampled_from("ab \n\r\t<>"), max_size=40)))
def test_steps_lose_blanks_around_lines_and_nothing_else(text):
    steps = line_steps(text)
    assert all(step and step == step.strip() and "\n" not in step for step in steps)
    assert "".join("".join(steps).split()) == "".join(text.split())
    assert line_steps("\n".join(steps)) == steps


SPLITTERS = {"lines": split_lines, "math": math.split_steps, "sparp": sparp.split_steps, "sentences": split_sentences}


@pytest.mark.parametrize("split", SPLITTERS.values(), ids=SPLITTERS)
@given(st.lists(st.one_of(HOSTILE, st.sampled_from(("\n", " ", "Step 2:", "A. B", "$x. Y$", "\r"))), max_size=8))
def test_no_splitter_loses_anything(split, parts):
    text = "".join(parts)
    pieces = split(text)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces) or pieces == (text,)
    # A step of a record is its piece on one line.
    assert ["".join(step.split()) for step in step_texts(pieces)] == ["".join(p.split()) for p in pieces if p.strip()]
    assert all(step == step.strip() and "\n" not in step for step in step_texts(pieces))


def test_where_splitters_cut():
    assert split_lines("\n\n a\n\nb \n") == ("\n\n a\n\n", "b \n")
    assert step_texts(("\n a\n\nb  c \n", " \n")) == ("a b  c",)
    assert sparp.split_steps("Step 1: a.  Step 2: b.\nSo.") == ("Step 1: a.  ", "Step 2: b.\n", "So.")
    assert math.split_steps("\n\nIt is $a. B$. So\n\nyes. ") == ("\n\nIt is $a. B$. ", "So\n\n", "yes. ")


def test_sentences_end_where_a_reader_ends_them():
    text = 'Mr. Hill has 2.5 kg of tea. "How much?" Ana asks. It is $3. 5 boxes cost twice as much as box B. How many?'
    assert [s.strip() for s in split_sentences(text)] == [
        "Mr. Hill has 2.5 kg of tea.",
        '"How much?"',
        "Ana asks.",
        "It is $3.",
        "5 boxes cost twice as much as box B.",
        "How many?",
    ]


def test_context_is_the_problem_s_own_or_its_question():
    assert numbered_context(Problem("a", "One. Two  \n three?")) == ("One.", "Two", "three?")
    assert numbered_context(Problem("a", "One. Two?", ("Given.",))) == ("Given.",)


# Answers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(
            (t, "18")
            for t in ("18", "$18", "18.", "18.00", " 18 eggs", "18 eggs per day.", "**18**", "$18$", "\\(18\\)")
        ),
        *((t, "18") for t in ("\\$18", "18\\text{ eggs}", "18\\%", "18%", "US$18", "+18", "018", "18 dollars")),
        *((t, "-5") for t in ("-5", "$-5", "-$5", "−5")),
        *((t, "1080") for t in ("1,080", "$1,080.00", "1{,}080", "1080")),
        *((t, "0.5") for t in ("1/2", ".5", "0.50", "½", "\\frac{1}{2}", "\\dfrac12", "2/4")),
        *((t, "3.5") for t in ("3 1/2", "3½", "3\\frac{1}{2}", "7/2")),
        ("-\\frac{1}{3}", "-1/3"),
        ("-0", "0"),
        *((t, "3") for t in ("٣", "３", "3。", "३", "𝟑")),
        ("1,234,567.25", "1234567.25"),
        *(
            (t, None)
            for t in (
                "",
                "x",
                "5 + 3",
                "5 - 3",
                "12:30",
                "20-30",
                "5 and 6",
                "5/0",
                "2^3",
                "1e999",
                "1,08",
                "5!",
                "3a",
                "8-i",
            )
        ),
        *((t, None) for t in ("3.14.15", "²", "9" * 31, "2\\sqrt{4}", "$72/hour", "1" + " " * LONGEST_ANSWER)),
    ],
)
def test_a_number_is_read_in_every_dress(text, number):
    value = parse_number(text)
    assert (None if value is None else canonical_number(value)) == number


@given(st.fractions(max_denominator=10**6).filter(lambda x: abs(x) < 10**20))
def test_a_canonical_number_is_read_back(value):
    text = canonical_number(value)
    assert parse_number(text) == value
    assert extract_number([f"So it is {text} in all."]) == text


@given(st.integers(-(10**9), 10**9), st.integers(0, 99))
def test_ways_to_write_an_amount_are_equal(whole, cents):
    sign, amount = ("-" if whole < 0 else ""), f"{abs(whole)}.{cents:02d}"
    ways = (f"{sign}{amount}", f"{sign}${abs(whole):,}.{cents:02d}", f"{sign}{amount}0 dollars.", f"**{sign}{amount}**")
    assert all(answers_equal(a, [b]) for a in ways for b in ways)
    other = str(Fraction(ways[0]) + Fraction(1, 100))
    assert not any(answers_equal(a, [other]) for a in ways)


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (("She has 5.", "The answer is 18."), "18"),
        (("The answer is 18.", "She gives 3 away."), "18"),
        (("The answer is 3.", "Wait.", "The answer is 18."), "18"),
        (("a", "#### 1,080"), "1080"),
        (("So \\boxed{\\frac{7}{2}} it is.",), "3.5"),
        (("The answer is $\\boxed{42}$.",), "42"),
        (("The answer is 5 + 3 = 8 eggs.",), "8"),
        (("The answer is x = 0",), "0"),
        (("The answer is 8 apples, 3 more than Bob.",), "8"),
        (("**Answer:** 12",), "12"),
        (("Final answer:12.50",), "12.5"),
        (("The answer is 20%.",), "20"),
        (("He has 16-3-4=9 eggs", "and no more"), "9"),
        (("He has 4.", "The answer is"), "4"),
        (("He has 4.", "The answer is unknown."), "4"),
        (("\\boxed{2\\sqrt{4}}",), "2\\sqrt{4}"),
        (("\\boxed{5",), "5"),
        (("I do not know.",), None),
        ((), None),
    ],
)
def test_the_answer_is_found(steps, answer):
    assert TASK.extract_answer(steps) == answer


@settings(deadline=None)
@given(st.lists(HOSTILE, max_size=4), HOSTILE)
def test_no_text_breaks_the_extraction_or_comparison(steps, gold):
    answer = extract_number(steps)
    if answer is not None and parse_number(answer) is not None:
        assert extract_number(["The answer is " + answer]) == answer
    assert answers_equal(answer, [gold, answer or ""]) is (answer is not None)
    parse_number(gold)
    canonical_number(Fraction(len(steps), 7))


@pytest.mark.parametrize(
    "piece",
    [
        *("1 ", "1/", "\\frac{", "{", "-", "1,000", ",", "the answer is ", "\\boxed{", ".\n", "<<", "9", '."', "\n"),
        *(" ", "$", "[asy]", "\\[", "\\(", "$$ ", "\\begin{a}", "Step 2: "),
    ],
)
def test_long_hostile_text_takes_no_long_time(piece):
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    extract_number([text])
    for split in SPLITTERS.values():
        step_texts(split(text))
    gsm8k.strip_marks(text)
    assert time.process_time() - start < 5


def test_answers_compare_as_numbers_then_as_text():
    assert answers_equal("18.0", ["17", "18"])
    assert not answers_equal("18", [])
    assert not answers_equal(None, ["None"])
    assert answers_equal(" two ", ["two"])
    assert not answers_equal("2\\sqrt{4}", ["4"])  # nobody there to ask


# math-verify in its process


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(time_limit=30) as verifier:
        yield verifier


@pytest.mark.parametrize(
    ("predicted", "accepted", "equal"),
    [
        ("2\\sqrt{4}", "4", True),
        ("\\frac{1}{2}", "0.5", True),
        ("$x^2+2x+1$", "(x+1)^2", True),
        ("42", "43", False),
        ("}{", "4", False),
        ("", "", False),
        ("1" * LONGEST_ANSWER + "1", "1", False),
    ],
)
def test_the_verifier_knows_mathematics(verifier, predicted, accepted, equal):
    assert verifier.equal(predicted, accepted) is equal


def test_the_verifier_is_asked_where_numbers_do_not_decide(verifier):
    assert answers_equal("2\\sqrt{4}", ["3", "4"], verifier)
    assert not answers_equal("2\\sqrt{4}", ["3"], verifier)
    assert gsm8k.task(verifier).answers_equal("2\\sqrt{4}", ["4"])
    with MathVerifier() as idle:
        assert not answers_equal("5", ["4"], idle)
        assert idle._worker is None  # numbers alone start no process


def test_no_verdict_in_time_is_no_verdict_and_the_next_one_comes():
    with MathVerifier(time_limit=20) as verifier:
        assert verifier.equal("2", "2") is True
        verifier.time_limit = 1.0
        start = time.monotonic()
        assert verifier.equal("\\sum_{k=1}^{100000000} k^{k}", "7") is None
        assert time.monotonic() - start < 10
        assert verifier.undecided == 1
        verifier.time_limit = 20
        assert verifier.equal("2", "3") is False
        assert verifier.undecided == 1


def test_a_worker_that_dies_costs_one_verdict(verifier):
    assert verifier.equal("2", "2") is True
    process, _ = verifier._worker
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert verifier.equal("2", "3") is None
    assert verifier.equal("2", "4") is False


def test_the_verifier_works_outside_the_main_thread():
    results: list[bool | None] = []

    def compare():
        with MathVerifier(time_limit=30) as verifier:
            results.append(verifier.equal("\\frac{2}{4}", "0.5"))

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join()
    assert results == [True]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE, HOSTILE)
def test_no_text_breaks_the_verifier(verifier, predicted, accepted):
    verifier.time_limit = 5
    assert verifier.equal(predicted, accepted) in (True, False, None)


ORPHAN = """
import sys, threading, time
from spare_jax.tasks.answers import MathVerifier
verifier = MathVerifier(time_limit=3)
verifier.equal("1", "1")
print(verifier._worker[0].pid, flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=verifier.equal, args=("\\\\sum_{k=1}^{100000000} k^{k}", "7")).start()
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_worker_does_not_outlive_a_killed_parent(state):
    command = [sys.executable, "-c", ORPHAN, state]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _runs(worker):
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")  # a container's first process may reap nobody


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{a_{1}} and then \boxed{\sqrt{x^{2}}}", r"\sqrt{x^{2}}"),
        (r"it is \boxed 9$.", "9"),
        (r"\boxed{3}, hence \boxed{4", "3"),
        (r"an empty \boxed{}", None),
        ("nothing", None),
    ],
)
def test_boxes_are_read_with_their_braces_matched(text, answer):
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        ((r"So $\boxed{1,080}$.",), "1080"),
        ((r"\boxed{\text{(C)}} is right.", "Final Answer: The final answer is C. I hope so."), r"\text{(C)}"),
        (("The answer is $x+1$.",), "x+1"),
        (("First $a = 3$.", r"So the area is \(\frac{8\pi}{5}\) square units."), r"\frac{8\pi}{5}"),
        (("Hence $AB = 10$ units.",), "10"),
        (("There are **12,441,600** ways.",), "12441600"),
        (("no answer here",), None),
    ],
)
def test_math_answers(steps, answer):
    assert math.extract_answer(steps) == answer


def test_sentences_never_cut_mathematics():
    text = r"Take $x = 1. Y = 2$ here. Then \[a. B\] holds. Done."
    assert math.split_steps(text) == (r"Take $x = 1. Y = 2$ here. ", r"Then \[a. B\] holds. ", "Done.")


@pytest.mark.parametrize(("split", "count", "without"), [("train", 7500, 2), ("test", 5000, 0), ("math500", 500, 0)])
def test_every_reference_of_math_loads_and_states_its_answer(split, count, without):
    loaded = list(math.load(folder("math"), split))
    assert len(loaded) == count
    task = math.task()
    wrong = [gold for _, gold in loaded if not task.answers_equal(task.extract_answer(gold.steps), gold.answers)]
    assert len(wrong) == without and not any(gold.answers for gold in wrong)


def test_the_published_answers_of_math500_are_those_that_are_found(verifier):
    path, task = folder("math"), math.task(verifier)
    published = [json.loads(line)["answer"] for line in (path / "math500.jsonl").read_text().splitlines()]
    found = [task.extract_answer(gold.steps) for _, gold in math.load(path, "math500")]
    assert [p for p, f in zip(published, found, strict=True) if not task.answers_equal(f, [p])] == []


@pytest.mark.parametrize(
    ("name", "rows", "with_reference"),
    [("aime24", 30, 30), ("aime25", 30, 0), ("amc23", 40, 0), ("olympiadbench", 675, 675), ("minerva_math", 272, 272)],
)
def test_every_competition_loads_and_its_references_are_right(name, rows, with_reference, verifier):
    task = competition.task(name, verifier)
    loaded = list(competition.load(name, folder(f"competition/{name}"), "test"))
    assert (len(loaded), sum(bool(gold.steps) for _, gold in loaded)) == (rows, with_reference)
    stated = [(task.extract_answer(gold.steps), gold.answers) for _, gold in loaded if gold.steps]
    assert [pair for pair in stated if not task.answers_equal(*pair)] == []
    assert all(task.answers_equal(gold.answers[0], gold.answers) for _, gold in loaded)


def test_every_row_of_musique_loads_and_its_reference_is_right(tmp_path):
    shutil.copy(folder("musique") / "musique_ans_200_with_paragraphs.jsonl", tmp_path / "dev.jsonl")
    loaded = list(musique.load(tmp_path, "test"))
    task = musique.task()
    assert len(loaded) == 200 and all(len(problem.context) == 20 for problem, _ in loaded)
    assert all(task.answers_equal(task.extract_answer(gold.steps), gold.answers) for _, gold in loaded)
    assert all(2 <= len(gold.steps) - 1 <= 4 and "#" not in "".join(gold.steps[:-1]) for _, gold in loaded)
    assert all(line_steps("\n".join(gold.steps)) == gold.steps for _, gold in loaded)


@pytest.mark.parametrize(
    ("predicted", "accepted", "exact", "f1"),
    [
        ("The  Eiffel Tower!", ["eiffel tower"], True, 1.0),
        ("Tower of Eiffel", ["Eiffel Tower"], False, 0.8),
        ("Paris", ["Rome", "paris, France"], False, 2 / 3),
        ("the", ["a"], True, 0.0),
        (None, ["x"], False, 0.0),
    ],
)
def test_answers_of_musique_compare_by_the_official_rules(predicted, accepted, exact, f1):
    assert musique.exact_match(predicted, accepted) is exact
    assert musique.token_f1(predicted, accepted) == pytest.approx(f1)


def test_malformed_rows_of_new_tasks_are_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"problem": "x"}\n')
    with pytest.raises(StoreError, match=r"test\.jsonl:1: field 'answer' is missing"):
        list(competition.load("amc23", tmp_path, "test"))
    with pytest.raises(StoreError, match="amc23 has no split 'train': it has test"):
        list(competition.load("amc23", tmp_path, "train"))
    row = {"question": "x", "answer": "y", "paragraphs": [], "question_decomposition": [{}]}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(StoreError, match=r"dev\.jsonl:1: field 'paragraphs' is empty"):
        list(musique.load(tmp_path, "test"))
    with pytest.raises(StoreError, match="it has train, test, math500"):
        list(math.load(tmp_path, "dev"))


# StepGame, SpaRP


def test_every_label_of_stepgame_is_derived():
    """Every reference comes to its label, and the words of the sentences alone nearly as often."""
    loaded = list(stepgame.load(folder("stepgame"), "test"))
    task = stepgame.task()
    assert len(loaded) == len({p.id for p, _ in loaded}) == 4000
    assert all(task.answers_equal(task.extract_answer(gold.steps), gold.answers) for _, gold in loaded)
    assert all(line_steps("\n".join(gold.steps)) == gold.steps for _, gold in loaded)
    plain = 0
    for problem, gold in loaded:
        facts = [stepgame.read_fact(sentence) for sentence in problem.context]
        agent, origin = re.findall(r"\b[A-Z]\b", problem.question)
        plain += _walked([f for f in facts if f.other], agent, origin) == gold.answers[0]
    assert plain == 3749  # the others need a misworded or a broken sentence


def _walked(facts, agent, origin):
    """Where `agent` is by the words of the sentences, found by another way than the reference's: relaxation."""
    place = {origin: (0, 0)}
    for _ in facts:
        for f in facts:
            (x, y), *_ = f.offsets
            if f.other in place:
                place.setdefault(f.agent, (place[f.other][0] + x, place[f.other][1] + y))
            if f.agent in place:
                place.setdefault(f.other, (place[f.agent][0] - x, place[f.agent][1] - y))
    if agent not in place:
        return None
    x, y = place[agent]
    return stepgame.LABELS[(x > 0) - (x < 0), (y > 0) - (y < 0)]


@pytest.mark.parametrize(
    ("sentence", "agent", "other", "offset"),
    [
        ("X is over there and B is directly below it.", "B", "X", (0, -1)),
        ("A is at B’s 9 o'clock.", "A", "B", (-1, 0)),
        ("If Q is the center of a clock face, I is located between 10 and 11.", "I", "Q", (-1, 1)),
        ("A is at a 45 degree angle to I, in the lower lefthand corner.", "A", "I", (-1, -1)),
        ("K is to the left of L and below L at approximately a 45 degree angle.", "K", "L", (-1, -1)),
        ("O and T are next to each other with T at the bottom O on the top.", "T", "O", (0, -1)),
        ("The objects A and B are over there. The object B is lower and slightly to the right of the object A.",
         "B", "A", (1, -1)),
        ("M is diagonally left and above M.", "M", None, (-1, 1)),
    ],
)  # fmt: skip
def test_sentences_of_stepgame(sentence, agent, other, offset):
    fact = stepgame.read_fact(sentence)
    assert (fact.agent, fact.other, fact.offsets[0]) == (agent, other, offset)


def test_a_misworded_sentence_is_read_as_its_label_only_where_it_must_be():
    story = ["A is placed at the bottom of B."]
    assert stepgame.solve(story, "A", "B", "below")[0] == "A is below B: 0,0 + 0,-1 = 0,-1."
    assert stepgame.solve(story, "A", "B", "above")[0] == "A is above B: 0,0 + 0,1 = 0,1."
    with pytest.raises(ValueError, match="no reading of the story puts A 'left' of B"):
        stepgame.solve(story, "A", "B", "left")
    with pytest.raises(ValueError, match="no agent and direction in 'Nothing here"):
        stepgame.solve(["Nothing here."], "A", "B", "left")


@pytest.mark.parametrize(
    ("said", "answer"),
    [("to the upper left", "upper-left"), ("North-East.", "upper-right"), ("they overlap", "overlap"), ("?", None)],
)
def test_answers_of_stepgame(said, answer):
    assert stepgame.extract_answer((f"The answer is {said}", "Thank you.")) == answer


SPARP_ROW = {
    "context": "Box AAA is left of box BBB. A cup is in box AAA.",
    "question": "Where is AAA relative to BBB?",
    "targets": ["LEFT", "outside and touching"],
    "target_choices": ["LEFT", "RIGHT", "outside and touching"],
    "reasoning": "Step 1: From the context, AAA is left of BBB. Step 2: The answer is outside and touching and left.",
}


@pytest.mark.parametrize("as_list", [True, False])
def test_a_row_of_sparp(tmp_path, as_list):
    rows = [SPARP_ROW, SPARP_ROW | {"reasoning": "AAA is left.", "targets": ["left"]}]
    text = json.dumps(rows) if as_list else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.json").write_text(text)
    (first, gold), (_, other) = sparp.load(tmp_path, "train")
    assert first.context == ("Box AAA is left of box BBB.", "A cup is in box AAA.")
    assert first.question.endswith("Choose among: LEFT, RIGHT, outside and touching.")
    assert gold.answers == ("left, outside and touching",) and len(gold.steps) == 2
    assert other.steps == ("AAA is left.", "The answer is left.")
    task = sparp.task()
    assert task.answers_equal(task.extract_answer(gold.steps), gold.answers)
    assert not task.answers_equal(task.extract_answer(("The answer is left.",)), gold.answers)
    assert task.classes(task.extract_answer(("The answer is Right, LEFT.",))) == {"left", "right"}
    (tmp_path / "test.json").write_text(json.dumps(SPARP_ROW | {"targets": []}) + "\n")
    with pytest.raises(StoreError, match=r"test\.json:1: field 'targets' is (empty|missing)"):
        list(sparp.load(tmp_path, "test"))


# Rows of every data set, in its published form: (loader, split, its file, its name on the hub, row)
HOPS = [{"id": 1, "question": "Ann >> boss", "answer": "Ben"}, {"id": 2, "question": "Where is #1?", "answer": "Rome"}]
SOURCES = {
    "gsm8k": (gsm8k.load, "train", "train.jsonl", "train", GOOD),
    "math": (math.load, "test", "test.jsonl", "test", {"problem": "1+1?", "solution": "It is $\\boxed{2}$."}),
    "math500": (math.load_500, "test", "math500.jsonl", "test", {"problem": "1+1?", "solution": "$\\boxed{2}$"}),
    "musique": (
        *(musique.load, "test", "dev.jsonl", "validation"),
        {
            "question": "Where is the boss of Ann?",
            "paragraphs": [{"idx": 0, "title": "Ann", "paragraph_text": "Her boss is Ben.", "is_supporting": True}],
            "question_decomposition": HOPS,
            "answer": "Rome",
            "answer_aliases": ["Roma"],
        },
    ),
    "sparp": (sparp.load, "test", "test.json", "test", SPARP_ROW),
    "stepgame": (
        *(stepgame.load, "test", "qa1_test.jsonl", "test"),
        {"story": ["A is above B."], "question": "What is the relation of A to B?", "label": "above"},
    ),
    "amc23": (
        *(partial(competition.load, "amc23"), "test", "test.jsonl", "test"),
        {"question": "1+1?", "answer": 2.0},
    ),
    "olympiadbench": (
        *(partial(competition.load, "olympiadbench"), "test", "test.jsonl", "test"),
        {"question": "1+1?", "solution": ["It is 2.", "Two."], "final_answer": ["2"]},
    ),
}


def without_ids(loaded):
    return [(problem.question, problem.context, gold.answers, gold.steps) for problem, gold in loaded]


@pytest.mark.parametrize("name", SOURCES)
def test_local_files_parquet_and_the_hub_give_the_same(tmp_path, monkeypatch, name):
    import datasets
    import pyarrow
    import pyarrow.parquet

    load, split, file, hub_split, row = SOURCES[name]
    for part in ("lines", "parquet"):
        (tmp_path / part).mkdir()
    (tmp_path / "lines" / file).write_text((json.dumps(row) + "\n") * 2)
    expected = without_ids(load(tmp_path / "lines", split))
    assert len(expected) == 2 and expected[0][2]
    table = pyarrow.Table.from_pylist([row] * 2)
    pyarrow.parquet.write_table(table, tmp_path / "parquet" / f"{hub_split}-00000-of-00001.parquet")
    assert without_ids(load(tmp_path / "parquet", split)) == expected
    asked: list[Any] = []

    def load_dataset(*given, **named):
        asked.append((*given, named["split"]))
        return [row] * 2

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert without_ids(load(f"someone/{name}:main", split)) == expected
    assert asked == [(f"someone/{name}", "main", hub_split)]


FIELDS = {
    "gsm8k": ("question", "answer"),
    "math": ("problem", "solution"),
    "musique": ("question", "paragraphs", "question_decomposition", "answer"),
    "sparp": ("context", "question", "reasoning", "targets"),
    "stepgame": ("story", "question", "label"),
    "amc23": ("question", "answer"),
}


@pytest.mark.parametrize(("name", "missing"), [(name, field) for name, fields in FIELDS.items() for field in fields])
def test_a_missing_field_is_one_clear_error(tmp_path, name, missing):
    load, split, file, _, row = SOURCES[name]
    rows = [row, {k: v for k, v in row.items() if k != missing}]
    (tmp_path / file).write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(StoreError, match=rf"{re.escape(file)}:2: field '{missing}' is missing") as error:
        list(load(tmp_path, split))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("paragraphs", [{"title": "Ann"}], r"field 'paragraphs\[0\].paragraph_text' is missing"),
        ("paragraphs", [7], r"paragraphs\[0\]: expected an object, found int"),
        (
            "question_decomposition",
            [{"question": "x", "answer": 7}],
            r"question_decomposition\[0\].answer: expected str",
        ),
        ("answer_aliases", "Roma", "answer_aliases: expected a list, found str"),
    ],
)
def test_a_field_inside_a_row_of_musique_is_named(tmp_path, field, value, reason):
    (tmp_path / "dev.jsonl").write_text(json.dumps(SOURCES["musique"][-1] | {field: value}) + "\n")
    with pytest.raises(StoreError, match=rf"dev\.jsonl:1: {reason}"):
        list(musique.load(tmp_path, "test"))


@pytest.mark.parametrize(
    ("split", "pattern", "field", "count"),
    [
        (TASK.split_steps, "gsm8k/*.jsonl", "answer", 8792),
        (math.task().split_steps, "math/*.jsonl", "solution", 13000),
        (competition.task("aime24").split_steps, "competition/*/test.jsonl", "solution", 1148),
        (TASK.split_steps, "processbench/gsm8k.jsonl", "reference_solution", 400),
        (math.task().split_steps, "processbench/math.jsonl", "reference_solution", 1000),
    ],
)
def test_splitting_any_real_text_loses_nothing(split, pattern, field, count):
    name, _, files_of_it = pattern.partition("/")
    rows = [json.loads(line) for path in folder(name).glob(files_of_it) for line in path.read_bytes().splitlines()]
    found = [row.get(field) or [] for row in rows]
    texts = [text for several in found for text in (several if isinstance(several, list) else [several])]
    assert len(texts) == count
    for text in texts:
        assert "".join(split(text)) == text
        assert all(piece.strip() for piece in split(text))


def test_macro_f1():
    said = [frozenset({"left"}), frozenset({"left", "above"}), frozenset({"near"})]
    right = [frozenset({"left"}), frozenset({"above"}), frozenset({"left"})]
    # left: one of two said, one of two right; above: one, one.
    assert macro_f1(said, right) == pytest.approx((0.5 + 1.0) / 2)
    assert macro_f1([], []) is None
