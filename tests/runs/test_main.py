"""The entry point: configs, the whole of the job on a real data set's format, and errors of one line."""

import dataclasses
import errno
import json
import pathlib
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from small_tokenizer import small_tokenizer
from tests_config import ROOT, config_of, small_config
from tiny_directory import gsm8k_files, random_qwen2

from spare_jax import main
from spare_jax.judges.conventions import load_convention
from spare_jax.models import huggingface
from spare_jax.pipelines import prm
from spare_jax.programs import Completion
from spare_jax.records import Judgement, LabelledSolution, Problem, Solution, StepJudgement
from spare_jax.runs import settings
from spare_jax.runs.run import StageFailed
from spare_jax.runs.splits import task_of
from spare_jax.storage.store import StoreError, WorkDir
from spare_jax.tasks.arithmetic import WORLD


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_every_config_parses_and_has_a_small_form(name):
    assert config_of(name).stages
    small = config_of(name, "runlocal")
    assert small.stages == config_of(name).stages
    with pytest.raises(ValueError, match="config argument 'nonsense' is unknown: choose among"):
        config_of(name, "nonsense=1")


def test_arguments_take_the_type_of_their_default():
    read = settings.parse_argument("a,b=3,c=x", a=False, b=1, c="y", d=2)
    assert read == {"a": True, "b": 3, "c": "x", "d": 2}
    with pytest.raises(ValueError, match="b='x' is no int"):
        settings.parse_argument("b=x", b=1)
    with pytest.raises(ValueError, match="write b="):
        settings.parse_argument("b", b=1)


def gsm8k_config(tmp_path, problems=12, max_length=2600):
    data = gsm8k_files(tmp_path / "data", problems)
    texts = [line for path in data.glob("*.jsonl") for line in path.read_text().splitlines()]
    config = config_of("prm_math", "task=gsm8k")
    config.data.path = str(data)
    config.models.generator.path = str(random_qwen2(tmp_path / "model", texts, max_length))
    config.data.train_problems, config.data.dev_problems, config.data.test_problems = 4, 2, 4
    config.solve.samples, config.solve.max_tokens = 2, 24
    config.annotate.max_tokens = 512
    config.annotate.measured_problems, config.annotate.control_problems = 2, 2
    config.engine.slots, config.engine.prefill_tokens = 8, 1024
    config.engine.dtype = config.prm.train.dtype = "float32"
    config.prm.train.batch_rows, config.prm.train.row_length = 2, 512
    return config


def test_real_format_with_a_model_that_gets_everything_wrong(tmp_path, caplog):
    config = gsm8k_config(tmp_path)
    main.run(config, "gsm8k", str(tmp_path / "work"))
    metrics = json.loads((tmp_path / "work" / "metrics.json").read_text())
    assert metrics["n_problems"] == 4
    assert metrics["policy"]["pass_at_1"] == 0
    assert metrics["selection"]["prm"]["weighted"]["last"] == 0
    assert metrics["judges"]["spare"]["step_accuracy"] is None  # there is no truth to compare with
    assert metrics["judges"]["spare"]["parse_failure_rate"] == 0  # a grammar lets random weights say nothing else
    assert metrics["prm"]["judge"] is None
    assert "balanced with nothing" in caplog.text
    assert "exemplars were dropped" in caplog.text
    assert "NaN" not in (tmp_path / "work" / "metrics.json").read_text()
    assert load_convention(tmp_path / "work" / "prm" / "export").tag == "<extra_0>"
    adapter = tmp_path / "work" / "prm" / "adapter"  # the paper's settings train one
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 64
    assert load_convention(adapter).tag == "<extra_0>"
    assert huggingface.load(adapter).config == huggingface.load(tmp_path / "work" / "prm" / "export").config
    assert "<html" in (tmp_path / "work" / "report.html").read_text()
    gold = (tmp_path / "work" / "gold.jsonl").read_text()
    assert "<<" not in gold and "####" not in gold

    # The PRM of that run ranks another run, which trains nothing.
    config.prm.path = str(tmp_path / "work" / "prm" / "export")
    main.run(config, "gsm8k", str(tmp_path / "ranked"))
    problems = [json.loads(line)["id"] for line in (tmp_path / "ranked" / "problems.jsonl").read_text().splitlines()]
    assert {problem.split("-")[0] for problem in problems} == {"dev", "test"}
    assert not (tmp_path / "ranked" / "prm").exists()
    again = json.loads((tmp_path / "ranked" / "metrics.json").read_text())
    assert again["selection"]["prm"] == metrics["selection"]["prm"]
    assert "orm" not in again["selection"]


