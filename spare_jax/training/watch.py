"""What to watch while a policy is paid by a model: the signs of reward hacking, and alarms that end it.

SPARK (arXiv 2512.03244, stage III) saw three kinds of hacking: a solved problem appended to the solution, more steps
than are needed (step-augmented rewards), and fewer (selective and global ones). Each shows in a mean over an
iteration's solutions before it shows in accuracy. A fourth sign is a judge that fails: solutions without a judgement
are in no figure about rewards, so they are counted beside them. Pure functions, no model.
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
END = 10  # iterations at either end of a training over which `course` takes means

Metrics = Mapping[str, float | None]  # by name; None where there was nothing to measure it on


def of_solutions(
    groups: Sequence[Sequence[Graded]], gains: Sequence[Advantages], reads_steps: bool
) -> dict[str, float | None]:
    """Means over the solutions of an iteration, rates in [0, 1] unless another unit is given.

    Over the judged solutions, None where there is none: reward; reward_std, the standard deviation within a group, its
    mean over groups with two or more of them; the rates correct (y), void and judge/<fault>. `judged` is their number.
    Over all solutions: judge/failed, the share without a judgement; valid (V); format/<failure>; per solution the
    numbers of steps, tokens, boxes and judge_tokens (that the judge generated for it); tokens_per_step. Over all
    groups: flat, the share in which no token has an advantage.
    """
    graded = [one for group in groups for one in group]
    judged = [one for one in graded if one.judged]
    solutions = [one.solution for one in graded]
    failures = collections.Counter(name for one in graded for name in one.form.failures)
    faults = collections.Counter(judge_fault(one, reads_steps) for one in judged)
    steps, tokens = sum(len(s.spans) for s in solutions), sum(len(s.token_ids) for s in solutions)
    of_judged = {
        "correct": sum(one.correct for one in judged),
        "void": sum(sum(group.void) for group in gains),
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
        "reward": mean_or_none(np.concatenate([group.rewards for group in gains])),
        "reward_std": mean_or_none([group.rewards.std() for group in gains if len(group.rewards) > 1]),
        "flat": float(np.mean([not any(tokens.any() for tokens in group.tokens) for group in gains])),
        "judged": len(judged),
        **{name: ratio_or_none(count, len(judged)) for name, count in of_judged.items()},
        **{name: count / len(graded) for name, count in of_all.items()},
        "tokens_per_step": tokens / max(1, steps),
    }


def disagreement(paid: Sequence[bool | None], truth: Sequence[bool | None]) -> dict[str, float | None]:
    """How far reward and truth agree on held-out problems. For each solution: whether it was `paid`, None where
    it was not judged, and the `truth` of its answer, None where that is not known.

    held_out/correct is the share of true answers, held_out/disagreement how often the two differ, and
    held_out/false_reward the share of solutions that are wrong and paid, which a policy that hacks its reward drives
    up. Each is over the solutions for which it is known, None where there is none; held_out/missing is the share of
    solutions that lack either.
    """
    all_pairs = list(zip(paid, truth, strict=True))
    pairs = [(reward, real) for reward, real in all_pairs if reward is not None and real is not None]
    return {
        f"{HELD_OUT}correct": mean_or_none([real for real in truth if real is not None]),
        f"{HELD_OUT}disagreement": mean_or_none([reward != real for reward, real in pairs]),
        f"{HELD_OUT}false_reward": mean_or_none([reward and not real for reward, real in pairs]),
        f"{HELD_OUT}missing": ratio_or_none(len(all_pairs) - len(pairs), len(all_pairs)),
    }


@dataclasses.dataclass(frozen=True)
class Alarm:
    """Goes off where `metric` has been above `threshold` (below it where `below`) in `patience` iterations in a row
    that measured it. Then the parameters are again those of the last checkpoint, which was saved before the first of
    these iterations, and `action` says what follows: "stop" ends the run there; "roll_back" goes on with the next
    iteration's problems; "abort" ends it with an error, and the same run started again goes on from that checkpoint. An
    abort is for faults outside the policy, such as a judge that fails.
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
        """How many iterations in a row are past the threshold now, if there were `before` until this one. An iteration
        that has not measured the metric, or had nothing to measure it on, does not count and breaks no row."""
        value = metrics.get(self.metric)
        if value is None:
            return before
        return before + 1 if (value < self.threshold if self.below else value > self.threshold) else 0


class Alarms:
    """The alarms of a run, with the number of iterations in a row that each has been past its threshold."""

    def __init__(self, alarms: Sequence[Alarm]):
        self._alarms = tuple(alarms)
        self._streaks = [0] * len(self._alarms)

    @property
    def counting(self) -> bool:
        """Whether one of them is past its threshold."""
        return any(self._streaks)

    @property
    def doubts_policy(self) -> bool:
        """Whether one of those past their threshold is about the policy's weights, which it would set back ("abort" is
        about other faults)."""
        return any(n for alarm, n in zip(self._alarms, self._streaks, strict=True) if alarm.action != "abort")

    def hear(self, metrics: Metrics) -> list[Alarm]:
        """The alarms that go off at an iteration with these metrics.

        Raises:
          ValueError: an alarm's metric is none of these, nor one of held-out problems, which not every iteration has.
        """
        known = dict.fromkeys([*metrics, *disagreement([True], [True])])
        for alarm in self._alarms:
            if alarm.metric not in known:
                raise ValueError(f"alarm on {alarm.metric!r}: there is no such metric; choose among {', '.join(known)}")
        counted = zip(self._alarms, self._streaks, strict=True)
        self._streaks = [alarm.count(metrics, before) for alarm, before in counted]
        return [alarm for alarm, n in zip(self._alarms, self._streaks, strict=True) if n >= alarm.patience]

    def reset(self) -> None:
        """Count from 0 again, with the run back at a checkpoint."""
        self._streaks = [0] * len(self._alarms)


def course(rows: Sequence[Metrics], solutions: int) -> dict[str, Any]:
    """A summary of a training's rows of steps.jsonl.

    Args:
      rows: one per iteration, in order, those that an alarm undid included.
      solutions: how many are sampled in an iteration.

    Returns:
      {"tokens", "judge_tokens": generated in all; "failed": the share of all solutions that have no judgement; "first",
      "last": the mean of every metric over the first and the last END iterations, without those of held-out problems;
      "held_out": for each iteration that compared the reward with the truth {"step", "tokens", "judge_tokens"
      (generated until then, that iteration's included), "correct", "disagreement", "false_reward", "missing"}}. A mean
      is over the iterations that measured the metric, None where none did.
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

    def mean(some: Sequence[Metrics], name: str) -> float | None:
        return mean_or_none([row.get(name) for row in some])

    return {
        **{key: float(total[-1]) for key, total in generated.items()},
        "failed": mean(rows, "judge/failed"),
        "first": {name: mean(rows[:END], name) for name in names},
        "last": {name: mean(rows[-END:], name) for name in names},
        "held_out": held_out,
    }
