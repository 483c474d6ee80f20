"""Other people's files: what is written is read again, what they published is read as meant, what is wrong is named."""

import dataclasses
import json
import os
import string
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_strategies import TEXT

from spare_jax.formats import files
from spare_jax.formats.fields import IMPORTED, labelled
from spare_jax.records import LabelledSolution, Preference, Problem, Solution, StepJudgement
from spare_jax.steps.lines import line_steps
from spare_jax.storage.jsonlines import StoreError

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Text whose blanks at the ends do not matter: two formats do not keep them.
STRIPPED = st.one_of(TEXT, st.sampled_from(["ки", "a ки", "Step 2: b", "step 1: c", "1. d", "x\n\ny", "+", "?"])).map(
    str.strip
)
LINE = st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=12).map(str.strip).filter(bool)
NAME = st.text(string.ascii_letters + "/ -é", min_size=1, max_size=6)
LABEL = st.booleans().map(lambda label: StepJudgement(label=label))
KNOWN = {True: StepJudgement(label=True, score=1.0), False: StepJudgement(label=False, score=0.0)}
RATING = st.sampled_from([*KNOWN.values(), StepJudgement(score=0.5), StepJudgement()])
VALUE = st.floats(0, 1).map(lambda value: StepJudgement(label=value > 0, score=value))


@st.composite
def solutions(draw, judge, step, judged, ids=None, question=TEXT, min_steps=0, **kept):
    """Labelled solutions that a format can say; `kept` are strategies of what else it keeps."""
    pairs = draw(st.lists(st.tuples(step, judged), min_size=min_steps, max_size=4))
    solution_id = draw(NAME)
    pair = draw(ids) if ids is not None else (solution_id.rpartition("/")[0] or solution_id, solution_id)
    kept = {name: draw(strategy) for name, strategy in kept.items()}
    return labelled(judge, pair, draw(question), [text for text, _ in pairs], [item for _, item in pairs], **kept)


@st.composite
def named(draw):
    problem, name = draw(NAME), draw(NAME)
    return problem, f"{problem}/{name}"


@st.composite
def first_errors(draw):
    """Solutions as ProcessBench labels them: right steps, then perhaps a wrong one and steps without label."""
    right, rest = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    labels = [True] * right + [False, None, None][:rest]
    steps, outcome = [draw(TEXT) for _ in labels], draw(st.booleans())
    judged = [StepJudgement(label=label) for label in labels]
    return labelled("processbench", draw(named()), draw(TEXT), steps, judged, outcome=outcome)


@st.composite
def classified(draw):
    """Solutions as PRMBench labels them: wrong steps have the row's class of error."""
    problem, name = draw(NAME), draw(NAME)
    judged = st.sampled_from([StepJudgement(label=True), StepJudgement(label=False, errors=(name,))])
    ids = st.just((problem, f"{problem}/{name}"))
    return draw(solutions("prmbench", TEXT, judged, ids, text=TEXT, reference=st.lists(TEXT, min_size=1, max_size=3)))


@st.composite
def preferences(draw):
    problem, lines = Problem(draw(NAME), draw(TEXT)), st.lists(LINE, max_size=3)
    shared = draw(lines)
    sides = [Solution(draw(NAME), problem.id, (*shared, *draw(lines)), None, IMPORTED) for _ in range(2)]
    scores = [tuple(draw(st.one_of(st.none(), st.floats(0, 1))) for _ in side.steps) for side in sides]
    return Preference(problem, *sides, *(scores if draw(st.booleans()) else ((), ())), len(shared))


