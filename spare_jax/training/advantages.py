"""Rewards of GRPO with a process reward model (SPARK, arXiv 2512.03244, stage III): from what a judge says of a group
of solutions to an advantage per sampled token. Pure numpy.

A solution of a group is a `Graded`: the solution with the ids and spans that were sampled, the judgement of its steps
and of its answer, and the check of its form, whose V says whether it is right (format_rules.py). A `Reward` makes a
number of each, a baseline compares the numbers within the group, and a shape says what of that each token gets.

Two rules hold for every reward. A solution that was **not judged** (the request failed, the judge's text was cut off,
the comparison of answers was undecided) takes no part in its group: no reward, no advantage, and the others are
compared as if it had not been sampled. A solution that is **void** earns 0, tells nothing of its steps, and keeps its
advantage on all of its tokens, since what is wrong with it is the whole. A solution is void where it has no step, where
V is 0, where the reward's limits on the number of steps are broken, or where a judge that could be read left out what
the reward needs (`judge_fault`): a word on the answer, or, for a reward that reads steps, one verdict for each step.
Both are counted, never passed over.
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
    """A solution, what its judge says of it, and what the check of its form does."""

    solution: Solution
    judgement: Judgement
    form: FormatCheck

    @property
    def judged(self) -> bool:
        """Whether there is a judgement at all."""
        return not self.judgement.failure

    @property
    def correct(self) -> bool:
        """y: the judge's word on the answer; False where a judge left it out, which makes the solution void."""
        return self.judgement.outcome is True

    @property
    def verdicts(self) -> tuple[bool | None, ...]:
        """One per step that the judge spoke of."""
        return tuple(step.label for step in self.judgement.steps)


def judge_fault(graded: Graded, reads_steps: bool) -> str | None:
    """What a judge left out of its judgement: "no_verdict" on the answer; where the reward reads steps
    "step_mismatch", not exactly one verdict for each step. None where it did its work, and where it did none."""
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
    """(r - mean) / (std + EPSILON), std with n - 1 in the denominator (arXiv 2402.03300, section 4.1; TRL's std)."""
    return dr_grpo(rewards) / (rewards.std(ddof=1) + EPSILON) if len(rewards) > 1 else np.zeros_like(rewards)


def dr_grpo(rewards: np.ndarray) -> np.ndarray:
    """r - mean (Dr. GRPO, arXiv 2503.20783, section 3.2): no weight is put on what nearly all or nearly none solves."""
    # Equal rewards have no advantage at all, and not what rounding leaves of a mean.
    return rewards - rewards.mean() if np.ptp(rewards) else np.zeros_like(rewards)


def leave_one_out(rewards: np.ndarray) -> np.ndarray:
    """r - the mean of the others (RLOO, arXiv 2402.14740): n / (n - 1) times that of `dr_grpo`."""
    return dr_grpo(rewards) * (len(rewards) / (len(rewards) - 1)) if len(rewards) > 1 else np.zeros_like(rewards)


BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "leave_one_out": leave_one_out,
}


# What a solution that is not void earns


def outcome(graded: Graded) -> float:
    """y."""
    return float(graded.correct)


def step_augmented(graded: Graded) -> float:
    """.4 k/n + .6 y, with k of the n steps right."""
    return 0.4 * sum(verdict is True for verdict in graded.verdicts) / len(graded.verdicts) + 0.6 * graded.correct


def sound(graded: Graded) -> float:
    """y where every step is right, else 0 (ours): a Yes against its own verdicts on the steps pays nothing."""
    return float(graded.correct and all(graded.verdicts))


# What of a solution's advantage its tokens get. Each is (group, void, advantages [solutions]) -> per token


