"""A policy on benchmarks of mathematics: what is read, what is solved, and figures worked by hand."""

import json

import pytest
from real_data import folder
from tests_config import config_of

from spare_jax import main
from spare_jax.evaluation.statistics import bootstrap, macro_bootstrap
from spare_jax.pipelines import math_benchmarks
from spare_jax.records import Gold, Solution
from spare_jax.storage.jsonlines import read_json
from spare_jax.storage.store import WorkDir

ROWS = {
    "math500/math500.jsonl": [{"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$."}],
    "aime24/test.jsonl": [
        {"question": "What is $2+2$?", "answer": "4"},
        {"question": "What is $3+3$?", "answer": "6"},
    ],
}


def small_config(directory, **settings):
    config = config_of("math_benchmarks", "runlocal")
    config.data.path = str(directory)
    config.models.generator.path = "tiny-base"
    config.benchmarks = ("math500", "aime24")
    config.solve.max_tokens = 8
    config.engine.max_length = 256
    config.update_from_flattened_dict(settings)
    return config


def write_rows(directory):
    for name, rows in ROWS.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def solutions_of(problem_id, answers):
    found = []
    for k, answer in enumerate(answers):
        reason = "length" if answer == "0" else "stop"
        found.append(Solution(f"{problem_id}/{k}", problem_id, (f"\\boxed{{{answer}}}",), answer, reason))
    return found


def test_figures_are_shares_per_problem_and_means_over_benchmarks(tmp_path):
    work = WorkDir(tmp_path / "run")
    for name, answers in (("math500", ["2"]), ("aime24", ["4", "6"])):
        ids = [f"test-{name}-{k}" for k in range(len(answers))]
        work.write(f"gold/{name}", (Gold(i, (answer,)) for i, answer in zip(ids, answers, strict=True)))
    work.write("solutions/math500_greedy", solutions_of("test-math500-0", ["2.0"]))
    work.write("solutions/math500_sampled", solutions_of("test-math500-0", ["2", "0"]))
    # The second problem of aime24 could not be asked.
    work.write("solutions/aime24_greedy", solutions_of("test-aime24-0", ["5"]))
    work.write("solutions/aime24_sampled", solutions_of("test-aime24-0", ["4", "\\frac{8}{2}"]))
    config = small_config(tmp_path, stages=("math_benchmarks",))
    main.run(config, "math_benchmarks", str(work.path))
    metrics = read_json(work.path / "metrics.json")
    for way, math500, aime24, macro in (("greedy", 1.0, 0.0, 0.5), ("sampled", 0.5, 1.0, 0.75)):
        assert metrics["benchmarks"]["math500"][way]["accuracy"]["mean"] == math500
        assert metrics["benchmarks"]["aime24"][way]["accuracy"]["mean"] == aime24
        assert metrics["benchmarks"]["aime24"][way]["accuracy"]["n"] == 1
        assert metrics["benchmarks"]["aime24"][way]["accuracy"]["missing"] == {"no solution": 1}
        assert metrics["macro"][way]["mean"] == macro
        # One problem of three is missing: nothing to quote.
        assert metrics["headline"][f"macro.{way}.mean"] is None
        assert "no headline: 1 of 3" in metrics["reasons"][f"headline.macro.{way}.mean"]
    assert metrics["benchmarks"]["aime24"]["problems"] == 2
    assert metrics["benchmarks"]["math500"]["sampled"]["cut_off"] == 0.5


def test_a_mean_over_groups_counts_each_group_once():
    found = macro_bootstrap([[1.0, 0.0], [1.0] * 8], seed=3)
    assert found == {"mean": 0.75, "low": 0.5, "high": 1.0, "n": 10}
    one = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    alone, plain = macro_bootstrap([one], seed=1), bootstrap(one, seed=1)
    assert alone["mean"] == plain["mean"]
    assert [alone[end] for end in ("low", "high")] == pytest.approx([plain[end] for end in ("low", "high")], abs=0.1)


def test_benchmarks_are_solved_in_one_batch_and_not_again(tmp_path):
    write_rows(tmp_path / "data")
    config = small_config(tmp_path / "data")
    main.run(config, "math_benchmarks", str(tmp_path / "run"))
    work = WorkDir(tmp_path / "run")
    sampled = work.read("solutions/aime24_sampled")
    assert [solution.id.rsplit("/", 1)[1] for solution in sampled] == ["000", "001"] * 2
    assert [len(work.read(f"solutions/{name}_greedy")) for name in config.benchmarks] == [1, 2]
    metrics = (work.path / "metrics.json").read_bytes()
    main.run(config, "math_benchmarks", str(tmp_path / "run"))
    assert (work.path / "metrics.json").read_bytes() == metrics
    assert "solve_benchmarks" not in json.loads((work.path / "runs" / "2.json").read_text())
    config.benchmarks = ("aime24", "gaokao")
    with pytest.raises(ValueError, match="names 'gaokao': choose among math500, aime24"):
        main.run(config, "math_benchmarks", str(tmp_path / "other"))


def test_the_six_benchmarks_are_read_whole(tmp_path):
    for name in math_benchmarks.BENCHMARKS:
        (tmp_path / name).symlink_to(folder("math" if name == "math500" else f"competition/{name}"))
    config = small_config(tmp_path, stages=("load_benchmarks",), benchmarks=math_benchmarks.BENCHMARKS)
    config.data.test_problems = None
    main.run(config, "math_benchmarks", str(tmp_path / "run"))
    work = WorkDir(tmp_path / "run")
    sizes = [len(work.read(f"problems/{name}")) for name in config.benchmarks]
    assert sizes == [500, 30, 30, 40, 675, 272]