ANSWERS = st.lists(TEXT, max_size=1)
NOT_FIRST = STRIPPED.filter(lambda text: "Step 1:" not in text)
RECORDS = {
    "trl_stepwise": solutions("trl_stepwise", TEXT, LABEL, min_steps=1),
    "math_shepherd": solutions("math_shepherd", STRIPPED, LABEL, question=NOT_FIRST, min_steps=1),
    "rlhflow": solutions("rlhflow", STRIPPED, LABEL, question=NOT_FIRST, min_steps=1),
    "prm800k_neutral_masked": solutions(
        "prm800k", TEXT, RATING, min_steps=1, answers=ANSWERS, reference=ANSWERS, finish_reason=TEXT
    ),
    "processbench": first_errors(),
    "prmbench": classified(),
    "omegaprm": solutions("omegaprm", TEXT, VALUE, min_steps=1, answers=ANSWERS),
    "plain": solutions("plain", TEXT, st.just(StepJudgement()), reference=st.lists(TEXT, max_size=2)),
    "trl_preference": preferences(),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_written_is_read_again(tmp_path, name):
    @SETTINGS
    @given(st.lists(RECORDS[name], min_size=1, max_size=4))
    def check(records):
        assert files.write(tmp_path / "x.jsonl", name, records) == 0
        assert list(files.read(tmp_path / "x.jsonl", name)) == records

    check()


def test_every_format_is_tested():
    others = {"prm800k_neutral_right", "prm800k_neutral_wrong"}
    assert set(RECORDS) | others == set(files.FORMATS)


def solution(*judged, question="Q", solution_id="p/0", **kept):
    """A solution with steps a, b, c, ... judged so; a plain label stands for a judgement by label alone."""
    judged = [item if isinstance(item, StepJudgement) else StepJudgement(label=item) for item in judged]
    return labelled("spare", ("p", solution_id), question, string.ascii_lowercase[: len(judged)], judged, **kept)


@pytest.mark.parametrize(
    ("name", "unsayable", "sayable"),
    [
        ("trl_stepwise", solution(True, None), solution(True, False)),
        ("trl_stepwise", solution(), solution(True)),
        ("math_shepherd", solution(True, None), solution(True, False)),
        ("math_shepherd", solution(True, question="Is Step 1: right?"), solution(True, question="Is step 1 right?")),
        ("rlhflow", solution(None), solution(True)),
        ("rlhflow", solution(True, question="Step 1: is right?"), solution(True, question="1: is right?")),
        ("prm800k_neutral_right", solution(), solution(None)),
        ("processbench", solution(True, None, False, outcome=True), solution(True, False, None, outcome=True)),
        ("processbench", solution(True), solution(True, outcome=False)),
        ("prmbench", solution(True), solution(True, reference=("r",))),
        ("prmbench", solution(None, reference=("r",)), solution(False, reference=("r",))),
        ("omegaprm", solution(StepJudgement(label=False, score=0.3)), solution(StepJudgement(label=True, score=0.3))),
        ("omegaprm", solution(None), solution(False)),
        ("omegaprm", solution(StepJudgement(score=1.5)), solution(StepJudgement(score=1.0))),
    ],
)
def test_what_a_format_cannot_say_is_left_out_and_counted(tmp_path, name, unsayable, sayable):
    assert files.write(tmp_path / "x.jsonl", name, [unsayable, sayable, unsayable]) == 2
    (read,) = files.read(tmp_path / "x.jsonl", name)
    assert (read.solution.id, read.solution.steps) == (sayable.solution.id, sayable.solution.steps)
    known = [(a, b) for a, b in zip(read.labels, sayable.labels, strict=True) if b is not None]
    assert all(a is b for a, b in known)


def test_steps_with_line_ends_make_no_preference(tmp_path):
    good = Preference(Problem("p", "Q"), Solution("p/0", "p", ("a",), None, ""), Solution("p/1", "p", (), None, ""))
    bad = dataclasses.replace(good, rejected=dataclasses.replace(good.rejected, steps=("a\nb",)))
    assert files.write(tmp_path / "x.jsonl", "trl_preference", [bad, good]) == 1


def test_shared_steps_stand_with_the_prompt(tmp_path):
    problem = Problem("p", "Q", ("C",))
    chosen, rejected = (Solution(f"p/{step}", "p", ("a", "b", step), None, "cut") for step in "cd")
    files.write(tmp_path / "x.jsonl", "trl_preference", [Preference(problem, chosen, rejected, shared_steps=2)])
    row = json.loads((tmp_path / "x.jsonl").read_text(encoding="utf-8"))
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("C\nQ\na\nb", "c", "d")


# Rows as they look to others

ROWS = {
    "trl_stepwise": {"prompt": "Q", "completions": ["a", "b"], "labels": [True, False]},
    "math_shepherd": {
        "input": "Q? Step 1: a ки\nStep 2: b ки",
        "label": "Q? Step 1: a +\nStep 2: b -",
        "task": "MATH",
    },
    "rlhflow": {
        "conversations": [
            {"role": "user", "content": "Q Step 1: a"},
            {"role": "assistant", "content": "+"},
            {"role": "user", "content": "Step 2: b"},
            {"role": "assistant", "content": "-"},
        ]
    },
    "processbench": {
        "id": "gsm8k-0",
        "generator": "G",
        "problem": "Q",
        "steps": ["a", "b", "c"],
        "final_answer_correct": False,
        "label": 1,
    },
    "prmbench": {
        "idx": "circular_0",
        "question": "Q",
        "original_question": "Q",
        "modified_question": "Q",
        "original_process": ["1. r"],
        "modified_process": ["1. a", "2. b"],
        "modified_steps": [2],
        "error_steps": [2],
        "reason": "why",
        "classification": "circular",
    },
    "omegaprm": {
        "question": "Q",
        "final_answer": "4",
        "reasoning_steps": [
            {"solution_prefix": "Q\n\na", "mc_value": 0.25},
            {"solution_prefix": "Q\n\na\n\nb", "mc_value": 0.0},
        ],
    },
    "prm800k_neutral_wrong": {
        "question": {"problem": "Q", "ground_truth_answer": "4", "ground_truth_solution": "r"},
        "label": {
            "steps": [
                {
                    "completions": [{"text": text, "rating": rating, "flagged": None}],
                    "human_completion": None,
                    "chosen_completion": 0,
                }
                for text, rating in (("a", 1), ("b", -1))
            ],
            "finish_reason": "found_error",
        },
    },
    "plain": {"id": "x/1", "question": "Q", "solution": ["a", "b"], "reference": ["r"]},
    "trl_preference": {"prompt": "Q", "chosen": "a\nb", "rejected": "c"},
}
OURS = ("id", "chosen_id", "rejected_id")


def written(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_as_meant_and_written_as_published(tmp_path, name):
    (record,) = files.read(written(tmp_path / "x.jsonl", [ROWS[name]]), name)
    if isinstance(record, LabelledSolution):
        assert record.problem.question.rstrip("?") == "Q"
        assert record.solution.steps[:2] == ("a", "b")
        assert record.labels[:2] == ((None, None) if name == "plain" else (True, False))
        assert record.solution.problem_id == record.problem.id and record.judgement.solution_id == record.solution.id
    else:
        assert (record.problem.question, record.chosen.steps, record.rejected.steps) == ("Q", ("a", "b"), ("c",))
    files.write(tmp_path / "y.jsonl", name, [record])
    row = json.loads((tmp_path / "y.jsonl").read_text(encoding="utf-8"))
    assert {k: v for k, v in row.items() if k not in OURS or k in ROWS[name]} == ROWS[name]


def test_ids_of_rows(tmp_path):
    rows = [ROWS["trl_stepwise"], ROWS["trl_stepwise"] | {"id": "p/7"}, ROWS["trl_stepwise"] | {"id": None}]
    records = list(files.read(written(tmp_path / "x.jsonl", rows), "trl_stepwise"))
    assert [(r.problem.id, r.solution.id) for r in records] == [
        ("x-00001", "x-00001/0"),
        ("p", "p/7"),
        ("x-00003", "x-00003/0"),
    ]


@pytest.mark.parametrize("name", ROWS)
def test_an_id_may_be_a_whole_number(tmp_path, name):
    key = "idx" if name == "prmbench" else "id"
    for value in (0, 17, 123456789012345678901234567890):
        as_number, as_text = (
            list(files.read(written(tmp_path / "x.jsonl", [ROWS[name] | {key: given}]), name))
            for given in (value, str(value))
        )
        assert as_number == as_text and as_number[0].problem.id == str(value)
    for wrong in (1.5, True, [1]):
        with pytest.raises(StoreError, match=rf"x\.jsonl:1: {key}: expected str"):
            list(files.read(written(tmp_path / "x.jsonl", [ROWS[name] | {key: wrong}]), name))


@pytest.mark.parametrize("suffix", [".json", ".JSON", ".jsonl", ".JSONL", ".Json", ".JsonL"])
def test_rows_are_lines_or_one_array(tmp_path, suffix):
    rows = [ROWS["plain"] | {"id": f"p/{i}"} for i in range(3)]
    texts = ["\n".join(map(json.dumps, rows)), "\n\n \n" + "\r\n\n".join(map(json.dumps, rows)) + "\n\n"]
    if suffix.lower() == ".json":
        texts += [json.dumps(rows), json.dumps(rows, indent=2), "\n \t" + json.dumps(rows) + "\n\n"]
    for text in texts:
        for mark in ("", "\ufeff"):
            (tmp_path / f"x{suffix}").write_text(mark + text, encoding="utf-8")
            assert [r.solution.id for r in files.read(tmp_path / f"x{suffix}", "plain")] == ["p/0", "p/1", "p/2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [('[{"question": "Q", "solution": "a"}, 3]', r"x\.json:2: row: expected an object"), ("[1", r"x\.json: not JSON")],
)
def test_a_malformed_array_is_named(tmp_path, text, reason):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(StoreError, match=reason):
        list(files.read(tmp_path / "x.json", "plain"))


@pytest.mark.parametrize(
    ("file", "text"), [("x.jsonl", ""), ("x.JSONL", "\n \n"), ("x.json", "[]"), ("x.json", " [ ]\n")]
)
def test_a_file_without_rows_is_an_error(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(StoreError, match=f"{file} holds no rows: check the path"):
        list(files.read(tmp_path / file, "plain"))


def test_a_table_without_rows_is_an_error(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROWS["plain"]])[:0], tmp_path / "x.parquet")
    with pytest.raises(StoreError, match=r"x\.parquet holds no rows"):
        list(files.read(tmp_path / "x.parquet", "plain"))


def test_a_solution_without_steps_is_a_record_without_steps_and_said(tmp_path, caplog):
    rows = [ROWS["plain"] | {"solution": solution} for solution in ("a", "", " \n\n", [])]
    records = list(files.read(written(tmp_path / "x.jsonl", rows), "plain"))
    assert [len(r.solution.steps) for r in records] == [1, 0, 0, 0]
    assert "3 solutions have no steps, nothing to judge; the first: " in caplog.text


MANY = 200_000
HOSTILE = [
    ("math_shepherd", {"input": "Q? " + "ки " * MANY + "ки", "label": "Q? " + "ки " * MANY + "+"}),
    ("math_shepherd", {"input": "Q? Step 1: " + "a ки" * MANY, "label": "Q? Step 1: " + "a +" * MANY}),
    ("omegaprm", {"question": "Q", "reasoning_steps": [{"solution_prefix": "Q" + "\n" * MANY, "mc_value": 1}]}),
    ("omegaprm", {"question": "Q", "reasoning_steps": [{"solution_prefix": "Q" + "\n\na" * MANY, "mc_value": 1}]}),
    ("prmbench", ROWS["prmbench"] | {"modified_process": ["a"] * MANY, "error_steps": [*range(1, MANY + 1)]}),
    ("plain", {"question": "Q", "solution": "a\n" * MANY}),
    ("plain", {"question": "Q", "solution": "a" + "\n" * MANY + "b"}),
    ("plain", {"question": "Q", "solution": "a\n\n" + (" " * 1000 + "\n") * 500 + "b"}),
    ("plain", {"question": "Q", "solution": "a\n\nb" + " " * MANY + "c"}),
    ("rlhflow", {"messages": [dict(role="user", content="Q? Step " * MANY), dict(role="assistant", content="+")]}),
]


@pytest.mark.parametrize(("name", "row"), HOSTILE)
def test_reading_takes_time_in_proportion_to_the_text(tmp_path, name, row):
    path = written(tmp_path / "x.jsonl", [row])
    began = time.process_time()
    list(files.read(path, name))
    assert time.process_time() - began < 3


def without(row: dict, key: str) -> dict:
    return {name: value for name, value in row.items() if name != key}


STEP = {"completions": [{"text": "a", "rating": 2}], "human_completion": None, "chosen_completion": None}
MALFORMED = [
    ("trl_stepwise", {"labels": [True]}, "labels: 1 labels for 2 completions"),
    ("trl_stepwise", {"labels": [True, 0.7]}, r"labels\[1\]: expected bool, found float"),
    ("trl_stepwise", {"labels": [True, -1]}, r"labels\[1\]: expected bool, found int"),
    ("trl_stepwise", {"labels": [True, None]}, r"labels\[1\]: expected bool, found NoneType"),
    ("trl_stepwise", {"labels": "10"}, "labels: expected list, found str"),
    ("trl_stepwise", {"completions": "ab"}, "completions: expected a list"),
    ("trl_stepwise", {"prompt": None}, "prompt: expected str"),
    ("math_shepherd", {"label": "Q? Step 1: a 0\nStep 2: b -"}, "label: step tag 1 has '0' in its place"),
    ("math_shepherd", {"label": "Q? Step 1: a +\nStep 2: c -"}, "label: differs from input .* after 1 step tags"),
    ("math_shepherd", {"label": "Q? Step 1: a +\nStep 2: b -."}, "label: goes on where input ends"),
    ("math_shepherd", {"input": "Q?", "label": "Q?"}, "input: no step tag"),
    ("math_shepherd", {"input": "Q? a ки b", "label": "Q? a + b"}, "input: text after the last step tag"),
    ("math_shepherd", {"input": "Q a ки", "label": "Q a +"}, "input: neither 'Step 1:' nor a question mark"),
    ("rlhflow", {"conversations": ROWS["rlhflow"]["conversations"][:3]}, "conversations: 3 turns are no pairs"),
    ("rlhflow", {"conversations": [{"role": "user", "content": "Q? a"}] * 2}, r"conversations\[1\].role: 'user' where"),
    (
        "rlhflow",
        {"messages": [{"role": "user", "content": "Q? a"}, {"role": "assistant", "content": "yes"}]},
        r"messages\[1\].content: 'yes' is neither",
    ),
    ("processbench", {"label": 3}, "label: 3 is neither -1 nor one of 3 steps"),
    ("processbench", {"label": -2}, "label: -2 is neither"),
    ("processbench", {"final_answer_correct": "no"}, "final_answer_correct: expected bool"),
    ("prmbench", {"error_steps": [0]}, "error_steps: 0 is none of 2 steps"),
    ("prmbench", {"original_process": [1]}, r"original_process\[0\]: expected str"),
    ("omegaprm", {"reasoning_steps": [{"solution_prefix": "Q\n", "mc_value": 1}]}, "solution_prefix: does not begin"),
    ("omegaprm", {"question": "R"}, r"reasoning_steps\[0\].solution_prefix: does not begin with the question"),
    ("omegaprm", {"reasoning_steps": [{"solution_prefix": "Q\n\na", "mc_value": 2}]}, "mc_value: 2.0 is no fraction"),
    ("omegaprm", {"reasoning_steps": [{"solution_prefix": "Q"}]}, r"'reasoning_steps\[0\].mc_value' is missing"),
    ("prm800k_neutral_wrong", {"label": {"steps": [STEP]}}, r"label.steps\[0\].completions\[0\].rating: 2 is none of"),
    (
        "prm800k_neutral_wrong",
        {"label": {"steps": [STEP | {"completions": [], "chosen_completion": 0}]}},
        r"label.steps\[0\].chosen_completion: 0 for 0 completions",
    ),
    ("plain", {"solution": 3}, "solution: expected a list"),
    ("plain", {"reference": ["a", 1]}, r"reference\[1\]: expected str"),
    ("trl_preference", {"chosen_scores": [1.0]}, "chosen_scores: 1 scores for 2 steps"),
    ("trl_preference", {"shared_steps": 1}, "shared_steps: 1 for a prompt of 1 lines"),
    ("trl_preference", {"shared_steps": -1}, "shared_steps: -1 for a prompt"),
    ("trl_preference", {"shared_steps": 0.5}, "shared_steps: expected int, found float"),
    ("trl_preference", {"prompt": [{"role": "user", "content": "Q"}] * 2}, "prompt: 2 messages of role 'user'"),
    ("trl_preference", {"chosen": [{"role": "user", "content": "Q"}]}, r"chosen\[0\].role: 'user' where 'assistant'"),
]


@pytest.mark.parametrize(("name", "change", "reason"), MALFORMED)
def test_a_malformed_row_is_named_or_skipped(tmp_path, name, change, reason):
    good = ROWS[name]
    path = written(tmp_path / "x.jsonl", [good, good | change, good])
    with pytest.raises(StoreError, match=rf"x\.jsonl:2: .*{reason}") as caught:
        list(files.read(path, name))
    assert "\n" not in str(caught.value)
    malformed: list[str] = []
    assert len(list(files.read(path, name, on_error="skip", malformed=malformed))) == 2
    assert len(malformed) == 1


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, row in ROWS.items() for key in row])
def test_a_missing_field_is_named_or_not_needed(tmp_path, name, key):
    path = written(tmp_path / "x.jsonl", [without(ROWS[name], key)])
    try:
        assert len(list(files.read(path, name))) == 1
    except StoreError as error:
        assert f"field '{key}' is missing" in str(error)


