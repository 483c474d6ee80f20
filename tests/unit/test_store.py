"""The work directory: records, journals, locks and manifests survive what can happen to them."""

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from record_strategies import TEXT, record
from tests_config import ROOT

from spare_jax.programs import Completion, Sample, run
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.storage import jsonlines
from spare_jax.storage.journal import MAX_UNWRITTEN, Journal
from spare_jax.storage.jsonlines import StoreError, digest, fingerprint, read_json, read_lines, write_json, write_lines
from spare_jax.storage.store import KINDS, WorkDir

FAST = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # writing to disk, shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example writes its files anew
)


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A second process that runs `code`; `arguments` are its sys.argv[1:]."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


# Records


@pytest.mark.parametrize(
    "kind", ["problems", "gold", "solutions", "judgements/spare", "verifications/x", "preferences/y"]
)
@FAST
@given(data=st.data())
def test_records_come_back_sorted_by_id(tmp_path, kind, data):
    record_type, id_field = KINDS[kind.split("/")[0]]
    records = data.draw(st.lists(record(record_type), max_size=4, unique_by=lambda r: getattr(r, id_field)))
    work = WorkDir(tmp_path)
    work.write(kind, records)
    assert work.read(kind) == sorted(records, key=lambda r: getattr(r, id_field))
    first = work.file(kind).read_bytes()
    work.write(kind, reversed(records))
    assert work.file(kind).read_bytes() == first


def test_lines_end_at_newlines_alone(tmp_path):
    work = WorkDir(tmp_path)
    problems = [Problem("a", "one\u2028two\x85three\x0cfour\r\nfive\x1esix"), Problem("b", "half \ud800 of a pair")]
    work.write("problems", problems)
    assert work.file("problems").read_bytes().count(b"\n") == 2
    assert work.read("problems") == problems


def test_a_refused_record_leaves_the_old_file(tmp_path):
    work = WorkDir(tmp_path)
    work.write("problems", [Problem("a", "?")])
    before = work.file("problems").read_bytes()
    with pytest.raises(StoreError, match="'a' occurs twice"):
        work.write("problems", [Problem("a", "?"), Problem("a", "!")])
    with pytest.raises(StoreError, match="expected Problem, found Gold"):
        work.write("problems", [Gold("a", ("1",))])
    assert work.file("problems").read_bytes() == before
    with pytest.raises(StoreError, match="row 1"):
        work.write("solutions", [Solution("s", "a", (), None, "stop", mean_logprob=math.nan)])
    assert not work.file("solutions").exists()


@pytest.mark.parametrize("kind", ["models", "judgements/../../x", "judgements/a/b", "/etc/problems", "", "problems/"])
def test_a_kind_names_no_path_outside(tmp_path, kind):
    with pytest.raises(StoreError, match="no kind of record"):
        WorkDir(tmp_path).file(kind)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "x"}', "field 'question' is missing"),
        (b'{"id": 1, "question": "?"}', r"Problem\.id: expected str"),
        (b'{"id": "x", "question": "?", "context": ["a", 2]}', r"Problem\.context\[1\]: expected str"),
        (b'{"id": "x", "question": "?", "answer": "3"}', "unknown field 'answer'"),
        (b'{"id": "x", "question"', "not JSON"),
        (b'{"id": "x", "question": "\xff"}', "not UTF-8"),
        (b'{"id": NaN, "question": "?"}', "NaN is no finite number"),
        (b'{"id": 1e999, "question": "?"}', "1e999 is no finite number"),
        (b'{"id": ' + b"[" * 100_000, "not JSON|nested too deeply"),
        (b'{"id": ' + b"1" * 5000 + b"}", "digits"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
    ],
)
def test_a_malformed_line_is_named_or_skipped(tmp_path, caplog, line, reason):
    work = WorkDir(tmp_path)
    good = b'{"id": "%s", "question": "?"}\n'
    work.file("problems").write_bytes(good % b"a" + line + b"\n" + b"\n" + good % b"b" + line)
    with pytest.raises(StoreError, match=rf"problems\.jsonl:2: .*({reason})") as error:
        work.read("problems")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    malformed: list[str] = []
    read = read_lines(work.file("problems"), Problem.from_json, on_error="skip", malformed=malformed)
    assert [p.id for _, p in read] == ["a", "b"]
    assert [m.split(": ")[0].rsplit(":", 1)[1] for m in malformed] == ["2", "5"]
    assert "2 malformed lines skipped" in caplog.text


