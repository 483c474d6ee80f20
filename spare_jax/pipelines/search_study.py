"""The search study: search guided by a PRM against choosing among plain samples, at equal tokens.

sample        plain samples of the test problems, their scores by the PRM
              -> solutions/plain, judgements/plain, reading.json
search        every search of `config.study` on the same problems
              -> solutions/<name>, judgements/<name>, search_tokens.json
search_study  both, derived
              -> metrics.json

Policy and PRM come from the stages before (solve, judge, train_prm). Tokens are those that were generated, those that
the PRM read, and the policy's prompt. What stands behind the same text is read once, by a search and for plain samples
alike, and majority has no PRM. A problem on which sampling or a search failed is missing from its figures.
"""

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.accuracy import Pool, aggregate_all, chosen_right, oracle, pass_at_n, why_missing
from spare_jax.evaluation.curves import right_by_n, subsets
from spare_jax.evaluation.missing import tally
from spare_jax.evaluation.statistics import mean_or_none, paired_bootstrap
from spare_jax.judges.conventions import Reader
from spare_jax.judges.outcome import is_correct
from spare_jax.judges.reward_model import LayOut
from spare_jax.judges.truth import truth
from spare_jax.models import huggingface
from spare_jax.models.huggingface import Checkpoint
from spare_jax.pipelines import prm as main_job
from spare_jax.pipelines.cells import cell
from spare_jax.records import Case, Gold, Problem, Solution
from spare_jax.runs import ask, solving, splits
from spare_jax.runs.models import EngineSettings, Generator, WithJudge, load, load_to_ask, max_length
from spare_jax.runs.models import engine as on_engine
from spare_jax.runs.run import Run, answer, need_all_answers
from spare_jax.runs.stage import Stage, chosen
from spare_jax.selection.aggregate import aggregate
from spare_jax.selection.voting import candidates
from spare_jax.solvers.beam import SearchResult, SearchSettings, read_before_steps, search
from spare_jax.solvers.sample import SolveSettings

RULES = ("majority", "weighted", "best_of_n")
VALUED_BY = ("last", "min")  # what a solution or its beginning is worth: the last step's score, or the worst one's
PRM = "prm/export"


def _tested(run: Run) -> list[Problem]:
    return [problem for problem in run.work.read("problems") if splits.split_of(problem.id) == "test"]


@dataclasses.dataclass(frozen=True)
class StepLimits:
    """The most tokens of a step, and the most steps of a solution."""

    max_tokens: int = 64
    max_steps: int = 16


@dataclasses.dataclass(frozen=True)
class Study:
    """So many plain `samples` of a problem, and the searches by their names, which sample steps within limits."""

    samples: int = 128
    steps: StepLimits = StepLimits()
    searches: Mapping[str, SearchSettings] = dataclasses.field(default_factory=dict)


def _prm(run: Run) -> tuple[Checkpoint, Reader, LayOut]:
    checkpoint = huggingface.load(run.work.path / PRM, mesh=run.inference_mesh)
    reader = ask.reader(run.task, checkpoint)
    assert reader.lay_out is not None  # what train_prm exports reads a text once
    return checkpoint, reader, reader.lay_out


# sample


def sample(run: Run, models: Generator, engine: EngineSettings, solve: SolveSettings, study: Study) -> list[str]:
    """Sample `study.samples` plain solutions of every test problem, and have the PRM score them.

    reading.json says what it reads: per problem the tokens before any step, per solution those of every step.
    """
    problems = {problem.id: problem for problem in _tested(run)}
    policy, how = load_to_ask(run, models.generator), dataclasses.replace(solve, samples=study.samples)
    solving.solve(run, "sample", policy, list(problems.values()), engine, how, kind="solutions/plain")
    need_all_answers(run, "sample")
    solutions = run.work.read("solutions/plain")

    first = {(s.problem_id, s.token_ids): s for s in reversed(solutions)}  # equal samples are scored once
    cases = [Case(problems[s.problem_id], s) for s in first.values()]
    checkpoint, reader, lay_out = _prm(run)
    judged = ask.ask(run, "sample", ask.scorer(run, checkpoint, engine, reader, "plain"), cases)
    of = dict(zip(first, judged, strict=True))
    run.work.write(
        "judgements/plain",
        (dataclasses.replace(of[s.problem_id, s.token_ids], solution_id=s.id) for s in solutions),
    )

    before = {problem_id: len(read_before_steps(lay_out, problem)) for problem_id, problem in problems.items()}
    read = {}
    for s in solutions:
        ends = [position + 1 for position in lay_out(problems[s.problem_id], s)[1]] if s.steps else []
        read[s.id] = [b - a for a, b in itertools.pairwise([before[s.problem_id], *ends])]
    run.work.write_json("reading.json", {"before_steps": before, "steps": read})
    return ["solutions/plain.jsonl", "judgements/plain.jsonl", "reading.json"]