@pytest.mark.parametrize("name", files.FORMATS)
@pytest.mark.parametrize("row", [3, None, [], {}, {"prompt": {}}])
def test_what_is_no_row_at_all_is_named(tmp_path, name, row):
    with pytest.raises(StoreError, match=r"x\.jsonl:1: "):
        list(files.read(written(tmp_path / "x.jsonl", [row]), name))


# What single formats do


def test_trl_labels_may_be_numbers_that_are_0_or_1(tmp_path):
    row = {"prompt": "Q", "completions": ["a", "b", "c"], "labels": [1, 0.0, True], "source": 3}
    (record,) = files.read(written(tmp_path / "x.jsonl", [row]), "trl_stepwise")
    assert record.labels == (True, False, True)


def shepherd(tmp_path, text, labels):
    """The record of `text` with these labels in place of its tags; "=" leaves a tag as it is."""
    label = text
    for mark in labels:
        label = label.replace("ки", mark if mark != "=" else "\0", 1)
    path = written(tmp_path / "x.jsonl", [{"input": text, "label": label.replace("\0", "ки")}])
    (record,) = files.read(path, "math_shepherd")
    return record.problem.question, record.solution.steps, record.labels


def test_math_shepherd_tells_tags_from_text(tmp_path):
    told = shepherd(tmp_path, "Где носки? Step 1: носки + ки\nStep 2: b ки", "==+-")
    assert told == ("Где носки?", ("носки +", "b"), (True, False))