def test_a_huge_number_where_a_float_belongs_is_malformed(tmp_path):
    work = WorkDir(tmp_path)
    row = '{"solution_id": "s", "judge": "j", "steps": [{"score": 1%s}]}\n' % ("0" * 400)
    work.file("judgements/j").parent.mkdir()
    work.file("judgements/j").write_text(row)
    with pytest.raises(StoreError, match=r"j\.jsonl:1: "):
        work.read("judgements/j")


def test_on_error_is_one_of_two(tmp_path):
    with pytest.raises(StoreError, match='set it to "raise" or "skip"'):
        list(read_lines(tmp_path / "x.jsonl", dict, on_error="ignore"))


def test_a_missing_file_is_named(tmp_path):
    for read in (WorkDir(tmp_path).read, lambda _: read_json(tmp_path / "gold.jsonl")):
        with pytest.raises(StoreError, match=r"gold\.jsonl does not exist"):
            read("gold")


def test_an_error_of_the_reader_is_not_taken_for_a_malformed_line(tmp_path):
    write_lines(tmp_path / "x.jsonl", [{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="mine"):
        for _ in read_lines(tmp_path / "x.jsonl", dict, on_error="skip"):
            raise ValueError("mine")


WRITER = """
import sys
from spare_jax.records import Problem
from spare_jax.storage.store import WorkDir
work = WorkDir(sys.argv[1])
for n in range(10**9):
    work.write("problems", [Problem(f"{i:04d}", str(n) * 20) for i in range(300)])
    print("written", flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    for delay in (0.0, 0.003, 0.011, 0.017):
        writer = python(WRITER, tmp_path)
        assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(delay)
        writer.kill()
        writer.wait()
        problems = WorkDir(tmp_path).read("problems")
        assert len(problems) == 300
        assert len({p.question for p in problems}) == 1


# The lock

HOLDER = """
import sys, time
from spare_jax.storage.store import WorkDir
with WorkDir(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_keeps_others_out_and_ends_with_its_process(tmp_path):
    work = WorkDir(tmp_path / "a" / "b")
    holder = python(HOLDER, work.path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreError) as error, work.lock():
            pass
        message = str(error.value)
        assert str(work.path) in message and str(holder.pid) in message and "--workdir" in message
        assert "\n" not in message
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with work.lock():
        pass


def test_the_lock_ends_with_its_block(tmp_path):
    work = WorkDir(tmp_path)
    with work.lock(), pytest.raises(StoreError, match=f"process {os.getpid()}:"), work.lock():
        pass
    with pytest.raises(KeyError), work.lock():
        raise KeyError
    with work.lock():
        pass


def test_a_file_is_no_work_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="is no directory"), WorkDir(path).lock():
            pass


# The journal


def bits(completion: Completion) -> tuple:
    """A completion with its floats as texts that no two floats share; NaN equals itself, -0.0 differs from 0.0."""
    return completion.ids, *map(repr, completion.logprobs), "|", *map(repr, completion.scores), completion.finish_reason


COMPLETIONS = st.lists(
    st.builds(
        Completion,
        ids=st.lists(st.integers(0, 2**31), max_size=4).map(tuple),
        logprobs=st.lists(st.floats(), max_size=4).map(tuple),
        finish_reason=TEXT,
        scores=st.lists(st.floats(), max_size=4).map(tuple),
    ),
    max_size=3,
).map(tuple)


@FAST
@given(answers=st.dictionaries(TEXT, COMPLETIONS, max_size=5))
def test_a_journal_gives_back_every_bit(tmp_path, answers):
    path = tmp_path / "solve.journal.jsonl"
    path.unlink(missing_ok=True)
    with Journal(path, "f") as journal:
        for request_id, completions in answers.items():
            assert journal.get(request_id) is None
            journal.put(request_id, completions)
        for _ in range(2):  # as put, and as read by another process
            for request_id, completions in answers.items():
                assert list(map(bits, journal.get(request_id) or ())) == list(map(bits, completions))
            journal.close()
            journal = Journal(path, "f")
        assert len(journal) == len(answers)
        journal.close()


def test_float32_values_survive_exactly(tmp_path):
    values = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    with Journal(tmp_path / "j", "f") as journal:
        journal.put("a", (Completion(logprobs=tuple(map(float, values))),))
    with Journal(tmp_path / "j", "f") as journal:
        (completion,) = journal.get("a") or ()
    assert np.array_equal(np.array(completion.logprobs, np.float32), values)


def test_an_array_s_number_is_refused_and_nothing_is_written(tmp_path):
    journal = Journal(tmp_path / "j", "f")
    before = (tmp_path / "j").read_bytes()
    journal.put("a", (Completion(logprobs=(np.float32(0.5),)),))
    with pytest.raises(TypeError):
        journal.close()
    assert journal.get("a") is None
    assert (tmp_path / "j").read_bytes() == before

    journal = Journal(tmp_path / "j", "f")
    journal.put("a", (Completion(logprobs=(np.float32(0.5),)),))
    with pytest.raises(TypeError):
        while True:
            journal.put("b", ())
    with contextlib.suppress(TypeError):
        journal.close()


def test_a_torn_journal_is_cut_back_wherever_it_was_torn(tmp_path):
    path = tmp_path / "j"
    answers = {f"p/{i}/0": (Completion((i,), (-0.5 * i,)),) for i in range(3)}
    with Journal(path, "f") as journal:
        for request_id, completions in answers.items():
            journal.put(request_id, completions)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, "f") as journal:
            kept = max(0, sum(end <= cut for end in ends) - 1)
            assert len(journal) == kept
            for request_id, completions in answers.items():
                if journal.get(request_id) is None:
                    journal.put(request_id, completions)
        assert path.read_bytes() == whole


def three_answers(path: Path) -> bytes:
    """A journal with three answers, and its bytes."""
    path.unlink(missing_ok=True)
    with Journal(path, "f") as journal:
        for i in range(3):
            journal.put(f"p/{i}/0", (Completion((10 + i, 20 + i), (-0.5 * i,)),))
    return path.read_bytes()


@pytest.mark.parametrize("garbage", [b"\0" * 50, b"{}\n", b"[1]\n", b"3\n", b'{"id":"x","completions":[{"no":1}]}\n'])
def test_what_is_unreadable_is_dropped_with_all_that_follows(tmp_path, garbage):
    path = tmp_path / "j"
    good = three_answers(path)
    path.write_bytes(good + garbage + good)
    with Journal(path, "f") as journal:
        assert (len(journal), path.read_bytes()) == (3, good)


@pytest.mark.parametrize("change", ["ids", "number", "swapped", "twice", "missing", "another's", "header", "old"])
def test_a_journal_line_is_not_believed_where_it_is_not_as_it_was_written(tmp_path, change):
    path = tmp_path / "j"
    with Journal(path, "f") as journal:
        journal.put("p/1/0", (Completion((7,)),))
    others = path.read_bytes().splitlines(keepends=True)
    header, a, b, c = three_answers(path).splitlines(keepends=True)
    changed = {
        "ids": [header, a, b.replace(b"[11,21]", b"[11,22]"), c],
        "number": [header, a.replace(b"-0.0", b"-0.1"), b, c],
        "swapped": [header, b, a, c],
        "twice": [header, a, a, b, c],
        "missing": [header, a, c],
        "another's": [header, a, others[1], c],
        "header": [header.replace(b"{", b"{ "), a, b, c],
        "old": [line[:-27] + b"}\n" for line in (header, a, b, c)],  # as they were before they had sums
    }[change]
    assert changed != [header, a, b, c]
    path.write_bytes(b"".join(changed))
    with pytest.raises(
        StoreError, match=r"j:(\d): not as it was written, .*delete the file, or its lines from \1 on"
    ) as e:
        Journal(path, "f")
    kept = int(str(e.value).split(":")[1]) - 1
    path.write_bytes(b"".join(changed[:kept]))  # the remedy
    with Journal(path, "f") as journal:
        assert len(journal) == max(0, kept - 1)


@settings(FAST, max_examples=300)
@given(data=st.data())
def test_no_byte_of_a_journal_can_be_changed_unseen(tmp_path, data):
    path = tmp_path / "j"
    whole = three_answers(path)
    place = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 30))
    changed = whole[:place] + data.draw(st.binary(max_size=30)) + whole[place + length :]
    path.write_bytes(changed)
    try:
        with Journal(path, "f") as journal:
            for i in range(3):  # dropped, or as it was
                assert journal.get(f"p/{i}/0") in (None, (Completion((10 + i, 20 + i), (-0.5 * i,)),))
            assert len(journal) == sum(journal.get(f"p/{i}/0") is not None for i in range(3))
    except StoreError as error:
        assert str(path) in str(error)


