"""Rewards of GRPO with a process reward model (SPARK, arXiv 2512.03244, stage III): from what a judge says of a group
of solutions to an advantage per sampled token. Pure numpy.

A solution of a group is a `Graded`: the solution with its sampled ids and the spans of its steps, the judgement of its
steps and of its answer, and V, the check of its form (format_rules.py). A `Reward` gives each solution a number, a
baseline turns the numbers of a group into advantages, and a shape gives each token its part of the advantage.

Two rules hold for every reward. A solution that was **not judged** (the request failed, the judge's text was cut off,
the comparison of answers was undecided) takes no part in its group: no reward, no advantage, and the others are
compared as if it had not been sampled. A **void** solution earns 0, its steps are not looked at, and all of its tokens
get its advantage, since it is wrong as a whole. A solution is void where it has no step, where V is 0, where the
reward's limits on the number of steps are broken, or where the judge's text could be read but left out what the reward
needs (`judge_fault`): a verdict on the answer, or, for a reward that reads steps, one verdict for each step. Solutions
of both kinds are counted in the metrics.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from spare_jax.records import Judgement, Solution
from spare_jax.selection import voting
from spare_jax.training.format_rules import FormatCheck

Group = Sequence["Graded"]
EPSILON = 1e-4  # added to the standard deviation, as in TRL 1.13.0


@dataclasses.dataclass(frozen=True)
class Graded:
    """A solution with its judgement and the check of its form."""

    solution: Solution
    judgement: Judgement
    form: FormatCheck

    @property
    def judged(self) -> bool:
        """Whether there is a judgement at all."""
        return not self.judgement.failure

    @property
    def correct(self) -> bool:
        """y: the judge's verdict on the answer; False where the judge left it out, which makes the solution void."""
        return self.judgement.outcome is True

    @property
    def verdicts(self) -> tuple[bool | None, ...]:
        """The judge's verdicts on steps, in their order; there may be more or fewer than the solution has steps."""
        return tuple(step.label for step in self.judgement.steps)


def judge_fault(graded: Graded, reads_steps: bool) -> str | None:
    """What a judge left out: "no_verdict", the verdict on the answer; or, where the reward reads steps,
    "step_mismatch", exactly one verdict for each step. None where nothing is missing, and where there is no judgement
    at all."""
    if not graded.judged:
        return None
    if graded.judgement.outcome is None:
        return "no_verdict"
    steps, verdicts = len(graded.solution.spans), graded.verdicts
    if reads_steps and (len(verdicts) != steps or None in verdicts or graded.judgement.surplus):
        return "step_mismatch"
    return None


# From rewards to advantages of whole solutions


def grpo(rewards: np.ndarray) -> np.ndarray:
    """(r - mean) / (std + EPSILON), std over n - 1 as in TRL (arXiv 2402.03300, section 4.1)."""
    return dr_grpo(rewards) / (rewards.std(ddof=1) + EPSILON) if len(rewards) > 1 else np.zeros_like(rewards)


def dr_grpo(rewards: np.ndarray) -> np.ndarray:
    """r - mean (Dr. GRPO, arXiv 2503.20783, section 3.2). Without the division by std, problems that nearly all or
    nearly no solutions solve weigh no more than others."""
    # Equal rewards have an advantage of exactly 0; r - mean alone would leave a rounding error.
    return rewards - rewards.mean() if np.ptp(rewards) else np.zeros_like(rewards)


def leave_one_out(rewards: np.ndarray) -> np.ndarray:
    """r - the mean of the other rewards (RLOO, arXiv 2402.14740), which is n / (n - 1) times `dr_grpo`."""
    return dr_grpo(rewards) * (len(rewards) / (len(rewards) - 1)) if len(rewards) > 1 else np.zeros_like(rewards)


BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "leave_one_out": leave_one_out,
}


# Rewards of solutions that are not void


def outcome(graded: Graded) -> float:
    """y."""
    return float(graded.correct)


def step_augmented(graded: Graded) -> float:
    """.4 k/n + .6 y, where k of the n steps are right."""
    return 0.4 * sum(verdict is True for verdict in graded.verdicts) / len(graded.verdicts) + 0.6 * graded.correct


def sound(graded: Graded) -> float:
    """y where every step is right, else 0 (ours): the verdict on the answer must not contradict those on the steps."""
    return float(graded.correct and all(graded.verdicts))


# Shapes: (group, which solutions are void, advantages [solutions]) -> for each solution its tokens' advantages [tokens]