def test_math_shepherd_question_ends_where_it_can_be_seen(tmp_path):
    assert shepherd(tmp_path, "A? B? a ки\nStep 2: b ки", "+-") == ("A? B?", ("a", "b"), (True, False))
    assert shepherd(tmp_path, "Q step 1: a ки", "-") == ("Q", ("a",), (False,))
    # A tag inside the question is an annotation error of the data; a later step may speak of step 1.
    assert shepherd(tmp_path, "Q ки R. Step 1: a ки\nStep 2: b ки", "-+-")[1:] == (("a", "b"), (True, False))
    assert shepherd(tmp_path, "Q? a ки\nStep 2: as in Step 1: b ки", "+-") == (
        "Q?",
        ("a", "as in Step 1: b"),
        (True, False),
    )


def test_a_number_that_is_not_the_steps_own_is_text(tmp_path):
    assert shepherd(tmp_path, "Q Step 1: Step 1: a ки\nStep 7: b ки", "++")[1] == ("Step 1: a", "Step 7: b")
    row = ROWS["prmbench"] | {"modified_process": ["2. a", "2. 2. b"]}
    (record,) = files.read(written(tmp_path / "x.jsonl", [row]), "prmbench")
    assert record.solution.steps == ("2. a", "2. b")


def tree(*steps, reason="solution"):
    return {"question": {"problem": "Q"}, "label": {"steps": steps, "finish_reason": reason}}