def test_a_full_disk_is_told_and_spoils_no_line(tmp_path, monkeypatch):
    path = tmp_path / "j"
    three_answers(path)
    journal = Journal(path, "f")
    write = journal._append

    def full(line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "_file", SimpleNamespace(write=full, fileno=journal._file.fileno))
    journal.put("q/0/0", (Completion((1,)),))
    monkeypatch.undo()
    assert journal._append == write
    with pytest.raises(OSError, match="No space left") as error:
        while True:  # no line may follow the one that is not whole, though there be room again
            journal.put("q/1/0", (Completion((1,)),))
    assert error.value.filename == str(path)
    with contextlib.suppress(OSError):
        journal.close()
    with Journal(path, "f") as journal:
        assert len(journal) == 3


def test_a_journal_of_other_settings_is_started_anew(tmp_path):
    with Journal(tmp_path / "j", "f") as journal:
        journal.put("a", (Completion((1,)),))
    with Journal(tmp_path / "j", "g") as journal:
        assert journal.get("a") is None
        journal.put("b", ())
    with Journal(tmp_path / "j", "g") as journal:
        assert (journal.get("a"), journal.get("b")) == (None, ())


JOURNAL_WRITER = """
import sys
from pathlib import Path
from spare_jax.programs import Completion
from spare_jax.storage.journal import Journal
journal = Journal(Path(sys.argv[1]), "f")
start = len(journal)
print(start - 1, flush=True)
for i in range(start, 10**9):
    journal.put(f"p{i}/0/0", (Completion(tuple(range(i % 700)), (0.1 * i,)),))
    print(i, flush=True)
    if i == start + int(sys.argv[2]):
        sys.stdin.read()
"""


