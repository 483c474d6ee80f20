"""SPARK's stage I: the meta-critique, and the pipeline with a scripted model and with an embedded one."""

import collections
import dataclasses
import hashlib
import json
import re
import types

import pytest
from judge_cases import PROBLEM, TASK, TOKENIZER, ask, completion, solution
from tests_config import config_of

from spare_jax import main
from spare_jax.engines.scripted import Killed, ScriptedEngine
from spare_jax.judges.meta_critique import MetaCritiqueSettings, meta_critique
from spare_jax.judges.verify import VerifySettings, verifications
from spare_jax.pipelines import prm, spark_verifications
from spare_jax.prompts import generative, verify
from spare_jax.prompts import meta_critique as instructions
from spare_jax.prompts.solve import decode
from spare_jax.prompts.verify import StepVerification, format_verification
from spare_jax.records import Gold, Judgement, Solution, StepJudgement
from spare_jax.runs import models, settings, splits, stage
from spare_jax.runs.run import Run
from spare_jax.storage.store import WorkDir

DATA = ("sample_solutions", "verify_solutions", "targets")
STAGES = {**prm.STAGES, **spark_verifications.STAGES}
KINDS = (
    spark_verifications.FREE,
    spark_verifications.GUIDED,
    spark_verifications.AGREEMENT,
    spark_verifications.CRITIQUES,
)
FREE_MODES = ("single", "outcome_consistency", "step_consistency", "meta_critique", "hybrid")


def written(*labels, answer=True):
    return format_verification([StepVerification("check", "looked at", label) for label in labels], answer)


# The programs


def verify_settings(**changes):
    return VerifySettings(
        **{"max_length": 100_000, "max_tokens": 900, "judge": "verification", "grammar": False} | changes
    )


def test_n_verifications_are_one_request_whose_prompt_counts_once():
    texts = [written(True, False), written(False, False), "nothing to read"]
    program = verifications(TASK, PROBLEM, solution("a", "8"), TOKENIZER, verify_settings(votes=3, temperature=0.8))
    found, (request,) = ask(program, lambda request: tuple(map(completion, texts)))
    assert request.n == 3 and request.prefix is not None and request.ids == ()
    assert [said.judge for said in found] == ["verification_000", "verification_001", "verification_002"]
    assert [said.text for said in found] == texts
    assert [[step.label for step in said.steps] for said in found] == [[True, False], [False, False], [None, None]]
    assert [said.prompt_tokens for said in found] == [len(request.prefix.ids), 0, 0]
    assert [said.generated_tokens for said in found] == [len(completion(text).ids) for text in texts]
    assert [said.parsed for said in found] == [True, True, False]


def test_the_control_sees_the_expected_answer_and_nothing_else_differs():
    free = verify.render(TASK, PROBLEM, ("a", "8"), "Verify.")
    guided = verify.render(TASK, PROBLEM, ("a", "8"), "Verify.", ("8", "eight\nYes"))
    assert guided[0] == free[0]
    assert guided[1]["content"] == free[1]["content"] + "\nExpected answer: 8 or eight Yes"


class TestMetaCritique:
    initial = dataclasses.replace(
        Judgement("p/0", "verification_002", (StepJudgement(True), StepJudgement(True)), True), text=written(True, True)
    )

    def ask(self, answers, **changes):
        left = list(answers)
        settings = MetaCritiqueSettings(verify_settings(**changes))
        program = meta_critique(TASK, PROBLEM, solution("a", "8"), self.initial, TOKENIZER, settings)
        return ask(program, lambda request: (completion(left.pop(0)),))

    def test_initial_critique_merge(self):
        found, requests = self.ask(["Step 2 is a missed error.", written(True, False, answer=False)], temperature=0.8)
        critique, merged = found
        assert (critique.judge, merged.judge) == ("verification_002_critique", "verification_002_merged")
        assert critique.text == "Step 2 is a missed error." and not critique.steps
        assert [step.label for step in merged.steps] == [True, False] and merged.outcome is False
        assert merged.text == written(True, False, answer=False)
        assert [request.temperature for request in requests] == [0, 0]
        prompts = [decode(TOKENIZER, request.all_ids()) for request in requests]
        assert self.initial.text in prompts[0] and instructions.CRITIQUE in prompts[0]
        assert prompts[1].startswith(prompts[0]) and instructions.MERGE in prompts[1]
        assert requests[0].prefix == requests[1].prefix  # what was read for the critique is not read again
        for said, request in zip(found, requests, strict=True):
            assert said.prompt_tokens == len(request.all_ids())
            assert said.generated_tokens == len(completion(said.text).ids)

    def test_the_grammar_holds_the_merged_verification_alone(self):
        _, (first, second) = self.ask(["fine", written(True, True)], grammar=True)
        assert first.grammar is None and first.stop
        assert second.grammar == verify.grammar(2) and not second.stop

    def test_without_room_it_says_why(self):
        failure, requests = self.ask([], max_length=10)
        assert not requests and "no room" in failure.message and not failure.passing
        length = len(self.ask(["x", ""])[1][0].all_ids())
        failure, requests = self.ask(["y" * 30], max_length=length + 40)
        assert len(requests) == 1 and "no room" in failure.message