# search


def search_all(run: Run, models: Generator, engine: EngineSettings, solve: SolveSettings, study: Study) -> list[str]:
    """Run every search of the study on the test problems."""
    policy = load(run, models.generator)
    prm, reader, lay_out = _prm(run)
    spent, written = {}, ["search_tokens.json"]
    for name, how in study.searches.items():
        settings = dataclasses.replace(
            how,
            max_length=min(max_length(policy, engine), max_length(prm, engine)),
            tokenizer_digest=huggingface.tokenizer_digest(policy.tokenizer),
            temperature=solve.temperature,
            top_p=solve.top_p,
            **vars(study.steps),
        )
        started = {
            f"{name}/{p.id}": functools.partial(search, run.task, p, policy.tokenizer, lay_out, settings)
            for p in _tested(run)
        }
        engines = {
            settings.model: on_engine(run, policy, engine, settings.max_tokens),
            settings.prm: on_engine(run, prm, engine, reader.max_tokens, reader.read_out),
        }
        found: list[SearchResult | None] = answer(run, "search", name, engines, started, or_else=lambda *_: None)
        run.work.write(f"solutions/{name}", (s for of in found if of for s in of.solutions))
        run.work.write(f"judgements/{name}", (j for of in found if of for j in of.judgements))
        written += [f"solutions/{name}.jsonl", f"judgements/{name}.jsonl"]
        spent[name] = {
            kind: {
                program.split("/")[1]: of and getattr(of, f"{kind}_tokens")
                for program, of in zip(started, found, strict=True)
            }
            for kind in ("prompt", "generated", "scored")
        }
    run.work.write_json("search_tokens.json", spent)
    return written


# search_study


def search_study(run: Run, models: WithJudge, study: Study) -> list[str]:
    """metrics.json: the curves of plain sampling, every search against them at equal tokens, and how well the PRM
    tells steps apart."""
    problems, gold = _tested(run), {g.problem_id: g for g in run.work.read("gold")}
    plain = _of_problem(problems, run.work.read("solutions/plain"))
    curves = _curves(run, study.samples, plain, gold)
    spent = run.work.read_json("search_tokens.json")
    searches = {}
    for name, tokens in spent.items():
        found = _of_problem(problems, run.work.read(f"solutions/{name}"))
        searches[name] = _against(run, name, study.searches[name].aggregation, curves, found, gold, tokens)
    measured = {
        "problems": len(problems),
        "plain": {rule: curve.to_json() for rule, curve in curves.items()},
        "searches": searches,
        "prm_tells_apart": _tells_apart(run, problems, plain, gold),
    }
    run.work.write_json("metrics.json", cell(run, models, study, measured))
    return ["metrics.json"]


def _of_problem(problems: Sequence[Problem], solutions: Sequence[Solution]) -> dict[str, list[Solution]]:
    found: dict[str, list[Solution]] = {problem.id: [] for problem in problems}
    for solution in solutions:
        found[solution.problem_id].append(solution)
    return found


def _pools(run: Run, found: Mapping[str, Sequence[Solution]], gold: Mapping[str, Gold]) -> list[Pool]:
    return [
        Pool(
            problem_id,
            candidates([s.answer for s in several], run.task.answers_equal),
            tuple(is_correct(run.task, gold[problem_id], s) for s in several),
        )
        for problem_id, several in found.items()
    ]