@pytest.mark.parametrize("stops", [True, False])
def test_a_killed_process_loses_few_answers_and_spoils_none(tmp_path, stops):
    """Killed while it waits after a put, and in full course, where one may be half written."""
    path = tmp_path / "j"
    total = 0
    for lines in (0, 40, 333):
        writer = python(JOURNAL_WRITER, path, lines if stops else -1)
        assert writer.stdout is not None
        for _ in range(lines + 2):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        with Journal(path, "f") as journal:
            assert max(total, last + 1 - MAX_UNWRITTEN) <= len(journal)
            assert not stops or len(journal) <= last + 1
            total = len(journal)
            for i in range(total):
                assert journal.get(f"p{i}/0/0") == (Completion(tuple(range(i % 700)), (0.1 * i,)),)


class CountingEngine:
    """Answers each request at the next poll; raises KeyboardInterrupt when its patience ends."""

    def __init__(self, patience: int):
        self.patience = patience
        self.asked: list[str] = []
        self.waiting: list[str] = []

    def submit(self, request_id, request):
        self.asked.append(request_id)
        self.waiting.append(request_id)

    def poll(self):
        if self.patience == 0:
            raise KeyboardInterrupt
        self.patience -= 1
        request_id = self.waiting.pop(0)
        return [(request_id, (Completion(tuple(request_id.encode())),))]


def test_programs_go_on_where_an_interrupt_left_them(tmp_path):
    def program():
        first = yield [Sample("m", (1,), 4), Sample("m", (2,), 4)]
        second = yield [Sample("m", (3,), 4)]
        return [c.ids for (c,) in (*first, *second)]

    programs = [(f"p{i}", program) for i in range(5)]
    unbroken = CountingEngine(100)
    with Journal(tmp_path / "a", "f") as journal:
        wanted = dict(run({"m": unbroken}, programs, journal, in_flight=2))
    for patience in range(15):
        path = tmp_path / f"b{patience}"
        broken, resumed = CountingEngine(patience), CountingEngine(100)
        with Journal(path, "f") as journal, pytest.raises(KeyboardInterrupt):
            dict(run({"m": broken}, programs, journal, in_flight=2))
        with Journal(path, "f") as journal:
            assert dict(run({"m": resumed}, programs, journal, in_flight=2)) == wanted
        assert len(resumed.asked) == 15 - patience