# The stages, with a model that answers by a digest of what it is asked


def chance(*parts):
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big") / 2**32


def answer(request):
    """Solutions of one to five steps, verifications that are wrong now and then or cut, and a critic who mends."""
    asked = decode(TOKENIZER, request.all_ids())
    completions = []
    for k in range(request.n):
        if "Verify each step." not in asked:
            steps = [f"step {i}" for i in range(int(5 * chance(asked, k)))]
            completions.append(completion("\n".join([*steps, f"The answer is {int(3 * chance(asked, k, 'a'))}."])))
        elif asked.endswith(f"{instructions.BRIEF_CRITIQUE}</s>\n<|user|>assistant: "):
            completions.append(completion("Look again."))
        else:
            n_steps = len(re.findall(r"^\[s[0-9]+\]", asked, re.MULTILINE))
            labels = [chance(asked, k, i) < 0.6 for i in range(n_steps)]
            yes = 0.2 if instructions.BRIEF_MERGE in asked else 0.6  # most of these answers are wrong
            text = written(*labels, answer=chance(asked, k, "y") < yes)
            completions.append(completion(text if chance(asked, k, "cut") < 0.9 else text[: len(text) // 2]))
    return tuple(completions)


class Engine(ScriptedEngine):
    @property
    def stats(self):
        return {}


class ScriptedRun(Run):
    """A run whose models are `answer`; what they were asked is in `prompts`."""

    kill_after = None


@pytest.fixture(scope="module", autouse=True)
def scripted_models():
    loaded, started = models.load_to_ask, models.engine

    def load_to_ask(run, *named):
        if not isinstance(run, ScriptedRun):
            return loaded(run, *named)
        return types.SimpleNamespace(tokenizer=TOKENIZER, config=types.SimpleNamespace(max_length=10**6))

    def engine(run, *args, **how):
        if not isinstance(run, ScriptedRun):
            return started(run, *args, **how)

        def remembered(request):
            run.prompts.append(decode(TOKENIZER, request.all_ids()))
            return answer(request)

        return Engine(remembered, per_poll=3, kill_after=run.kill_after)

    with pytest.MonkeyPatch.context() as patch:
        for module in (models, spark_verifications):
            patch.setattr(module, "load_to_ask", load_to_ask)
        patch.setattr(models, "engine", engine)
        yield


def execute(run, names):
    stage.execute(run, stage.chosen(names, STAGES), run.config.to_dict())


def scripted(path, controls=False, problems=True):
    config = config_of("spark", "runlocal,controls" if controls else "runlocal")
    config.data.train_problems = 16
    config.solve.samples, config.verify.votes, config.engine.max_length = 3, 3, 10**6
    work = WorkDir(path)
    work.path.mkdir(exist_ok=True)
    run = ScriptedRun(work, splits.task_of("arithmetic"), 0, None)
    run.config, run.prompts = config, []
    if problems:
        work.write("problems", load(config).problems)
    return run


def load(config):
    return splits.load("arithmetic", 0, settings.read(splits.ProblemData, config.data.to_dict(), "config.data"))


def records(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*.json*")) if "runs" not in p.parts}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with the control and its figures."""
    run = scripted(tmp_path_factory.mktemp("made"), controls=True, problems=False)
    execute(run, run.config.stages)
    return run


@pytest.fixture
def no_gold(monkeypatch):
    """No Gold can be made or read, and problems cannot be loaded together with theirs."""

    def refuse(*_, **__):
        raise AssertionError("gold was touched")

    monkeypatch.setattr(Gold, "__init__", refuse)
    monkeypatch.setattr(splits, "load", refuse)
    read = WorkDir.read
    monkeypatch.setattr(WorkDir, "read", lambda self, kind, *a: refuse() if kind == "gold" else read(self, kind, *a))
    monkeypatch.setattr(Run, "records", refuse)


def test_reference_free_targets_are_made_where_there_is_no_gold(tmp_path, request):
    run = scripted(tmp_path)
    run.config.spark.targets = (*FREE_MODES, "agreement")
    request.getfixturevalue("no_gold")
    execute(run, (*DATA[:2], "verify_by_agreement", DATA[2]))
    assert not (tmp_path / "gold.jsonl").exists()
    for mode in run.config.spark.targets:
        assert run.work.read(f"judgements/targets_{mode}"), mode
    assert run.prompts and not any("Expected answer" in prompt for prompt in run.prompts)


def test_the_same_bytes_whether_there_is_gold_or_not(made, tmp_path):
    run = scripted(tmp_path)
    execute(run, DATA)
    there = records(made.work.path)
    for name, found in records(tmp_path).items():
        if name.endswith(".jsonl") or ("counts" in name):
            assert found == there[name], name


def test_the_control_fails_where_gold_must_not_be_seen(tmp_path, request):
    run = scripted(tmp_path, controls=True)
    execute(run, DATA[:2])
    with pytest.raises(ValueError, match=r"stage verify_guided needs .*gold\.jsonl"):
        execute(run, ["verify_guided"])
    run.work.write("gold", load(run.config).gold)
    request.getfixturevalue("no_gold")
    with pytest.raises(AssertionError, match="gold was touched"):
        execute(run, ["verify_guided"])


def test_no_data_stage_but_the_control_has_gold_among_its_inputs():
    for name in (*DATA, "verify_by_agreement"):
        assert not any("gold" in path for path in (*STAGES[name].needs, *STAGES[name].reads))
    assert "verify_guided" not in config_of("spark").stages and "verify_guided" not in config_of("spark_math").stages
    assert config_of("spark", "controls").stages[-4:] == (
        "verify_guided", "verify_by_agreement", "targets", "spark_data",
    )  # fmt: skip


def test_the_control_alone_is_shown_the_answer(made):
    shown = {prompt for prompt in made.prompts if "Expected answer: " in prompt}
    gold = made.work.read("gold")
    verified = [s for s in made.work.read("solutions") if s.steps]
    assert len([p for p in made.prompts if p in shown]) == len(verified)
    answers = {re.search(r"Expected answer: (.*?)</s>", prompt)[1] for prompt in shown}
    assert answers <= {" or ".join(g.answers) for g in gold}


def test_targets_are_verifications_that_the_verifier_wrote(made):
    said = {kind: collections.defaultdict(list) for kind in KINDS}
    for kind, of_solution in said.items():
        for row in made.work.read(kind):
            of_solution[row.solution_id].append(row.text)
    for name, mode in spark_verifications.MODES.items():
        of_controls = {"reference_guided": spark_verifications.GUIDED, "agreement": spark_verifications.AGREEMENT}
        source = spark_verifications.CRITIQUES if mode.critique else of_controls.get(name, spark_verifications.FREE)
        targets = made.work.read(f"judgements/targets_{name}")
        assert targets
        for target in targets:
            assert generative.target("prm_cot", target) in said[source][target.solution_id]
            assert target.judge == f"targets_{name}"
            n_steps = len(target.steps)
            assert generative.parse("prm_cot", target.text, n_steps).is_whole(n_steps)
            voted = [step.score is not None for step in target.steps]
            assert voted == [name in ("outcome_consistency", "step_consistency", "reference_guided")] * len(voted)


def test_what_becomes_of_every_solution_is_counted(made):
    metrics = json.loads((made.work.path / "metrics.json").read_text())
    free = made.work.read(spark_verifications.FREE)
    solutions = {row.solution_id for row in free}
    n = made.config.verify.votes
    critiques = {row.id for row in made.work.read(spark_verifications.CRITIQUES)}
    of_modes = metrics["targets"]
    assert metrics["verified"] == len(solutions) and len(free) == n * len(solutions)
    for name, counted in of_modes.items():
        assert counted["solutions"] == len(solutions) == counted["kept"] + sum(counted["dropped"].values()), name
        assert counted["kept"] == len(made.work.read(f"judgements/targets_{name}")) == counted["quality"]["n_solutions"]
        assert 0 < counted["kept_share"] < 1 or (name, counted["kept_share"]) == ("agreement", 1)
    assert of_modes["single"]["passes"] == len(solutions)
    assert of_modes["agreement"]["passes"] == of_modes["agreement"]["tokens"] == 0
    # N is the same in all modes that compare verifications.
    for name in ("outcome_consistency", "step_consistency", "reference_guided"):
        assert of_modes[name]["passes"] == n * len(solutions)
        assert of_modes[name]["passes_per_problem"] == n * len(solutions) / metrics["problems"]
    assert of_modes["meta_critique"]["passes"] == 3 * len(solutions)
    chosen = len(solutions) - sum(of_modes["hybrid"]["dropped"][why] for why in ("no_verdict", "tie", "no_match"))
    assert of_modes["hybrid"]["passes"] == n * len(solutions) + 2 * chosen
    assert of_modes["step_consistency"]["tokens"] == sum(row.prompt_tokens + row.generated_tokens for row in free)
    first = [row for row in free if row.judge.endswith("_000")]
    assert of_modes["single"]["tokens"] == sum(row.prompt_tokens + row.generated_tokens for row in first)
    assert len(critiques) == 2 * len({i.rpartition("_")[0] for i in critiques})
    dropped = collections.Counter()
    for counted in of_modes.values():
        dropped.update(counted["dropped"])
    assert all(dropped[why] for why in ("tie", "no_match", "malformed")), dropped
    for name in ("meta_critique", "hybrid"):
        for counted in of_modes[name]["critique"].values():
            assert counted["changed"] == counted["fixed"] + counted["broke"] and counted["changed"] > 0


def test_figures_are_those_of_the_targets_against_the_truth(made):
    metrics = json.loads((made.work.path / "metrics.json").read_text())
    problems, gold = ({getattr(r, key): r for r in made.work.read(kind)} for kind, key in
                      (("problems", "id"), ("gold", "problem_id")))  # fmt: skip
    solutions = {s.id: s for s in made.work.read("solutions")}
    for name in spark_verifications.MODES:
        right = answers = steps = 0
        targets = made.work.read(f"judgements/targets_{name}")
        for target in targets:
            s = solutions[target.solution_id]
            verdicts = made.task.world.judge(problems[s.problem_id], gold[s.problem_id], s.steps)
            right += sum(step.label == v.correct for step, v in zip(target.steps, verdicts, strict=True))
            steps += len(verdicts)
            answers += target.outcome == (s.answer in gold[s.problem_id].answers)
        quality = metrics["targets"][name]["quality"]
        assert quality["step_accuracy"] == pytest.approx(right / steps)
        assert quality["outcome_accuracy"] == pytest.approx(answers / len(targets))


def test_a_target_that_was_criticised_has_all_that_was_written(made):
    said = {row.id: row for row in made.work.read(spark_verifications.CRITIQUES)}
    first = {row.solution_id: row for row in made.work.read(spark_verifications.FREE) if row.judge.endswith("_000")}
    targets = made.work.read("judgements/targets_meta_critique")
    for target in targets:
        row = first[target.solution_id]
        parts = row.text, *(said[f"{row.id}_{part}"].text for part in spark_verifications.PARTS)
        assert target.text == generative.format_critique(*parts)
        assert generative.target("prm_critique", target) in (target.text, None)
        assert generative.target("prm_cot", target) == parts[-1]
    assert targets and any(generative.target("prm_critique", target) for target in targets)


def test_fixed_and_broke_are_those_of_the_first_verification_and_its_critique(made):
    golds = {g.problem_id: g for g in made.work.read("gold")}
    problems, solutions = ({r.id: r for r in made.work.read(kind)} for kind in ("problems", "solutions"))
    merged = {row.id: row for row in made.work.read(spark_verifications.CRITIQUES)}
    found = {part: collections.Counter() for part in ("steps", "answers")}
    for row in made.work.read(spark_verifications.FREE):
        if not row.judge.endswith("_000"):
            continue
        after, s = merged[f"{row.id}_merged"], solutions[row.solution_id]
        gold = golds[s.problem_id]
        verdicts = made.task.world.judge(problems[s.problem_id], gold, s.steps)
        pairs = [("answers", row.outcome, after.outcome, s.answer in gold.answers)]
        for old, new, verdict in zip(row.steps, after.steps, verdicts, strict=True):
            pairs.append(("steps", old.label, new.label, verdict.correct))
        for part, old, new, real in pairs:
            if old is not None and new is not None:
                found[part].update(n=1, changed=old != new, fixed=old != new == real, broke=new != old == real)
    metrics = json.loads((made.work.path / "metrics.json").read_text())
    assert metrics["targets"]["meta_critique"]["critique"] == found
    assert all(of["fixed"] != of["broke"] for of in found.values())  # so that one cannot stand for the other


@pytest.mark.parametrize("stage", ["verify_solutions", "targets"])
def test_killed_and_restarted_it_writes_the_same_bytes(made, tmp_path, stage):
    run = scripted(tmp_path)
    execute(run, DATA[: DATA.index(stage)])
    asked = 0
    for kill_after in (2, 5):
        run = scripted(tmp_path, problems=False)
        run.kill_after = kill_after
        with pytest.raises(Killed):
            execute(run, [stage])
        assert not (tmp_path / "verifications/critiques.jsonl").exists()
        asked += kill_after
    run = scripted(tmp_path, problems=False)
    execute(run, DATA)
    for name, found in records(tmp_path).items():
        if name.endswith(".jsonl") or "counts" in name:
            assert found == (made.work.path / name).read_bytes(), name
    once = scripted(tmp_path / "once")
    execute(once, DATA[: DATA.index(stage)])
    once.prompts.clear()
    execute(once, [stage])
    later = len(run.prompts) if stage == "targets" else len([p for p in run.prompts if p in once.prompts])
    assert later < len(once.prompts)  # some of it had been answered


def test_verifications_of_other_solutions_change_nothing(made, tmp_path):
    run = scripted(tmp_path)
    execute(run, DATA)
    rows = run.work.read(spark_verifications.FREE)
    mine = {target.solution_id for target in run.work.read("judgements/targets_hybrid")}
    chosen = sorted(mine)[0]
    before = {m: [t for t in run.work.read(f"judgements/targets_{m}") if t.solution_id == chosen] for m in FREE_MODES}
    n = run.config.verify.votes
    turned = [
        row if row.solution_id == chosen
        else dataclasses.replace(row, judge=f"verification_{n - 1 - int(row.judge[-3:]):03d}")
        for row in rows
    ]  # fmt: skip
    run.work.write(spark_verifications.FREE, turned)
    (tmp_path / "manifests/targets.json").unlink()
    single = run.work.file("judgements/targets_single").read_bytes()
    execute(run, ["targets"])
    assert run.work.file("judgements/targets_single").read_bytes() != single  # the others' have changed
    for mode in FREE_MODES:
        assert [t for t in run.work.read(f"judgements/targets_{mode}") if t.solution_id == chosen] == before[mode]


def test_a_solution_that_could_not_be_verified_is_counted(tmp_path):
    run = scripted(tmp_path)
    execute(run, DATA[:1])
    longest = max(len(s.steps) for s in run.work.read("solutions"))
    short = [s for s in run.work.read("solutions") if len(s.steps) < longest]
    empty = Solution("train-0000/999", short[0].problem_id, (), None, "stop")
    long = dataclasses.replace(short[0], id="train-0000/998", steps=("x" * 5000,))
    run.work.write("solutions", [*short, empty, long])
    (tmp_path / "manifests/sample_solutions.json").unlink()
    run.config.engine.max_length = 4000
    execute(run, DATA[1:])
    rows = {row.solution_id: row for row in run.work.read(spark_verifications.FREE)}
    assert "no room" in rows[long.id].failure and empty.id not in rows
    assert long.id not in {row.solution_id for row in run.work.read(spark_verifications.CRITIQUES)}
    for mode in FREE_MODES:
        counts = json.loads((tmp_path / f"judgements/targets_{mode}.counts.json").read_text())
        assert counts["dropped"]["failed"] == 1 and counts["solutions"] == len(short) + 1


def test_texts_that_were_cut_off_cast_no_vote_and_are_no_target(tmp_path, monkeypatch):
    """Verifications and critiques, whatever verdicts they had come to before."""

    def cutting(request, whole=answer):
        asked = decode(TOKENIZER, request.all_ids())
        return tuple(
            dataclasses.replace(said, finish_reason="length")
            if "Verify each step." in asked and chance(asked, k, "length") < 0.4
            else said
            for k, said in enumerate(whole(request))
        )

    monkeypatch.setitem(globals(), "answer", cutting)
    run = scripted(tmp_path)
    execute(run, (*DATA[:2], DATA[2]))
    rows, critiques = run.work.read(spark_verifications.FREE), run.work.read(spark_verifications.CRITIQUES)
    readable = collections.Counter({row.solution_id: 0 for row in rows})
    readable.update(row.solution_id for row in rows if not row.failure)
    voted = collections.Counter(map(str, readable.values()))
    assert set(voted) == set("0123")  # of three each
    whole = {(row.solution_id, row.text) for row in (*rows, *critiques) if not row.failure}
    without_critique = {row.solution_id for row in critiques if row.failure and row.judge == "verification_000_merged"}
    assert all("was cut off after" in row.failure for row in critiques if row.failure) and without_critique
    for mode in FREE_MODES:
        counts = json.loads((tmp_path / f"judgements/targets_{mode}.counts.json").read_text())
        targets = run.work.read(f"judgements/targets_{mode}")
        assert counts["solutions"] == len(readable) == counts["kept"] + sum(counts["dropped"].values())
        assert len(targets) == counts["kept"] > 0 and not any(said.failure for said in targets)
        assert {(said.solution_id, generative.target("prm_cot", said)) for said in targets} <= whole
        assert mode != "meta_critique" or not without_critique & {said.solution_id for said in targets}
        if mode in ("outcome_consistency", "step_consistency"):
            assert counts["voted"] == voted and counts["dropped"]["failed"] == voted["0"]
            assert counts["passes"] == len(rows)  # what was cut off has been paid for


def test_what_is_misspelt_is_told_before_anybody_is_asked(tmp_path):
    for n, (key, value, words) in enumerate(
        (("targets", ("both",), "names 'both': choose among single"), ("tie", "x", "tie='x' is unknown"))
    ):
        run = scripted(tmp_path / str(n))
        execute(run, DATA[:1])
        run.config.spark[key] = value
        run.prompts.clear()
        with pytest.raises(ValueError, match=words):
            execute(run, DATA[1:])
        assert not run.prompts


def test_an_embedded_model_writes_whole_verifications(tmp_path):
    config = config_of("spark", "runlocal,controls")
    config.data.train_problems, config.data.dev_problems = 2, 1
    config.engine.update(slots=8, prefill_tokens=1024)
    config.solve.max_tokens = 64
    config.verify.update(votes=2, max_tokens=160)
    main.run(config, "spark", str(tmp_path))
    work = WorkDir(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["targets"]) == set(spark_verifications.MODES)
    for kind in (spark_verifications.FREE, spark_verifications.GUIDED):
        rows = work.read(kind)
        assert len(rows) == 2 * metrics["verified"] > 0
        for row in rows:
            assert row.failure or re.fullmatch(verify.grammar(len(row.steps)).pattern, row.text)
    assert metrics["targets"]["single"]["kept"] > 0
    assert all(counted["dropped"]["malformed"] == 0 for counted in metrics["targets"].values())
    before = records(tmp_path)
    main.run(config, "spark", str(tmp_path))
    assert records(tmp_path) == before


def test_the_paper_s_settings():
    config = config_of("spark_math", "controls")
    solve, asked = config.solve, config.verify
    assert (solve.samples, solve.temperature, solve.top_p, solve.max_tokens) == (8, 0.7, 0.95, 8192)
    assert (asked.votes, asked.temperature, asked.top_p, asked.guidelines) == (16, 0.8, 0.95, "")
    assert config.spark.targets[-2:] == ("reference_guided", "agreement") and config.data.train_problems == 8000


def test_a_text_of_which_no_tokens_are_known_was_a_pass():
    """As of a server that says nothing of its usage; agreement asks nobody."""
    said = Judgement("s", "verification_000", (StepJudgement(label=True),), True, "It is right.")
    choice = spark_verifications.consistency.single([said], spark_verifications.ConsistencySettings())
    for mode, passes in (("single", 1), ("agreement", 0)):
        _, counts = spark_verifications.make_targets(
            mode, [choice], {}, spark_verifications.QualityFilter(grammar=False)
        )
        assert counts.passes == passes and counts.kept == 1