def whole(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """Every token gets the solution's advantage."""
    return [np.full(len(graded.solution.token_ids), a) for graded, a in zip(group, advantages, strict=True)]


def selective(group: Group, void: Sequence[bool], advantages: np.ndarray, otherwise: float = 0.0) -> list[np.ndarray]:
    """A token gets A if A >= 0 and its step is right, or if A < 0 and it is wrong; else `otherwise` times A."""
    shaped = whole(group, void, advantages)
    for graded, is_void, tokens, a in zip(group, void, shaped, advantages, strict=True):
        if not is_void:
            agrees = np.array([verdict is bool(a >= 0) for verdict in graded.verdicts])
            tokens[~agrees[step_of_token(graded.solution)]] *= otherwise
    return shaped


def half_discount(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """`selective` with half of A in place of 0."""
    return selective(group, void, advantages, otherwise=0.5)


def global_steps(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """.8 A + .2 A_step. Each of a solution's n steps is rewarded with +1/n if it is right, else -1/n; these rewards are
    normalised by `grpo` over all steps of the group, and A_step of a token is the sum over the steps that end there or
    later (arXiv 2402.03300, section 4.1.3). It is 0 behind the last step, and in a void solution."""
    shaped = [0.8 * tokens for tokens in whole(group, void, advantages)]
    rewards = [
        np.array([(1.0 if verdict else -1.0) / len(graded.verdicts) for verdict in graded.verdicts if not is_void])
        for graded, is_void in zip(group, void, strict=True)
    ]
    normalised = np.split(grpo(np.concatenate(rewards)), np.cumsum([len(steps) for steps in rewards])[:-1])
    for graded, tokens, steps in zip(group, shaped, normalised, strict=True):
        at_ends = np.zeros(len(tokens))
        for (_, end), score in zip(graded.solution.spans[: len(steps)], steps, strict=True):
            at_ends[end - 1] += score
        tokens += 0.2 * at_ends[::-1].cumsum()[::-1]
    return shaped


def step_of_token(solution: Solution) -> np.ndarray:
    """The number, from 0, of the step of every sampled token, int [tokens]. Tokens between two steps belong to the one
    before them, tokens before the first step to the first."""
    starts = [start for start, _ in solution.spans[1:]]
    return np.searchsorted(starts, np.arange(len(solution.token_ids)), side="right")


@dataclasses.dataclass(frozen=True)
class Reward:
    """A reward of stage III.

    Attributes:
      earns: the reward of a solution that is not void.
      shape: each token's part of the solution's advantage.
      reads_steps: whether it needs a verdict per step.
      least_steps, most_steps: limits on a solution's number of steps, as in the paper; None for none.
      verdicts: where y comes from: the run's "judge", the task's comparison with "gold", a "coin", or a "vote" of the
        group.
    """

    earns: Callable[[Graded], float] = outcome
    shape: Callable[[Group, Sequence[bool], np.ndarray], list[np.ndarray]] = whole
    reads_steps: bool = False
    least_steps: int | None = None
    most_steps: int | None = None
    verdicts: str = "judge"


REWARDS: Mapping[str, Reward] = {
    "process_aware": Reward(),
    "step_augmented": Reward(step_augmented, reads_steps=True),
    "sound": Reward(sound, reads_steps=True),
    "selective": Reward(shape=selective, reads_steps=True, least_steps=4, most_steps=20),
    "half_discount": Reward(shape=half_discount, reads_steps=True, least_steps=4, most_steps=20),
    "global": Reward(shape=global_steps, reads_steps=True),
    "global_with_penalty": Reward(shape=global_steps, reads_steps=True, least_steps=3, most_steps=20),
    "rlvr": Reward(verdicts="gold"),
    "random": Reward(verdicts="coin"),
    "majority_vote": Reward(verdicts="vote"),
}


@dataclasses.dataclass(frozen=True)
class Advantages:
    """Of one group: `rewards` float64 [judged solutions] and which of these are `void`, in the group's order; and
    `tokens`, for every solution of the group float32 [tokens], 0 where it was not judged."""

    rewards: np.ndarray
    tokens: tuple[np.ndarray, ...]
    void: tuple[bool, ...]


def advantages(reward: Reward, group: Group, baseline: str = "grpo") -> Advantages:
    """The advantages of one problem's solutions under `reward`; those that were judged are compared with each other.

    All are 0 where fewer than two were judged. Where all rewards are equal they are 0 too, except for what the shape
    adds for steps.
    """
    judged = [graded for graded in group if graded.judged]
    void = tuple(_is_void(reward, graded) for graded in judged)
    rewards = np.array([0.0 if v else reward.earns(graded) for graded, v in zip(judged, void, strict=True)], np.float64)
    tokens = [np.zeros(len(graded.solution.token_ids), np.float32) for graded in group]
    if len(judged) > 1:
        places = [i for i, graded in enumerate(group) if graded.judged]
        for i, shaped in zip(places, reward.shape(judged, void, BASELINES[baseline](rewards)), strict=True):
            tokens[i] = shaped.astype(np.float32)
    return Advantages(rewards, tuple(tokens), void)


def _is_void(reward: Reward, graded: Graded) -> bool:
    steps = len(graded.solution.spans)
    within = (reward.least_steps or 0) <= steps and (reward.most_steps is None or steps <= reward.most_steps)
    return not (graded.form.valid and steps and within) or judge_fault(graded, reward.reads_steps) is not None


# Verdicts without a model


def coin(seed: int, solution: Solution, draw: str) -> Judgement:
    """y by a fair coin, a digest of seed, `draw` and the solution's id: a control that should teach nothing."""
    digest = hashlib.blake2b(f"{seed}/{draw}/{solution.id}".encode(), digest_size=1).digest()
    return Judgement(solution.id, "random", outcome=digest[0] % 2 == 1)


def vote(
    problem_id: str,
    solutions: Sequence[Solution],
    seed: int,
    equal: Callable[[str | None, Sequence[str]], bool | None],
) -> list[Judgement]:
    """y = whether the answer is the group's most frequent one (TTRL, arXiv 2504.16084). Answers that are `equal` (the
    task's `answers_equal`) count as one, and ties are broken as in selection/voting.py. Where no solution has an
    answer, none is right."""
    answers = voting.candidates([s.answer for s in solutions], equal)
    chosen = voting.majority(answers, problem_id, seed)
    right = [chosen is not None and answer == chosen for answer in answers]
    return [Judgement(s.id, "majority_vote", outcome=y) for s, y in zip(solutions, right, strict=True)]