# What a stage was made from

SETTINGS = {"seed": 0, "data": {"count": 3}, "models": {"generator": {"path": "tiny"}}}


@pytest.fixture
def work(tmp_path) -> WorkDir:
    """A directory in which solve has ended and judge has been interrupted."""
    work = WorkDir(tmp_path / "work")
    work.write("problems", [Problem("p", "?")])
    work.begin("solve", SETTINGS, {"problems": "problems.jsonl"})
    work.write("solutions", [Solution("s", "p", ("a",), "1", "stop")])
    work.complete("solve", ["solutions.jsonl"])
    work.begin("judge", {"seed": 0, "judge": "spare"}, {"solutions": "solutions.jsonl"})
    with work.journal("judge", "spare") as journal:
        journal.put("s/0/0", (Completion((1,)),))
    return work


def test_a_stage_is_done_when_it_has_ended(work):
    inputs = {"problems": "problems.jsonl"}
    assert work.done("solve", SETTINGS, inputs)
    assert work.done("solve", dict(reversed(SETTINGS.items())), inputs)
    assert not work.done("judge", {"seed": 0, "judge": "spare"}, {"solutions": work.file("solutions")})
    assert not work.done("train_prm", {"seed": 5}, {})


@pytest.mark.parametrize(
    ("stage", "settings", "key", "values"),
    [
        ("solve", SETTINGS | {"seed": 1}, "config.seed", ("0", "1")),
        ("solve", SETTINGS | {"data": {"count": 4}}, "config.data.count", ("3", "4")),
        (
            "solve",
            SETTINGS | {"models": {"generator": {"path": "big"}}},
            "config.models.generator.path",
            ('"tiny"', '"big"'),
        ),
        ("solve", SETTINGS | {"temperature": 0.5}, "config.temperature", ("(not set)", "0.5")),
        ("judge", {"seed": 0}, "config.judge", ('"spare"', "(not set)")),
    ],
)
def test_other_settings_are_an_error_before_anything_is_touched(work, stage, settings, key, values):
    before = tree(work.path)
    for call in (
        lambda: work.check(stage, settings),
        lambda: work.done(stage, settings, {}),
        lambda: work.begin(stage, settings, {}),
    ):
        with pytest.raises(StoreError) as error:
            call()
        message = str(error.value)
        assert f"{key}={values[0]}," in message and values[1] in message and str(work.path) in message
        assert "--workdir" in message and f"manifests/{stage}.json" in message and "\n" not in message
    assert tree(work.path) == before


def test_another_input_is_an_error_that_names_it(work):
    work.write("problems", [Problem("p", "another?")])
    with pytest.raises(StoreError, match=r"solve .*'problems'.*manifests/solve\.json"):
        work.done("solve", SETTINGS, {"problems": "problems.jsonl"})
    with pytest.raises(StoreError, match="does not exist"):
        work.done("judge", {"seed": 0, "judge": "spare"}, {"solutions": "nowhere.jsonl"})


def test_settings_of_a_later_stage_leave_the_earlier_ones_alone(work):
    work.check("solve", SETTINGS)
    with pytest.raises(StoreError, match="judge"):
        work.check("judge", {"seed": 0, "judge": "truth"})
    (work.path / "manifests" / "judge.json").unlink()  # the remedy
    work.begin("judge", {"seed": 0, "judge": "truth"}, {"solutions": "solutions.jsonl"})
    assert work.done("solve", SETTINGS, {"problems": "problems.jsonl"})
    with work.journal("judge", "spare") as journal:  # left behind by the other settings
        assert journal.get("s/0/0") is None