def node(*rated, chosen=None, human=None):
    completions = [{"text": text, "rating": rating} for text, rating in rated]
    human = human and {"text": human, "rating": None}
    return {"completions": completions, "chosen_completion": chosen, "human_completion": human}


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("prm800k_neutral_right", True), ("prm800k_neutral_wrong", False), ("prm800k_neutral_masked", None)],
)
def test_prm800k_trees_are_laid_out(tmp_path, name, neutral):
    rows = [
        tree(node(("a", 1), ("x", -1), chosen=0), node(("y", -1), human="h"), node(("b", 0), ("z", None), chosen=0)),
        tree(node(("a", 1), chosen=0), node(("x", -1), ("y", 1)), reason="found_error"),
        tree(node(("a", 1), chosen=0), {"completions": None, "chosen_completion": None}, reason="give_up"),
        tree(),
    ]
    records = list(files.read(written(tmp_path / "x.jsonl", rows), name))
    assert [(r.problem.id, r.solution.steps, r.labels, r.solution.finish_reason) for r in records] == [
        ("x-00001", ("x",), (False,), "alternative"),
        ("x-00001", ("a", "y"), (True, False), "alternative"),
        ("x-00001", ("a", "h", "z"), (True, True, None), "alternative"),
        ("x-00001", ("a", "h", "b"), (True, True, neutral), "solution"),
        ("x-00002", ("a", "x"), (True, False), "alternative"),
        ("x-00002", ("a", "y"), (True, True), "alternative"),
        ("x-00003", ("a",), (True,), "give_up"),
    ]
    assert [r.solution.id for r in records[:2]] == ["x-00001/0", "x-00001/1"]
    assert [step.score for step in records[3].judgement.steps] == [1.0, 1.0, 0.5]