def test_where_nothing_is_judged_nothing_is_made_of_it(tmp_path):
    config = gsm8k_config(tmp_path, max_length=1024)
    for _ in range(2):
        with pytest.raises(StageFailed, match=r"judge: all of \d+ failed: the prompt of 1\d+ tokens leaves no room"):
            main.run(config, "gsm8k", str(tmp_path / "work"))
    assert not list((tmp_path / "work").glob("judgements/spare*")) and not (tmp_path / "work" / "prm").exists()


def labels_file(path, problems=30):
    """TRL rows: per problem a right solution and one whose last step is wrong; returns how many problems there are."""
    rows = []
    for problem, gold in WORLD.generate(0, "labels", problems, dataclasses.replace(WORLD.train, lengths=(1, 2))):
        prompt = "\n".join((*problem.context, problem.question))
        for k, steps in enumerate((gold.steps, (*gold.steps[:-1], "The answer is 100."))):
            labels = [True] * (len(steps) - 1) + [k == 0]
            rows.append({"id": f"{problem.id}/{k}", "prompt": prompt, "completions": steps, "labels": labels})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_file_of_labels_trains_a_reward_model(tmp_path):
    rows = labels_file(tmp_path / "labels.jsonl")
    config = config_of("prm_labels", "runlocal")
    config.data.labels = str(tmp_path / "labels.jsonl")
    config.prm.train.steps = 2
    main.run(config, "prm_labels", str(tmp_path / "work"))
    work = WorkDir(tmp_path / "work")
    solutions = {s.id.split("-", 1)[1]: s for s in work.read("solutions")}
    judgements = {j.solution_id.split("-", 1)[1]: j for j in work.read("judgements/labels")}
    assert solutions.keys() == judgements.keys() == {row["id"] for row in rows}
    for row in rows:
        assert list(solutions[row["id"]].steps) == list(row["completions"])
        assert [step.label for step in judgements[row["id"]].steps] == row["labels"]
        assert judgements[row["id"]].outcome == row["labels"][-1]
    splits = {}
    for problem in work.read("problems"):
        splits.setdefault(problem.id.split("-")[0], set()).add(problem.question + "".join(problem.context))
    assert len(splits["dev"]) == 3
    assert len(splits["train"]) == 27
    assert not splits["dev"] & splits["train"]
    assert load_convention(tmp_path / "work" / "prm" / "export").tag == " ки"