def test_an_interrupted_stage_finds_its_journal_and_an_ended_one_has_none(work):
    settings, inputs = {"seed": 0, "judge": "spare"}, {"solutions": "solutions.jsonl"}
    work.begin("judge", settings, inputs)
    with work.journal("judge", "spare") as journal:
        assert journal.get("s/0/0") == (Completion((1,)),)
    work.write("judgements/spare", [Judgement("s", "spare")])
    work.complete("judge", ["judgements/spare.jsonl"])
    assert work.done("judge", settings, inputs)
    assert not list(work.path.glob("*.journal.jsonl"))


def test_a_stage_whose_output_was_deleted_may_run_again_with_other_settings(work):
    work.file("solutions").unlink()
    assert not work.done("solve", SETTINGS | {"seed": 1}, {"problems": "problems.jsonl"})
    work.begin("solve", SETTINGS | {"seed": 1}, {"problems": "problems.jsonl"})


def test_an_output_that_was_changed_is_not_read(work):
    work.begin("judge", {"seed": 0, "judge": "spare"}, {"solutions": "solutions.jsonl"})
    judgements = [Judgement(f"s{i}", "spare", (StepJudgement(True, 0.5),)) for i in range(3)]
    work.write("judgements/spare", judgements)
    (work.path / "prm").mkdir()
    (work.path / "prm" / "weights").write_bytes(bytes(100))
    work.write_json("judgements/spare.counts.json", {"pairs": 3})
    work.complete("judge", ["judgements/spare.jsonl", "judgements/spare.counts.json", "prm"])
    settings, inputs = {"seed": 0, "judge": "spare"}, {"solutions": "solutions.jsonl"}

    file = work.file("judgements/spare")
    whole = file.read_bytes()
    for changed in (whole.replace(b"0.5", b"0.6", 1), whole[whole.index(b"\n") + 1 :], whole + b"\n", b""):
        file.write_bytes(changed)
        for call in (
            lambda run: run.read("judgements/spare"),
            lambda run: run.done("judge", settings, inputs),
            lambda run: run.begin("train_prm", {}, {"labels": "judgements/spare.jsonl"}),
            lambda run: run.begin("train_prm", {}, {"labels": file.resolve()}),
        ):
            with pytest.raises(
                StoreError, match=r"spare\.jsonl is not as stage judge wrote it: .*delete it to have it made"
            ):
                call(WorkDir(work.path))  # as a later run
    file.write_bytes(whole)
    assert WorkDir(work.path).read("judgements/spare") == judgements
    assert WorkDir(work.path).done("judge", settings, inputs)
    (work.path / "judgements" / "spare.counts.json").write_text('{"pairs": 4}')
    with pytest.raises(StoreError, match=r"spare\.counts\.json is not as stage judge wrote it"):
        WorkDir(work.path).read_json("judgements/spare.counts.json")
    assert work.read_json("judgements/spare.counts.json")  # whoever wrote it may have done so again
    write_json(work.path / "judgements" / "spare.counts.json", {"pairs": 3})
    (work.path / "prm" / "weights").write_bytes(bytes(101))
    with pytest.raises(StoreError, match="prm is not as stage judge wrote it"):
        WorkDir(work.path).done("judge", settings, inputs)
    file.unlink()  # the remedy
    assert not WorkDir(work.path).done("judge", settings, inputs)


def test_a_file_of_several_stages_is_as_the_last_one_left_it(work):
    work.begin("pair", {}, {})
    work.write("problems", [Problem("p", "?"), Problem("q", "?")])
    assert len(work.read("problems")) == 2  # its own, though it has not ended
    work.complete("pair", ["problems.jsonl"])
    work.begin("again", {}, {})
    work.write("problems", [Problem("p", "?")])
    work.complete("again", ["problems.jsonl"])
    assert len(WorkDir(work.path).read("problems")) == 1 and WorkDir(work.path).done("pair", {}, {})


MANIFEST = {
    "settings": {"seed": 0},
    "inputs": {"a": "00"},
    "outputs": {"problems.jsonl": "00"},
    "provisional": [],
    "suspended": [],
}


