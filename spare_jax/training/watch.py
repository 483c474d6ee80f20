"""What to watch while a policy is paid by a model: the signs of reward hacking, and alarms that end it.

SPARK (arXiv 2512.03244, stage III) saw three kinds: a solved problem appended to the solution, more steps than are
needed (step-augmented rewards), and fewer (selective and global ones). Each shows in a mean over an iteration's
solutions before it shows in accuracy. And the sign that nobody pays it: solutions without a judgement, which are absent
from every figure about rewards and counted beside them. Pure functions, no model.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import mean_or_none, ratio_or_none
from spare_jax.training.advantages import Advantages, Graded, judge_fault
from spare_jax.training.format_rules import FAILURES

JUDGE_FAULTS = ("no_verdict", "step_mismatch")
HELD_OUT = "held_out/"

Metrics = Mapping[str, float | None]  # by name; None where there was nothing to measure it on


def of_solutions(
    groups: Sequence[Sequence[Graded]], found: Sequence[Advantages], reads_steps: bool
) -> dict[str, float | None]:
    """Means over the solutions of an iteration, each a rate in [0, 1] unless said.

    Over the judged ones: reward and reward_std (within a group, its mean over groups with two or more of them); correct
    (y); void; judge/<fault>. Each is None where there is none. How many these are is judged, and judge/failed the share
    of all solutions that have no judgement.
    Over all: valid (V); flat, the share of groups without any advantage; format/<kind>; per solution steps, tokens,
    boxes and the judge_tokens that were generated over it; tokens_per_step.
    """
    graded = [one for group in groups for one in group]
    judged = [one for one in graded if one.judged]
    solutions = [one.solution for one in graded]
    failures = collections.Counter(name for one in graded for name in one.form.failures)
    faults = collections.Counter(judge_fault(one, reads_steps) for one in judged)
    steps, tokens = (sum(map(len, of)) for of in ([s.spans for s in solutions], [s.token_ids for s in solutions]))
    of_judged = {
        "correct": sum(one.correct for one in judged),
        "void": sum(sum(of.void) for of in found),
        **{f"judge/{name}": faults[name] for name in JUDGE_FAULTS},
    }
    of_all = {
        "judge/failed": len(graded) - len(judged),
        "valid": sum(one.form.valid for one in graded),
        **{f"format/{name}": failures[name] for name in FAILURES},
        "steps": steps,
        "tokens": tokens,
        "boxes": sum(one.form.boxes for one in graded),
        "judge_tokens": sum(one.judgement.generated_tokens for one in graded),
    }
    return {
        "reward": mean_or_none(np.concatenate([of.rewards for of in found])),
        "reward_std": mean_or_none([of.rewards.std() for of in found if len(of.rewards) > 1]),
        "flat": float(np.mean([not any(tokens.any() for tokens in of.tokens) for of in found])),
        "judged": len(judged),
        **{name: ratio_or_none(count, len(judged)) for name, count in of_judged.items()},
        **{name: count / len(graded) for name, count in of_all.items()},
        "tokens_per_step": tokens / max(1, steps),
    }


def disagreement(paid: Sequence[bool | None], truth: Sequence[bool | None]) -> dict[str, float | None]:
    """How what is paid stands to the truth of the answers to held-out problems; None stands for a solution that was not
    judged, and for an answer of which the truth is not known.

    held_out/correct is the truth's rate, held_out/disagreement how often the two differ, and held_out/false_reward how
    often of all solutions a wrong one is paid: what a policy that hacks its reward drives up. Each is over the
    solutions of which it is known, None where there is none; held_out/missing is the share of those that lack either.
    """
    all_pairs = list(zip(paid, truth, strict=True))
    pairs = [(word, real) for word, real in all_pairs if word is not None and real is not None]
    return {
        f"{HELD_OUT}correct": mean_or_none([real for real in truth if real is not None]),
        f"{HELD_OUT}disagreement": mean_or_none([word != real for word, real in pairs]),
        f"{HELD_OUT}false_reward": mean_or_none([word and not real for word, real in pairs]),
        f"{HELD_OUT}missing": ratio_or_none(len(all_pairs) - len(pairs), len(all_pairs)),
    }


@dataclasses.dataclass(frozen=True)
class Alarm:
    """Goes off where `metric` has been above `threshold` (below it where `below`) in `patience` iterations in a row
    that measured it. Then the run takes up its last checkpoint again, which is from before the first of them, and
    `action` says what follows: "stop" ends it there, "roll_back" goes on with the next iteration's problems, "abort"
    ends it with an error, and the same run begun again goes on from that checkpoint: for what is wrong around the
    policy and not with it.
    """

    metric: str
    threshold: float
    below: bool = False
    patience: int = 1
    action: str = "stop"

    def __post_init__(self):
        if self.action not in ("stop", "roll_back", "abort") or self.patience < 1:
            raise ValueError(
                f"alarm on {self.metric}: action={self.action!r}, patience={self.patience}: use stop, roll_back or "
                "abort, and a patience of 1 or more"
            )

    def count(self, metrics: Metrics, before: int) -> int:
        """How many iterations in a row it has been past its threshold, of which there were `before`. An iteration that
        has not measured the metric, or had nothing to measure it on, changes nothing."""
        value = metrics.get(self.metric)
        if value is None:
            return before
        return before + 1 if (value < self.threshold if self.below else value > self.threshold) else 0


class Alarms:
    """The alarms of a run that goes on, with how many iterations in a row each has been past its threshold."""

    def __init__(self, alarms: Sequence[Alarm]):
        self._alarms = tuple(alarms)
        self._streaks = [0] * len(self._alarms)

    @property
    def counting(self) -> bool:
        """Whether one of them is past its threshold, and the run has not been set back since."""
        return any(self._streaks)

    @property
    def doubts_policy(self) -> bool:
        """Whether one of these would set the policy back: its weights are not as they should be."""
        return any(n for alarm, n in zip(self._alarms, self._streaks, strict=True) if alarm.action != "abort")

    def hear(self, metrics: Metrics) -> list[Alarm]:
        """Those that go off at an iteration with these metrics.

        Raises:
          ValueError: no iteration can set an alarm off, since its metric is none of these, nor one of held-out
            problems, which may have to wait for them.
        """
        known = dict.fromkeys([*metrics, *disagreement([True], [True])])
        for alarm in self._alarms:
            if alarm.metric not in known:
                raise ValueError(f"alarm on {alarm.metric!r}: there is no such metric; choose among {', '.join(known)}")
        counted = zip(self._alarms, self._streaks, strict=True)
        self._streaks = [alarm.count(metrics, before) for alarm, before in counted]
        return [alarm for alarm, n in zip(self._alarms, self._streaks, strict=True) if n >= alarm.patience]

    def reset(self) -> None:
        """Count anew: the run is back where it was before."""
        self._streaks = [0] * len(self._alarms)


def course(rows: Sequence[Metrics], solutions: int, span: int = 10) -> dict[str, Any]:
    """A training's rows of steps.jsonl, in short.

    Args:
      rows: one per iteration, in order, with those that an alarm undid.
      solutions: that were sampled in each.
      span: how many iterations `first` and `last` are means over.

    Returns:
      {"tokens", "judge_tokens": generated in all; "failed": the share of all solutions that have no judgement; "first",
      "last": means of every metric over those of the first and the last iterations that measured it, without those of
      held-out problems; "held_out": per iteration that compared the reward with the truth {"step", "tokens",
      "judge_tokens" (generated until then, that iteration's included), "correct", "disagreement", "false_reward",
      "missing"}}. What was never measured is None.
    """
    generated = {key: np.cumsum([row[key] or 0.0 for row in rows]) * solutions for key in ("tokens", "judge_tokens")}
    held_out = [
        {
            "step": row["step"],
            **{key: float(total[i]) for key, total in generated.items()},
            **{key.removeprefix(HELD_OUT): value for key, value in row.items() if key.startswith(HELD_OUT)},
        }
        for i, row in enumerate(rows)
        if any(key.startswith(HELD_OUT) for key in row)
    ]
    names = [key for key in rows[0] if key != "step" and not key.startswith(HELD_OUT)]

    def mean(of: Sequence[Metrics], name: str) -> float | None:
        return mean_or_none([row.get(name) for row in of])

    return {
        **{key: float(total[-1]) for key, total in generated.items()},
        "failed": mean(rows, "judge/failed"),
        "first": {name: mean(rows[:span], name) for name in names},
        "last": {name: mean(rows[-span:], name) for name in names},
        "held_out": held_out,
    }