def test_processbench_has_no_labels_behind_the_first_error(tmp_path):
    rows = [ROWS["processbench"], ROWS["processbench"] | {"label": -1, "final_answer_correct": True}]
    wrong, right = files.read(written(tmp_path / "x.jsonl", rows), "processbench")
    assert wrong.labels == (True, False, None) and wrong.judgement.outcome is False
    assert right.labels == (True, True, True) and right.judgement.outcome is True
    assert (wrong.problem.id, wrong.solution.id) == ("gsm8k-0", "gsm8k-0/G")


def test_omegaprm_lays_out_the_tree(tmp_path):
    values = {"Q": 0.5, "Q\n\na": 0.25, "Q\n\na\n\nb\n\nc": 1, "Q\n\nd": 0, "Q\n\nab": 0.125}
    entries = [{"solution_prefix": prefix, "mc_value": value} for prefix, value in values.items()]
    again = {"solution_prefix": "Q\n\nab", "mc_value": 0.375}
    row = {"question": "Q", "final_answer": "4", "reasoning_steps": [*entries, again]}
    records = list(files.read(written(tmp_path / "x.jsonl", [row]), "omegaprm"))
    assert [(r.solution.steps, r.labels, [s.score for s in r.judgement.steps]) for r in records] == [
        (("a", "b\n\nc"), (True, True), [0.25, 1.0]),
        (("d",), (False,), [0.0]),
        (("ab",), (True,), [0.25]),
    ]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\nb\n", ("a", "b")),
        ("a\nb\n\n c\n \n\nd", ("a\nb", "c", "d")),
        ("a", ("a",)),
        ("We add:\n\n\\[1 + 1\n\n= 2\\]\n\nSo 2.", ("We add:\n\n\\[1 + 1\n\n= 2\\]", "So 2.")),
        ("Run:\n```\na\n\nb\n```\nIt is b. c.\n\nd", ("Run:\n```\na\n\nb\n```\nIt is b. c.", "d")),
        ("One. Two.", ("One.", "Two.")),
        (" \n", ()),
        ("", ()),
    ],
)
def test_a_text_is_cut_into_steps(tmp_path, text, steps):
    row = {"question": "Q", "solution": text, "reference": text}
    (record,) = files.read(written(tmp_path / "x.jsonl", [row]), "plain")
    assert record.solution.steps == steps
    assert (record.gold.steps if record.gold else ()) == steps


