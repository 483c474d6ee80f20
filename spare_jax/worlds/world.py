"""What every world is: problems drawn from a seed, and a judge that knows the truth of every step.

In distribution and out of it: `train` holds the templates, names and lengths that models may be trained on,
`held_out` what no training ever sees, each kind by itself.
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
    """What problems are drawn from, each entry as likely as the next. `lengths` are numbers of needed steps."""

    lengths: tuple[int, ...] = (1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6)
    templates: tuple[int, ...] = (0, 1, 2, 3)
    names: tuple[str, ...] = NAMES
    max_distractors: int = 2
    second_route: float = 0.3

    def held_out(self) -> dict[str, "Distribution"]:
        """The same but for one thing that training never sees: the two longest lengths, templates, names."""
        return {
            "lengths": dataclasses.replace(self, lengths=(7, 8)),
            "templates": dataclasses.replace(self, templates=(4, 5)),
            "names": dataclasses.replace(self, names=HELD_OUT_NAMES),
        }


class Redraw(Exception):
    """A draw ran out of names or of range: draw anew."""


@dataclasses.dataclass(frozen=True)
class World:
    """A source of problems with exact truth.

    Attributes:
      name: the config's name for it, and part of every draw's seed.
      draw: (randomness, id, number of needed steps, distribution) -> a problem; raises Redraw.
      judge: the truth of every step of any candidate.
      every_fact: a longer solution that first states all that the story tells.
      another_solution: a right solution that need not be the reference's: another route or order.
      mistaken_solution: a solution that goes wrong as a policy might, None in a world that makes none.
      work_begins: what stands in a step before what it works out.
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
        """What all training has held out, by kind."""
        return self.train.held_out()

    def truth(self, problem: Problem, gold: Gold, steps: Sequence[str]) -> tuple[StepJudgement, ...]:
        """The verdicts on `steps` as the records that a perfect annotator would write.

        Raises:
          ValueError: the gold does not tell the problem's facts, so nobody knows what is true.
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
        """Draw `count` problems, no two of the same text and none whose text is in `avoid`, which is added to.

        Everything is drawn from (seed, split, index) alone. Handing one `avoid` set from split to split keeps every
        problem's text in a single split. `distribution` is `train` unless another one is given.
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
