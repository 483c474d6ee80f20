"""Does a change of the code change a result? Every pipeline in small, run before and after, and compared byte for byte.

    git worktree add ../before main && cp benchmarks/same_bytes.py ../before/benchmarks    where it has none yet
    python ../before/benchmarks/same_bytes.py make made/before
    python benchmarks/same_bytes.py make made/after
    python benchmarks/same_bytes.py compare made/before made/after

`make` runs the package, configs and table of the tree in which this file lies, on the CPU, seeds fixed, a process per
run; `compare` reads every file of both directories but what differs from run to run (UNLIKE), exported weights
included. A commit that renames a config key renames it in PIPELINES, so each tree is run by its own names. Compiled
functions are kept in JAX_COMPILATION_CACHE_DIR, by default that of the package, for all trees.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent

ENGINE = {"engine.slots": 8, "engine.max_length": 512, "engine.prefill_tokens": 1024}
MAIN_JOB = ENGINE | {
    "data.train_problems": 6, "data.dev_problems": 3, "data.test_problems": 6, "data.held_out_problems": 1,
    "solve.samples": 2, "annotate.max_tokens": 128, "annotate.measured_problems": 3, "annotate.control_problems": 2,
    "prm.train.batch_rows": 2, "prm.train.eval_every": 2, "prm.train.checkpoint_every": 2,
}  # fmt: skip
OFFLINE = ENGINE | {
    "data.train_problems": 10, "data.dev_problems": 4, "data.test_problems": 6, "data.held_out_problems": 1,
    "solve.max_tokens": 96, "annotate.max_tokens": 128,
}  # fmt: skip
GRPO = ENGINE | {
    "grpo.iterations": 2, "grpo.max_tokens": 64, "grpo.watch_every": 1, "grpo.checkpoint_every": 1,
    "verify.max_tokens": 160, "solve.max_tokens": 64,
}  # fmt: skip
SPARK_DATA = ENGINE | {
    "data.train_problems": 4, "data.dev_problems": 2, "data.test_problems": 3, "verify.votes": 2,
    "verify.max_tokens": 160, "solve.max_tokens": 64,
}  # fmt: skip
SPARK = {  # of each part
    "labels": SPARK_DATA,
    "verifiers": ENGINE | {
        "solve.max_tokens": 64, "generative.max_tokens": 256, "verifier.test_problems": 2,
        "verifier.train.row_length": 512, "verifier.train.learning_rate": 2e-3,
    },
    "rl": GRPO | SPARK_DATA | {
        "generative.max_tokens": 256, "grpo.train.learning_rate": 3e-4, "grpo.prompts": 1, "grpo.max_tokens": 48,
    },
}  # fmt: skip
ANNOTATE = ENGINE | {
    "data.path": "own.jsonl", "annotate.max_tokens": 128, "verify.max_tokens": 160, "verify.votes": 2,
    "rollouts.samples": 2, "rollouts.max_tokens": 96, "generative.kind": "prm_cot", "generative.max_tokens": 160,
    "models.generative.path": "tiny-verifier", "engine.max_length": 1024,
}  # fmt: skip
STUDY = {
    "engine.slots": 32, "engine.prefill_tokens": 1024, "annotate.max_tokens": 128, "verify.max_tokens": 400,
    "rollouts.max_tokens": 96, "solve.max_tokens": 128, "study.flips": (0.3,),
}  # fmt: skip
BENCHMARKS = {
    "data.path": "benchmarks", "models.generator.path": "tiny-base", "benchmarks": ("math500", "aime24"),
    "solve.max_tokens": 16, "engine.max_length": 256,
}  # fmt: skip
ANNOTATE_CONFIG = "annotate:task=arithmetic,runlocal"
JUDGES = ("spare", "alignment", "rollouts", "tree_search", "generative", "outcome")

# Of a pipeline: its runs, each a work directory below that of the pipeline, a config with its argument, and settings.
Run = tuple[str, str, dict[str, Any]]
PIPELINES: dict[str, list[Run]] = {
    "main_job": [
        ("run", "prm_math:runlocal", MAIN_JOB),
        ("labels", "prm_labels:runlocal", {"data.labels": "run/trl_stepwise.jsonl"}),
        ("score", "score:runlocal", {"data.path": "own.jsonl", "models.prm.path": "run/prm/export"}),
        ("reward_model", ANNOTATE_CONFIG, ANNOTATE | {"judge": "reward_model", "models.prm.path": "run/prm/export"}),
    ],
    "offline_rl": [
        ("run", f"offline_rl_study:runlocal,method={method},seed=3", OFFLINE) for method in ("step_dpo", "iterated")
    ],
    "spark": [
        ("run", f"spark_study:runlocal,part={part},cell={cell},seed=5", SPARK[part])
        for part, cell in (
            ("labels", ""), ("verifiers", "step_consistency_prm_cot"), ("verifiers", "agreement_discriminative"),
            ("rl", "step_augmented"),
        )
    ],
    "grpo": [("run", f"grpo:runlocal,reward={reward}", GRPO) for reward in ("process_aware", "rlvr")],
    "annotate": [
        *((judge, ANNOTATE_CONFIG, ANNOTATE | {"judge": judge}) for judge in JUDGES),
        ("verify", ANNOTATE_CONFIG, ANNOTATE | {"judge": "verify", "models.judge.path": "tiny-verifier"}),
        ("ensemble", ANNOTATE_CONFIG, ANNOTATE | {"judge": "ensemble", "ensemble.rule": "majority"}),
        ("processbench", "processbench:runlocal", {"data.path": "processbench.jsonl", "judge": "alignment"}),
    ],
    "annotation_study": [("run", "annotation_study:runlocal", STUDY)],
    "search_study": [("run", "search_study:runlocal", ENGINE)],
    "tiny_models": [("run", "tiny_models:runlocal", {})],
    "math_benchmarks": [("run", "math_benchmarks:runlocal", BENCHMARKS)],
}  # fmt: skip

QUESTION = "Mia has 3 red pens and 4 blue pens. Tom has twice as many pens as Mia. How many pens does Tom have?"
REFERENCE = ["Mia has 3 + 4 = 7 pens.", "Tom has 2 * 7 = 14 pens.", "The answer is 14."]
WRONG = ["Mia has 3 + 4 = 8 pens.", "Tom has 2 * 8 = 16 pens.", "The answer is 16."]
# What a run reads that no config makes, by its path in the directory of the pipeline.
INPUTS: dict[str, list[dict[str, Any]]] = {
    "own.jsonl": [
        {"id": name, "question": QUESTION, "solution": steps, "reference": REFERENCE}
        for name, steps in (("right", REFERENCE), ("wrong", WRONG))
    ],
    "processbench.jsonl": [
        {"id": name, "problem": QUESTION, "steps": steps, "label": label, "reference_solution": "\n".join(REFERENCE),
         "final_answer_correct": label < 0, "generator": "none"}
        for name, steps, label in (("b-0", REFERENCE, -1), ("b-1", WRONG, 0), ("b-2", WRONG, 0), ("b-3", REFERENCE, -1))
    ],
    "benchmarks/math500/math500.jsonl": [{"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$."}],
    "benchmarks/aime24/test.jsonl": [{"question": f"What is ${k}+{k}$?", "answer": str(2 * k)} for k in (2, 3)],
}  # fmt: skip

# Settings by their names, what is read and when, seconds, and checkpoints, whose files are named at random.
UNLIKE = (
    "*/config.json", "*/manifests/*", "*/runs/*", "*/.lock", "*/seconds.jsonl", "*.seconds.json", "*/best/[0-9]*",
    "*/latest/[0-9]*", "*/events.out.*",
)  # fmt: skip
EXPORTED = "*/export/*"  # the config.json of a model is compared


def make(directory: pathlib.Path, names: list[str]) -> int:
    """Run pipelines, each in `directory`/<name>; returns how many have failed."""
    failed = 0
    for name in names or PIPELINES:
        place, started = directory / name, time.perf_counter()
        if place.exists():
            sys.exit(f"error: {place} is there already: delete it, or name another directory")
        for path, rows in INPUTS.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
        error = next(filter(None, (_run(place, *run) for run in PIPELINES[name])), None)
        failed += error is not None
        print(f"{name}: {error or f'{time.perf_counter() - started:.0f} s'}", flush=True)
    return failed


def _run(place: pathlib.Path, workdir: str, config: str, settings: dict[str, Any]) -> str | None:
    """One run; returns what it said last, where it has failed."""
    file, _, argument = config.partition(":")
    command = [sys.executable, "-m", "spare_jax.main", f"--workdir={workdir}"]
    command.append(f"--config={ROOT / 'configs' / file}.py:{argument}")
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    said = done.stderr.strip().splitlines() or ["nothing"]
    return f"{workdir}, {config}: exit status {done.returncode}: {said[-1]}" if done.returncode else None


def compare(before: pathlib.Path, after: pathlib.Path) -> int:
    """Print each file that differs or is missing, and a table of the pipelines; returns how many such files there are.

    Raises:
      FileNotFoundError: neither directory has a file to compare.
    """
    sums = [_sums(before), _sums(after)]
    paths = sorted(sums[0].keys() | sums[1].keys())
    if not paths:
        raise FileNotFoundError(f"neither {before} nor {after} has a file to compare: make them first")
    unlike = [path for path in paths if sums[0].get(path) != sums[1].get(path)]
    for path in unlike:
        lacking = next((side for side, found in zip((before, after), sums, strict=True) if path not in found), None)
        print(f"{path}: {f'missing in {lacking}' if lacking else 'differs'}")
    print("| pipeline | files | unlike | before | after |\n|---|---|---|---|---|")
    for name in dict.fromkeys(path.split("/")[0] for path in paths):
        of = [path for path in paths if path.split("/")[0] == name]
        whole = (_digest("".join(f"{p} {s.get(p)}\n" for p in of).encode())[:12] for s in sums)
        print(f"| {name} | {len(of)} | {len(set(of) & set(unlike))} | {' | '.join(whole)} |")
    return len(unlike)


def _sums(directory: pathlib.Path) -> dict[str, str]:
    """Of each file that is compared: its path in the directory, and the digest of what is compared of it."""
    paths = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {
        name: _digest(_without_seconds(path))
        for name, path in paths.items()
        if fnmatch.fnmatch(name, EXPORTED) or not any(fnmatch.fnmatch(name, pattern) for pattern in UNLIKE)
    }


def _without_seconds(path: pathlib.Path) -> bytes:
    """The bytes of a file, less the seconds in JSON and reports."""
    content = path.read_bytes()
    if path.name == "report.html":
        return re.sub("<td>[\\d.,]+\u202fs</td>".encode(), b"", content)
    if path.suffix == ".json" and b'"seconds' in content:
        kept = json.loads(content, object_pairs_hook=lambda pairs: {k: v for k, v in pairs if "seconds" not in k})
        return json.dumps(kept).encode()
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="run the pipelines of this tree")
    making.add_argument("directory", type=pathlib.Path)
    making.add_argument("pipelines", nargs="*", metavar="pipeline", help=f"all, or some of {', '.join(PIPELINES)}")
    comparing = commands.add_parser("compare", help="compare what was made")
    comparing.add_argument("before", type=pathlib.Path)
    comparing.add_argument("after", type=pathlib.Path)
    options = parser.parse_args(arguments)
    if options.command == "compare":
        sys.exit(compare(options.before, options.after) > 0)
    if unknown := set(options.pipelines) - PIPELINES.keys():
        making.error(f"there is no pipeline {min(unknown)}: choose among {', '.join(PIPELINES)}")
    sys.exit(make(options.directory, options.pipelines) > 0)


if __name__ == "__main__":
    main()