def test_labels_that_cannot_train_are_one_clear_error(tmp_path):
    config = config_of("prm_labels", "runlocal")
    with pytest.raises(ValueError, match=r"config.data.labels is empty: name a file"):
        main.run(config, "prm_labels", str(tmp_path / "none"))
    rows = labels_file(tmp_path / "labels.jsonl", 1)
    (tmp_path / "twice.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]) + "\n")
    config.data.labels = str(tmp_path / "twice.jsonl")
    with pytest.raises(ValueError, match="two solutions have the id 'labels-00000/0'"):
        main.run(config, "prm_labels", str(tmp_path / "twice"))
    preference = {"prompt": "How many?", "chosen": "Two.", "rejected": "Three."}
    (tmp_path / "preferences.jsonl").write_text(json.dumps(preference) + "\n")
    config.data.labels, config.data.format = str(tmp_path / "preferences.jsonl"), "trl_preference"
    with pytest.raises(ValueError, match="'trl_preference' holds no step labels: choose another"):
        main.run(config, "prm_labels", str(tmp_path / "preferences"))
    config.data.labels, config.data.format = str(tmp_path / "labels.jsonl"), "trl_stepwise"
    config.prm.labels = "truth"
    with pytest.raises(ValueError, match=r"config.prm.labels='truth'.* is missing: run the stage that writes it first"):
        main.run(config, "prm_labels", str(tmp_path / "truth"))


def test_where_no_label_trains_nothing_is_exported(tmp_path):
    labels_file(tmp_path / "labels.jsonl")
    config = config_of("prm_labels", "runlocal")
    config.data.labels, config.data.format = str(tmp_path / "labels.jsonl"), "trl_stepwise"
    config.prm.train.row_length = 8  # no step ends in it
    with pytest.raises(
        ValueError, match=r"none of \d+ train solutions has a label that the PRM could learn in rows of 8"
    ):
        main.run(config, "prm_labels", str(tmp_path / "work"))
    assert not list((tmp_path / "work").rglob("export"))


def test_a_prm_learns_labels_or_scores_and_an_orm_the_outcome():
    tokenizer, steps = small_tokenizer(), ("Ben has 8.", "So 8.", "8")
    judged = (StepJudgement(True, 0.125), StepJudgement(None, 0.5), StepJudgement(False))
    item = LabelledSolution(
        Problem("p", "How many?"), Solution("p/0", "p", steps, "8", "stop"), Judgement("p/0", "j", judged, outcome=True)
    )

    def labels(kind, targets):
        run, start = SimpleNamespace(seed=0, task=task_of("arithmetic")), SimpleNamespace(tokenizer=tokenizer)
        how = prm.RewardModelTraining(targets=targets)
        (example,) = prm.training_sets(run, "test", start, how, kind, {"dev": [item]}, 3)["dev"]
        assert len(example.tags) == len(example.labels)
        return example.labels

    assert labels("prm", "labels") == (True, None, False)
    assert labels("prm", "scores") == (0.125, None, 0.0)
    assert labels("orm", "labels") == labels("orm", "scores") == (True,)
    with pytest.raises(ValueError, match=r"config.prm.targets='soft' is unknown: choose among labels, scores"):
        labels("prm", "soft")


def test_splits_of_real_data_share_no_question(tmp_path):
    from spare_jax.runs import splits

    config = gsm8k_config(tmp_path, problems=20)
    config.data.train_problems = config.data.dev_problems = config.data.test_problems = None
    path = pathlib.Path(config.data.path)
    repeated = (path / "test.jsonl").read_text().splitlines()[0]
    (path / "train.jsonl").write_text((path / "train.jsonl").read_text() + repeated + "\n")

    def load(config):
        return splits.load(
            "gsm8k", config.seed, settings.read(splits.ProblemData, config.data.to_dict(), "config.data")
        )

    loaded = load(config)
    questions = [p.question for p in loaded.problems]
    assert len(questions) == len(set(questions))
    assert [splits.split_of(p.id) for p in loaded.problems].count("dev") == 2
    assert any("repeat another one's text" in note for note in loaded.notes)
    other = load(config)
    config.seed = 1
    assert load(config).problems != other.problems


def test_stages_run_in_parts_and_a_seed_changes_everything(tmp_path):
    config = small_config()
    config.stages = ("solve",)
    main.run(config, "small", str(tmp_path / "a"))
    config.stages = ("report",)
    with pytest.raises(ValueError, match=r"stage report needs .*metrics.json: run the stages before it first"):
        main.run(config, "small", str(tmp_path / "a"))
    config.stages, config.seed = ("solve",), 1
    with pytest.raises(StoreError, match=r"config.seed=0, this run asks for 1: give another --workdir"):
        main.run(config, "small", str(tmp_path / "a"))
    main.run(config, "small", str(tmp_path / "b"))
    lines = [set((tmp_path / d / "problems.jsonl").read_text().splitlines()) for d in "ab"]
    assert len(lines[0]) == len(lines[1]) == 18
    assert not lines[0] & lines[1]
    config.stages = ("solv",)
    with pytest.raises(ValueError, match=r"config\.stages names 'solv': the stages are solve, judge"):
        main.run(config, "small", str(tmp_path / "b"))


@pytest.mark.parametrize(
    "flags, expected",
    [
        (
            ["--config.data.tests=1"],
            "there is no config key config.data.tests: config.json of a run has all of its keys",
        ),
        (["--config.seed=x"], "invalid literal for int() with base 10: 'x'"),
        (["--config=configs/none.py"], "config file configs/none.py is missing: name one of configs/"),
        (["--config=configs/prm_math.py:foo"], "config argument 'foo' is unknown: choose among runlocal, task"),
        (["--config.models.generator.path=/nowhere"], "/nowhere is no directory: give the local directory"),
        (["--config.mesh.fsdp=3"], "choose sizes whose product is 1"),
        (
            ["--config.task=gsm9k"],
            "config.task='gsm9k' is unknown: choose among arithmetic, multihop, spatial",
        ),
        (["surplus"], "unexpected argument 'surplus'"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, flags, expected):
    config = ROOT / "configs" / "prm_math.py"
    command = [
        sys.executable,
        "-m",
        "spare_jax.main",
        f"--config={config}:runlocal",
        f"--workdir={tmp_path / 'w'}",
        *flags,
    ]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert told.returncode != 0
    assert expected in told.stderr
    assert "Traceback" not in told.stderr
    assert [line for line in told.stderr.splitlines() if line][-1].startswith("error: ")


# `main` around a run that keeps two answers in a journal and then does as the first argument says.
STARTED = """
import errno, signal, sys, time
from absl import app
from spare_jax import main
from spare_jax.programs import Completion
from spare_jax.storage.store import WorkDir

does = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell's `&` starts

def run(config, name, workdir):
    work = WorkDir(workdir)
    with work.lock():
        work.begin("solve", {}, {})
        with work.journal("solve") as journal:
            journal.put("p/0/0", (Completion((1,)),))
            journal.put("p/1/0", (Completion((2,)),))
            try:
                print("ready", flush=True)
                if does in ("wait", "hang"):
                    time.sleep(60)
            finally:
                if does == "hang":
                    print("ending", flush=True)
                    time.sleep(60)
            if does.isdecimal():
                raise OSError(int(does), "The system\\nrefuses", "some/file")
            raise OSError("a loader's own sentence: do this")

main.run = run
app.run(main.main, flags_parser=main.parse_flags)
"""


def started(workdir, does):
    flags = [f"--config={ROOT}/configs/prm_math.py:runlocal", f"--workdir={workdir}"]
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, does, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_in_one_line_and_keeps_what_was_answered(tmp_path, number, status):
    process = started(tmp_path, "wait")
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == status
    assert told.split("\n")[-2:] == ["interrupted: run the same command to go on", ""] and "Traceback" not in told
    work = WorkDir(tmp_path)
    with work.lock():
        work.begin("solve", {}, {})
        with work.journal("solve") as journal:
            assert journal.get("p/1/0") == (Completion((2,)),)


def test_a_second_interrupt_kills_at_once(tmp_path):
    process = started(tmp_path, "hang")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (errno.ENOSPC, "error: some/file: The system refuses: free some space, then run the same command to go on"),
        (errno.EMFILE, "error: some/file: The system refuses: allow more open files (ulimit -n), then run the same"),
        (errno.EROFS, "error: some/file: The system refuses: give a --workdir that can be written"),
        (errno.EIO, "error: some/file: The system refuses: when it is mended, run the same command to go on"),
        ("raise", "error: a loader's own sentence: do this"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_line(tmp_path, does, said):
    process = started(tmp_path, str(does))
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1 and "Traceback" not in told
    assert told.strip().split("\n")[-1].startswith(said)
