"""What to watch while a policy is paid by a model: the signs of reward hacking, and alarms that end it.

SPARK (arXiv 2512.03244, stage III) saw three kinds: a solved problem appended to the solution, more steps than are
needed (step-augmented rewards), and fewer (selective and global ones). Each shows in a mean over an iteration's
solutions before it shows in accuracy. Pure functions, no model.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.training.advantages import Advantages, Graded, judge_fault
from spare_jax.training.format_rules import FAILURES

JUDGE_FAULTS = ("no_verdict", "step_mismatch")
HELD_OUT = "held_out/"


def of_solutions(
    groups: Sequence[Sequence[Graded]], found: Sequence[Advantages], reads_steps: bool
) -> dict[str, float]:
    """Means over the solutions of an iteration, each a rate in [0, 1] unless said.

    reward and reward_std (within a group, its mean); correct (y); valid (V); void; flat, the share of groups without
    any advantage; format/<kind>; judge/<fault>; per solution steps, tokens, boxes and the judge_tokens that were
    generated over it; tokens_per_step.
    """
    graded = [one for group in groups for one in group]
    solutions = [one.solution for one in graded]
    failures = collections.Counter(name for one in graded for name in one.form.failures)
    faults = collections.Counter(judge_fault(one, reads_steps) for one in graded)
    steps, tokens = (sum(map(len, of)) for of in ([s.spans for s in solutions], [s.token_ids for s in solutions]))
    rates = {
        "correct": sum(one.correct for one in graded),
        "valid": sum(one.form.valid for one in graded),
        "void": sum(sum(of.void) for of in found),
        **{f"format/{name}": failures[name] for name in FAILURES},
        **{f"judge/{name}": faults[name] for name in JUDGE_FAULTS},
        "steps": steps,
        "tokens": tokens,
        "boxes": sum(one.form.boxes for one in graded),
        "judge_tokens": sum(one.judgement.generated_tokens for one in graded),
    }
    return {
        "reward": float(np.mean(np.concatenate([of.rewards for of in found]))),
        "reward_std": float(np.mean([of.rewards.std() for of in found])),
        "flat": float(np.mean([not any(tokens.any() for tokens in of.tokens) for of in found])),
        **{name: count / len(graded) for name, count in rates.items()},
        "tokens_per_step": tokens / max(1, steps),
    }


def disagreement(paid: Sequence[bool], truth: Sequence[bool]) -> dict[str, float]:
    """How what is paid stands to the truth of the answers to held-out problems.

    held_out/correct is the truth's rate, held_out/disagreement how often the two differ, and held_out/false_reward how
    often of all solutions a wrong one is paid: what a policy that hacks its reward drives up.
    """
    pairs = list(zip(paid, truth, strict=True))
    return {
        f"{HELD_OUT}correct": float(np.mean([real for _, real in pairs])),
        f"{HELD_OUT}disagreement": float(np.mean([word != real for word, real in pairs])),
        f"{HELD_OUT}false_reward": float(np.mean([word and not real for word, real in pairs])),
    }


@dataclasses.dataclass(frozen=True)
class Alarm:
    """Goes off where `metric` has been above `threshold` (below it where `below`) in `patience` iterations in a row
    that measured it. Then the run takes up its last checkpoint again, which is from before the first of them, and
    `action` says what follows: "stop" ends it there, "roll_back" goes on with the next iteration's problems.
    """

    metric: str
    threshold: float
    below: bool = False
    patience: int = 1
    action: str = "stop"

    def __post_init__(self):
        if self.action not in ("stop", "roll_back") or self.patience < 1:
            raise ValueError(
                f"alarm on {self.metric}: action={self.action!r}, patience={self.patience}: use stop or roll_back, and "
                "a patience of 1 or more"
            )

    def count(self, metrics: Mapping[str, float], before: int) -> int:
        """How many iterations in a row it has been past its threshold, of which there were `before`. An iteration that
        has not measured the metric changes nothing."""
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

    def hear(self, metrics: Mapping[str, float]) -> list[Alarm]:
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


def course(rows: Sequence[Mapping[str, float]], solutions: int, span: int = 10) -> dict[str, Any]:
    """A training's rows of steps.jsonl, in short.

    Args:
      rows: one per iteration, in order, with those that an alarm undid.
      solutions: that were sampled in each.
      span: how many iterations `first` and `last` are means over.

    Returns:
      {"tokens", "judge_tokens": generated in all; "first", "last": means of every metric over the first and the last
      iterations, without those of held-out problems; "held_out": per iteration that compared the reward with the truth
      {"step", "tokens", "judge_tokens" (generated until then, that iteration's included), "correct", "disagreement",
      "false_reward"}}
    """
    generated = {key: np.cumsum([row[key] * solutions for row in rows]) for key in ("tokens", "judge_tokens")}
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

    def means(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([row[name] for row in of])) for name in names}

    return {
        **{key: float(total[-1]) for key, total in generated.items()},
        "first": means(rows[:span]),
        "last": means(rows[-span:]),
        "held_out": held_out,
    }