def _values(run: Run, name: str, found: Mapping[str, Sequence[Solution]], how: str) -> list[list[float | None] | None]:
    """The value of each solution by the PRM's scores, in the order of `found`; None for a problem where the PRM failed
    on one."""
    judged = run.judgements(name)

    def scores(solution: Solution) -> list[float | None] | None:
        said = judged[solution.id]
        return None if said.failure else [step.score for step in said.steps]

    return aggregate_all([[scores(s) for s in of] for of in found.values()], how)


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a rule comes to on n plain samples: for every n its mean tokens per problem, float [sizes], and how often it
    is right, float [sizes, problems], NaN where a problem is missing."""

    n: tuple[int, ...]
    tokens: np.ndarray
    right: np.ndarray

    def at(self, tokens: float) -> tuple[float, np.ndarray]:
        """The number of samples for so many tokens, drawn straight between two sizes, and how often each problem is
        right then; no more than the largest size and no less than the smallest."""
        place = float(np.interp(tokens, self.tokens, np.arange(len(self.n))))
        low = min(int(place), len(self.n) - 2)
        share = place - low
        if share == 0.0:
            return float(self.n[low]), self.right[low]
        n = (1 - share) * self.n[low] + share * self.n[low + 1]
        return n, (1 - share) * self.right[low] + share * self.right[low + 1]

    def to_json(self) -> dict[str, Any]:
        """The curve as it stands in metrics.json."""
        return {"n": self.n, "tokens": self.tokens.tolist(), "accuracy": [mean_or_none(of) for of in self.right]}


def _curves(
    run: Run, largest: int, plain: Mapping[str, Sequence[Solution]], gold: Mapping[str, Gold]
) -> dict[str, Curve]:
    """Of majority, of the PRM's rules under every aggregation ("weighted_min"), and of the choice that is right where
    any sample is ("oracle")."""
    pools, seed = _pools(run, plain, gold), run.seed
    sizes = (*(n for n in _SIZES if n < largest), largest)
    reading = run.work.read_json("reading.json")
    tokens = np.array([tokens_by_n(of, reading, sizes, seed) for of in plain.values() if of]).mean(axis=0)
    alone, read = tokens[:, 0], tokens[:, 1]
    curves = {
        "majority": Curve(sizes, alone, right_by_n(pools, "majority", sizes, seed=seed)),
        "oracle": Curve(sizes, alone, np.array([[pass_at_n([p], n) for p in pools] for n in sizes], dtype=np.float64)),
    }
    for how in VALUED_BY:
        values = _values(run, "plain", plain, how)
        for rule in ("weighted", "best_of_n"):
            curves[f"{rule}_{how}"] = Curve(sizes, read, right_by_n(pools, rule, sizes, values, seed))
    return curves


_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def tokens_by_n(
    solutions: Sequence[Solution], reading: Mapping[str, Any], sizes: Sequence[int], seed: int
) -> list[tuple[float, float]]:
    """Tokens of n of one problem's plain samples, for every n of `sizes`, without a PRM and with one.

    The prompt once, what was generated, and for the PRM its prompt and every step that no other of the n samples has
    behind the same steps: a mean over the subsets that `right_by_n` takes.

    Args:
      solutions: all samples of the problem, of which there are some.
      reading: reading.json.
    """
    nodes: dict[tuple[tuple[int, ...], ...], int] = {}
    weights: list[int] = []
    holds: list[list[int]] = []
    for s in solutions:
        path = [s.token_ids[a:b] for a, b in s.spans]
        holds.append([])
        for i, tokens in enumerate(reading["steps"][s.id], 1):
            node = nodes.setdefault(tuple(path[:i]), len(nodes))
            weights += [tokens] * (node == len(weights))
            holds[-1].append(node)
    held = np.zeros((len(solutions), len(nodes)), dtype=int)
    for row, of in zip(held, holds, strict=True):
        row[of] = 1
    generated = np.array([len(s.token_ids) for s in solutions])
    found = []
    for n in sizes:
        drawn = subsets(len(solutions), min(n, len(solutions)), seed).astype(int)
        alone = solutions[0].prompt_tokens + (drawn @ generated).mean()
        read = reading["before_steps"][solutions[0].problem_id] + ((drawn @ held > 0) @ np.array(weights)).mean()
        found.append((float(alone), float(alone + read)))
    return found


def _against(
    run: Run,
    name: str,
    aggregation: str,
    curves: Mapping[str, Curve],
    found: Mapping[str, Sequence[Solution]],
    gold: Mapping[str, Gold],
    spent: Mapping[str, Mapping[str, int | None]],
) -> dict[str, Any]:
    """A search's row: what it took and came to, what plain sampling comes to for as many tokens, and the paired
    differences."""
    pools, seed = _pools(run, found, gold), run.seed
    values = _values(run, name, found, aggregation)
    tokens = {kind: mean_or_none(list(of.values())) or 0.0 for kind, of in spent.items()}
    total = sum(tokens.values())
    ours = {rule: chosen_right(pools, rule, values, seed) for rule in RULES}
    theirs = {rule: curve.at(total) for rule, curve in curves.items()}
    equal = {}
    for rule, curve in curves.items():
        nearest, (n, right) = int(np.abs(curve.tokens - total).argmin()), theirs[rule]
        equal[rule] = {
            "n": float(n),
            "accuracy": mean_or_none(right),
            "nearest": {of: values[nearest] for of, values in curve.to_json().items()},
        }
    return {
        "tokens": {"total": total, **tokens},
        "solutions": mean_or_none([len(of) for of in found.values() if of]),
        "answers": mean_or_none([len({s.answer for s in of}) for of in found.values() if of]),
        "accuracy": {rule: mean_or_none(right) for rule, right in ours.items()} | {"oracle": oracle(pools)},
        "missing": {
            rule: tally(why_missing(pools, right, None if rule == "majority" else values))
            for rule, right in ours.items()
        },
        "plain_for_as_much": equal,
        "minus_plain": {
            mine: {
                rule: paired_bootstrap(ours[mine], right, seed)
                for rule, (_, right) in theirs.items()
                if rule != "oracle"
            }
            for mine in ("weighted", "best_of_n")
        },
    }


def _tells_apart(
    run: Run, problems: Sequence[Problem], plain: Mapping[str, Sequence[Solution]], gold: Mapping[str, Gold]
) -> dict[str, Any]:
    """How often the PRM prefers the better of two beginnings of one problem's plain samples, of as many steps: by the
    number of steps, and whether they are whole solutions.

    Better is a beginning without a false step (a whole solution: with the right answer) where the other has one; ties
    count a half. This is what a beam asks of a PRM.
    """
    judged, by_id = run.judgements("plain"), {problem.id: problem for problem in problems}
    results: dict[str, Any] = {}
    for how in VALUED_BY:
        wins: dict[str, list[float]] = defaultdict(list)
        for problem_id, several in plain.items():
            groups: dict[tuple[str, int], dict[tuple, tuple[bool, float]]] = defaultdict(dict)
            for s in several:
                real = truth(run.task, by_id[problem_id], gold[problem_id], s).first_error
                scores = [step.score for step in judged[s.id].steps]
                for i in range(1, len(s.steps) + 1):
                    value = aggregate(scores[:i], how)
                    if value is None:
                        continue
                    whole = i == len(s.steps)
                    right = is_correct(run.task, gold[problem_id], s) if whole else real is None or real >= i
                    place = ("whole", 0) if whole else ("begun", i)
                    groups[place][tuple(s.token_ids[a:b] for a, b in s.spans[:i])] = right, value
            for (kind, i), of in groups.items():
                good, bad = ([v for right, v in of.values() if right is side] for side in (True, False))
                if good and bad:
                    ahead = np.subtract.outer(good, bad)
                    wins[kind if kind == "whole" else f"{min(i, _DEEP)} steps"].append(
                        float(((ahead > 0) + 0.5 * (ahead == 0)).mean())
                    )
        results[how] = {kind: {"problems": len(of), "share": mean_or_none(of)} for kind, of in sorted(wins.items())}
    return results


_DEEP = 4  # beginnings of as many steps or more are counted together

STAGES = {
    "sample": Stage(sample, ("problems.jsonl", PRM)),
    "search": Stage(search_all, ("problems.jsonl", PRM)),
    "search_study": Stage(
        search_study,
        needs=("problems.jsonl", "gold.jsonl", "solutions/plain.jsonl", "reading.json", "search_tokens.json"),
        derived=True,
    ),
}

PIPELINE = chosen(("solve", "judge", "train_prm", "sample", "search", "search_study"), {**main_job.STAGES, **STAGES})
