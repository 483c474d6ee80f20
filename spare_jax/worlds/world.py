"""A world: problems drawn from a seed, and a judge that knows the truth of every step.

Models are trained on the templates, names and lengths of `World.train` alone; each distribution of `World.held_out`
replaces one of these by what no training sees.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from spare_jax.records import Gold, Problem, StepJudgement
from spare_jax.worlds.verdict import Verdict

NAMES = ("Ada", "Ben", "Cal", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Ola", "Pam")
HELD_OUT_NAMES = ("Nora", "Otto", "Peer", "Rosa", "Seth", "Tara", "Umar", "Vera", "Wolf", "Yves", "Zara", "Abel")


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What problems are drawn from; all entries of a tuple are equally likely.

    `lengths` are numbers of needed steps, `templates` indices of the world's templates; `max_distractors` is the most
    facts that are not needed, `second_route` the probability that a second route leads to the answer.
    """

    lengths: tuple[int, ...] = (1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6)
    templates: tuple[int, ...] = (0, 1, 2, 3)
    names: tuple[str, ...] = NAMES
    max_distractors: int = 2
    second_route: float = 0.3

    def held_out(self) -> dict[str, "Distribution"]:
        """By kind, this distribution with other lengths, templates or names, which training never sees."""
        return {
            "lengths": dataclasses.replace(self, lengths=(7, 8)),
            "templates": dataclasses.replace(self, templates=(4, 5)),
            "names": dataclasses.replace(self, names=HELD_OUT_NAMES),
        }


class Redraw(Exception):
    """A draw ran out of names or left the range of numbers: draw again."""


@dataclasses.dataclass(frozen=True)
class World:
    """A source of problems with exact truth.

    Attributes:
      name: its name in the config, which is part of the seed of every draw.
      draw: (rng, id, number of needed steps, distribution) -> a problem; raises Redraw.
      judge: (problem, gold, a candidate's steps) -> the truth of every step.
      every_fact: a right solution that states every fact of the story, needed or not.
      another_solution: a right solution, perhaps by another route or in another order than the reference.
      mistaken_solution: a solution with mistakes as a small policy makes them; None in a world that draws none.
      work_begins: the text in a step behind which its derivation begins.
      errors: the categories of wrong steps; `held_out_errors` are kept out of all training of judges.
    """

    name: str
    train: Distribution
    draw: Callable[[random.Random, str, int, Distribution], tuple[Problem, Gold]]
    judge: Callable[[Problem, Gold, Sequence[str]], list[Verdict]]
    every_fact: Callable[[Problem, Gold, random.Random], list[str]]
    another_solution: Callable[[Problem, Gold, random.Random], list[str]]
    work_begins: str
    errors: tuple[str, ...]
    held_out_errors: tuple[str, ...]
    mistaken_solution: Callable[[Problem, Gold, random.Random], list[str]] | None = None

    @property
    def held_out(self) -> Mapping[str, Distribution]:
        """The distributions that are held out of all training, by kind."""
        return self.train.held_out()

    def truth(self, problem: Problem, gold: Gold, steps: Sequence[str]) -> tuple[StepJudgement, ...]:
        """The verdicts on `steps` as a perfect annotator would give them, one per step.

        Raises:
          ValueError: the gold has no facts, since the problem was read from a file.
        """
        if not gold.facts:
            raise ValueError(
                f"the truth of problem {gold.problem_id!r} is not known: it was read from a file, and only generated "
                "problems tell their facts; choose another judge than truth"
            )
        return tuple(
            StepJudgement(
                label=verdict.correct,
                explanation=verdict.explanation,
                context=verdict.context,
                steps=verdict.steps,
                reference=verdict.reference,
                errors=(verdict.error,) if verdict.error else (),
            )
            for verdict in self.judge(problem, gold, steps)
        )

    def generate(
        self,
        seed: int,
        split: str,
        count: int,
        distribution: Distribution | None = None,
        avoid: set[str] | None = None,
    ) -> Iterator[tuple[Problem, Gold]]:
        """Draw `count` problems, no two with the same text, as a function of (seed, split, index).

        Args:
          distribution: what they are drawn from; `train` where None.
          avoid: texts that no problem may have; those of the new problems are added. Handed from split to split, it
            keeps each text in a single split.

        Raises:
          ValueError: 1000 draws in a row gave no new problem.
        """
        chosen = self.train if distribution is None else distribution
        seen = set() if avoid is None else avoid
        for index in range(count):
            length = random.Random(f"{self.name}/{seed}/{split}/{index}").choice(chosen.lengths)
            for attempt in range(1000):
                rng = random.Random(f"{self.name}/{seed}/{split}/{index}/{attempt}")
                try:
                    drawn = self.draw(rng, f"{split}-{index:05d}", length, chosen)
                except Redraw:
                    continue
                text = " ".join((*drawn[0].context, drawn[0].question))
                if text not in seen:
                    seen.add(text)
                    yield drawn
                    break
            else:
                raise ValueError(
                    f"split {split!r}: no new problem after 1000 draws; ask for fewer than {count} problems"
                )