def whole(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """All tokens get it."""
    return [np.full(len(graded.solution.token_ids), a) for graded, a in zip(group, advantages, strict=True)]


def selective(group: Group, void: Sequence[bool], advantages: np.ndarray, otherwise: float = 0.0) -> list[np.ndarray]:
    """A token of step j gets A if A >= 0 and the step is right, or A < 0 and it is wrong; else `otherwise` times A."""
    found = whole(group, void, advantages)
    for graded, is_void, tokens, a in zip(group, void, found, advantages, strict=True):
        if not is_void:
            agrees = np.array([verdict is bool(a >= 0) for verdict in graded.verdicts])
            tokens[~agrees[step_of_token(graded.solution)]] *= otherwise
    return found


def half_discount(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """As `selective`, halved instead of zeroed."""
    return selective(group, void, advantages, otherwise=0.5)


def global_steps(group: Group, void: Sequence[bool], advantages: np.ndarray) -> list[np.ndarray]:
    """.8 A + .2 A_step. A step is worth +1/n or -1/n of the n of its solution, z-scored over all steps of the group
    (with the std of `grpo`); A_step of a token is the sum over the steps that end there or later (arXiv 2402.03300,
    section 4.1.3). What follows the last step's last token has an A_step of 0, and so has a void solution."""
    found = [0.8 * tokens for tokens in whole(group, void, advantages)]
    worth = [
        np.array([(1.0 if verdict else -1.0) / len(graded.verdicts) for verdict in graded.verdicts if not is_void])
        for graded, is_void in zip(group, void, strict=True)
    ]
    scores = np.split(grpo(np.concatenate(worth)), np.cumsum([len(of) for of in worth])[:-1])
    for graded, tokens, of in zip(group, found, scores, strict=True):
        at_ends = np.zeros(len(tokens))
        for (_, end), score in zip(graded.solution.spans[: len(of)], of, strict=True):
            at_ends[end - 1] += score
        tokens += 0.2 * at_ends[::-1].cumsum()[::-1]
    return found


def step_of_token(solution: Solution) -> np.ndarray:
    """The step of every sampled token, int [tokens]. What stands between two steps belongs to the one before it, what
    stands before the first to the first, and the end of the text to the last."""
    starts = [start for start, _ in solution.spans[1:]]
    return np.searchsorted(starts, np.arange(len(solution.token_ids)), side="right")


@dataclasses.dataclass(frozen=True)
class Reward:
    """A reward of stage III, by a name: SPARK's, and `sound`.

    Attributes:
      earns: what a solution earns that is not void.
      shape: what of its advantage each token gets.
      reads_steps: whether it needs a verdict per step.
      least_steps, most_steps: the paper's limits on a solution's steps, None for none.
      verdicts: who says y: the run's "judge", the task's comparison with "gold", a "coin", or a "vote" of the group.
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
    """Of one group: `rewards`, float64 [judged solutions], and which of these are `void`, in the group's order; and
    `tokens`, one float32 [tokens] per solution of the group, 0 where it was not judged."""

    rewards: np.ndarray
    tokens: tuple[np.ndarray, ...]
    void: tuple[bool, ...]


def advantages(reward: Reward, group: Group, baseline: str = "grpo") -> Advantages:
    """The advantages of one problem's solutions under `reward`, of those that were judged among themselves.

    All of them are 0 where fewer than two were judged, and where all earn the same, unless the reward's shape adds
    something of the steps.
    """
    judged = [graded for graded in group if graded.judged]
    void = tuple(_is_void(reward, graded) for graded in judged)
    rewards = np.array([0.0 if v else reward.earns(graded) for graded, v in zip(judged, void, strict=True)], np.float64)
    tokens = [np.zeros(len(graded.solution.token_ids), np.float32) for graded in group]
    if len(judged) > 1:
        at = [i for i, graded in enumerate(group) if graded.judged]
        for i, of in zip(at, reward.shape(judged, void, BASELINES[baseline](rewards)), strict=True):
            tokens[i] = of.astype(np.float32)
    return Advantages(rewards, tuple(tokens), void)


def _is_void(reward: Reward, graded: Graded) -> bool:
    steps = len(graded.solution.spans)
    within = (reward.least_steps or 0) <= steps and (reward.most_steps is None or steps <= reward.most_steps)
    return not (graded.form.valid and steps and within) or judge_fault(graded, reward.reads_steps) is not None


# Verdicts that no reward model is asked for


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
    """y = the answer is that of the majority of the group (TTRL, arXiv 2504.16084), where answers that are `equal` (the
    task's `answers_equal`) are one; ties as in selection/voting.py. Where nobody has an answer, nobody is right."""
    answers = voting.candidates([s.answer for s in solutions], equal)
    chosen = voting.majority(answers, problem_id, seed)
    right = [chosen is not None and answer == chosen for answer in answers]
    return [Judgement(s.id, "majority_vote", outcome=y) for s, y in zip(solutions, right, strict=True)]