@pytest.mark.parametrize(
    "text",
    [
        *(
            json.dumps(MANIFEST | {key: value})
            for key in ("settings", "inputs", "outputs")
            for value in ([], ["problems.jsonl"], "x", 3, True)
        ),
        *(json.dumps(MANIFEST | {key: {"a": value}}) for key in ("inputs", "outputs") for value in (None, 1, [], {})),
        *(json.dumps(MANIFEST | {key: value}) for key in ("provisional", "suspended") for value in (None, 1, {}, [1])),
        *(json.dumps({k: v for k, v in MANIFEST.items() if k != key}) for key in MANIFEST),
        json.dumps(MANIFEST | {"more": 1}), json.dumps(MANIFEST | {"inputs": None}),
        json.dumps(MANIFEST | {"settings": None}), "", "null", "[]", "3", "{", "\0", '"x"',
        '{"settings":' + '{"a":' * 990 + "1" + "}" * 990 + ',"inputs":{},"outputs":null}',
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_an_error_with_its_remedy(work, text):
    path = work.path / "manifests" / "solve.json"
    path.write_text(text)
    for call in (
        lambda: work.check("solve", SETTINGS),
        lambda: work.done("solve", SETTINGS, {}),
        lambda: work.begin("solve", SETTINGS, {}),
        lambda: work.complete("solve", ["solutions.jsonl"]),
        lambda: work.journal("solve"),
        lambda: WorkDir(work.path).read("problems"),
    ):
        with pytest.raises(StoreError, match=r"solve\.json is no manifest: delete it to make stage solve again"):
            call()


def test_stages_end_in_order(work):
    with pytest.raises(StoreError, match="has not begun"):
        work.journal("rank")
    with pytest.raises(StoreError, match=r"did not write judgements/spare\.jsonl"):
        work.complete("judge", ["judgements/spare.jsonl"])
    (work.path / "manifests" / "solve.json").write_text("{}")
    with pytest.raises(StoreError, match=r"solve\.json is no manifest: delete it"):
        work.check("solve", SETTINGS)
    with pytest.raises(StoreError, match="cannot be the name"):
        work.check("../solve", SETTINGS)


# Fingerprints, digests, other files


def test_a_fingerprint_stands_for_the_value():
    assert fingerprint({"a": 1, "b": [1, (2, 3)]}) == fingerprint({"b": [1, [2, 3]], "a": 1})
    values = [{"a": 1}, {"a": "1"}, {"b": 1}, {"a": None}, {}, [], None, [1, 2], [2, 1]]
    assert len(set(map(fingerprint, values))) == len(values)
    assert all(len(fingerprint(v)) == 10 for v in values)


@pytest.mark.parametrize("whole", [1 << 30, 100])
def test_a_digest_stands_for_contents_and_names(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(jsonlines, "WHOLE_DIGEST_BYTES", whole)
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "weights").write_bytes(bytes(1_200_000))
        (folder / "config.json").write_text("{}")
    digests = {digest(first)}
    assert digest(second) in digests
    (second / "config.json").rename(second / "other.json")
    digests.add(digest(second))
    with (second / "sub" / "weights").open("r+b") as file:
        file.seek(1_199_999)
        file.write(b"x")
    digests.add(digest(second))
    (second / "sub" / "weights").write_bytes(bytes(1_200_001))
    digests.add(digest(second))
    assert len(digests) == 4


def test_metrics_are_written_as_they_are_or_not_at_all(tmp_path):
    work = WorkDir(tmp_path)
    metrics = {"policy": {"pass_at_1": 0.1 + 0.2, "none": None}, "n": 3, "é": [True, "x\ud800"], "a": (1,)}
    work.write_json("metrics.json", metrics)
    assert work.read_json("metrics.json") == metrics | {"a": [1]}
    text = (tmp_path / "metrics.json").read_bytes()
    assert text.index(b'"a"') < text.index(b'"n"') < text.index(b'"policy"')
    assert b"0.30000000000000004" in text and b"null" in text
    for bad, key in (
        ({"policy": {"rate": math.nan}}, r"policy\.rate is nan"),
        ({"a": [0, math.inf]}, r"a\[1\] is inf"),
        ({"a": {"b": np.float32(1)}}, r"a\.b is a float32"),
        ({"a": {1: 2}}, "key 1 under 'a'"),
        ({"a": {3}}, "a is a set"),
    ):
        with pytest.raises(StoreError, match=rf"metrics\.json: {key}"):
            work.write_json("metrics.json", bad)
    assert (tmp_path / "metrics.json").read_bytes() == text


def test_runs_are_counted(tmp_path):
    work = WorkDir(tmp_path)
    assert work.next_run() == 1
    for n in (1, 2, 10):
        work.write_json(f"runs/{n}.json", {"seconds": 1.5})
    write_json(tmp_path / "runs" / "notes.json", {})
    assert work.next_run() == 11


def test_what_runs_measured_comes_in_their_order(tmp_path):
    work = WorkDir(tmp_path)
    for n in (10, 2, 1):
        work.write_json(f"runs/{n}.json", {"stages": {"solve": {"seconds": n}, "judge": {}}})
    write_json(tmp_path / "runs" / "notes.json", [])
    assert [figures.get("seconds") for _, figures in work.measured()] == [None, 1, None, 2, None, 10]
    for text in (
        "",
        "x",
        "[]",
        "3",
        "{}",
        '{"stages": []}',
        '{"stages": {"solve": 3}}',
        '{"stages": {"solve": []}}',
        "\0",
    ):
        (tmp_path / "runs" / "2.json").write_text(text)
        with pytest.raises(StoreError, match=r"runs/2\.json is no run's: delete it"):
            work.measured()


def test_these_rooms_do_without_jax():
    rooms = "spare_jax.storage.store, spare_jax.tasks.gsm8k, spare_jax.formats.files"
    code = f"import sys, {rooms}; print('jax' in sys.modules)"
    assert python(code).communicate()[0] == "False\n"


def test_what_was_made_from_a_suspended_stage_is_made_anew_when_that_has_gone_on(tmp_path):
    """A judge whose server was down for some rows is asked again; the model that was trained meanwhile is not kept."""
    work, settings = WorkDir(tmp_path), {"seed": 0}

    def judged(text):
        work.begin("judge", settings, {})
        (tmp_path / "judged.txt").write_text(text)

    def trained():
        work.begin("train", settings, {"judged.txt": "judged.txt"})
        (tmp_path / "prm/export").mkdir(parents=True)
        (tmp_path / "prm/checkpoints").mkdir()
        work.complete("train", ["prm/export"])

    judged("half")
    with work.journal("judge") as journal:
        journal.put("a", (Completion(),))
    work.suspend("judge", ["judged.txt"])
    assert not work.done("judge", settings, {}) and work.has_journal("judge")
    trained()
    work.begin("judge", settings, {})
    work.suspend("judge", ["judged.txt"])
    assert work.done("train", settings, {"judged.txt": "judged.txt"}), "nothing has changed: nothing is made anew"
    judged("whole")
    work.complete("judge", ["judged.txt"])
    assert work.done("judge", settings, {}) and not work.has_journal("judge")
    assert not work.done("train", settings, {"judged.txt": "judged.txt"})
    assert not (tmp_path / "prm/export").exists() and not (tmp_path / "prm/checkpoints").exists()
    trained()
    (tmp_path / "judged.txt").write_text("edited")
    with pytest.raises(StoreError, match="not as stage judge wrote it"):
        WorkDir(tmp_path).done("train", settings, {"judged.txt": "judged.txt"})


def test_what_was_made_of_what_had_gaps_is_made_anew_too(tmp_path):
    """The scores of a model that was trained on labels with gaps, and what a stage has written that had gaps itself."""
    work, settings = WorkDir(tmp_path), {"seed": 0}
    labels, model, scores = ({f"{name}.txt": f"{name}.txt"} for name in ("labels", "model", "scores"))

    def made(stage, inputs, name, text, end=work.complete):
        assert not work.done(stage, settings, inputs)
        work.begin(stage, settings, inputs)
        (tmp_path / f"{name}.txt").write_text(text)
        end(stage, [f"{name}.txt"])

    made("judge", {}, "labels", "half", work.suspend)
    made("train", labels, "model", "of half")
    made("rank", model, "scores", "of half", work.suspend)
    made("study", scores, "figures", "of half")
    made("judge", {}, "labels", "whole")
    made("train", labels, "model", "of whole")
    assert not work.done("rank", settings, model) and not (tmp_path / "scores.txt").exists()
    made("rank", model, "scores", "of whole")
    made("study", scores, "figures", "of whole")
    assert work.done("study", settings, scores)