def test_preferences_of_messages(tmp_path):
    row = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "a\n\nb "}],
        "rejected": [{"role": "assistant", "content": ""}],
    }
    (record,) = files.read(written(tmp_path / "x.jsonl", [row]), "trl_preference")
    assert (record.problem.question, record.chosen.steps, record.rejected.steps) == ("Q", ("a", "b"), ())


# Sources


@pytest.mark.parametrize("name", ROWS)
def test_parquet_says_what_json_lines_say(tmp_path, name):
    path = written(tmp_path / "x.jsonl", [ROWS[name]] * 2)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROWS[name]] * 2), tmp_path / "x.parquet")
    assert list(files.read(tmp_path / "x.parquet", name)) == list(files.read(path, name))


def test_a_malformed_row_of_a_table_is_named(tmp_path):
    rows = [ROWS["processbench"], ROWS["processbench"] | {"label": 7}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pytest.raises(StoreError, match=r"x\.parquet:2: label: 7"):
        list(files.read(tmp_path / "x.parquet", "processbench"))


def test_data_sets_are_loaded_by_datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    written(tmp_path / "set" / "test.jsonl", [ROWS["processbench"]] * 3)
    (record, *rest) = files.read(tmp_path / "set", "processbench", split="test")
    assert record.labels == (True, False, None) and len(rest) == 2
    with pytest.raises(StoreError, match=r"set', split 'train': .*name a \.jsonl or \.parquet file") as caught:
        list(files.read(tmp_path / "set", "processbench"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [("Qwen/ProcessBench", ("Qwen/ProcessBench", None)), ("openai/gsm8k:main", ("openai/gsm8k", "main"))],
)
def test_the_hub_is_asked_for_configuration_and_split(monkeypatch, source, name):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or [ROWS["processbench"]])
    assert len(list(files.read(source, "processbench", split="math"))) == 1
    assert asked == [(name, {"split": "math", "trust_remote_code": False})]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(StoreError, match=rf"{name}.*check the path"):
        list(files.read(tmp_path / name, "trl_stepwise"))


def test_no_parquet_file_and_no_format(tmp_path):
    with pytest.raises(StoreError, match=r"x\.parquet.*that it is a Parquet file"):
        list(files.read(written(tmp_path / "x.parquet", [{}]), "trl_stepwise"))
    with pytest.raises(StoreError, match="format 'prm800k' is unknown: choose among trl_stepwise, "):
        list(files.read(tmp_path / "x.jsonl", "prm800k"))


# Published rows


@pytest.fixture(scope="session")
def data() -> Path:
    path = os.environ.get("SPARE_JAX_DATA")
    if not path or not (Path(path) / "prm_formats").is_dir():
        pytest.skip("SPARE_JAX_DATA names no folder that holds prm_formats/samples_*.jsonl")
    return Path(path)


@pytest.mark.parametrize(
    ("name", "file", "rows", "solutions", "steps"),
    [
        ("math_shepherd", "prm_formats/samples_math-shepherd.jsonl", 7, 7, 25),
        ("prm800k_neutral_wrong", "prm_formats/samples_prm800k.jsonl", 6, 36, 214),
        ("omegaprm", "prm_formats/samples_math-aps.jsonl", 3, 124, 290),
        ("processbench", "processbench/gsm8k.jsonl", 400, 400, 2082),
    ],
)
def test_published_rows_make_the_round_trip(tmp_path, data, name, file, rows, solutions, steps):
    records = list(files.read(data / file, name))
    assert (len({r.problem.id for r in records}), len(records)) == (rows, solutions)
    assert sum(len(r.labels) for r in records) == steps  # counted in the file by other means
    assert files.write(tmp_path / "x.jsonl", name, records) == 0
    assert list(files.read(tmp_path / "x.jsonl", name)) == records


@pytest.mark.parametrize(
    ("name", "file"),
    [("math_shepherd", "prm_formats/samples_math-shepherd.jsonl"), ("processbench", "processbench/gsm8k.jsonl")],
)
def test_published_rows_are_written_as_they_were(tmp_path, data, name, file):
    published = [json.loads(line) for line in (data / file).read_text(encoding="utf-8").splitlines() if line.strip()]
    files.write(tmp_path / "x.jsonl", name, files.read(data / file, name))
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    for theirs, ours in zip(published, rows, strict=True):
        if "reference_solution" in theirs:  # blanks around its lines are not kept
            theirs["reference_solution"] = "\n".join(line_steps(theirs["reference_solution"]))
        assert {key: theirs[key] for key in ours if key in theirs or key not in OURS} == {
            key: value for key, value in ours.items() if key in theirs or key not in OURS
        }
