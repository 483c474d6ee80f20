"""The embedded models of a world, from nothing: tokenizer, tiny-base, another base, its solutions, tiny-teacher.

    python -m spare_jax.main --config=configs/tiny_models.py                  about two hours on two CPU cores
    python -m spare_jax.main --config=configs/tiny_models.py:world=multihop   or spatial
    python -m spare_jax.main --config=configs/tiny_models.py:verifier         a teacher that verifies in SPARK's words
    python -m spare_jax.main --config=configs/tiny_models.py:further          tiny-teacher trained further: an hour

Writes Hugging Face directories under models/ of the work directory; models/base and models/teacher are what
spare_jax/assets/ holds of the arithmetic world as tiny-base and tiny-teacher, and of the others as <world>-base and
<world>-teacher. A verifier's lessons are tiny-base's own mistakes, on problems of their own; it is tiny-verifier there.
docs/embedded.md says how good they are. A phase of training names the lengths and the number of its problems, all new
ones, and its settings (training/loop.py).
"""

from dataclasses import replace
from typing import Any

from spare_jax.pipelines import tiny_models
from spare_jax.pipelines.tiny_models import (
    BaseTraining,
    Candidates,
    GradingPhase,
    SolvingPhase,
    TeacherTraining,
    TokenizerSettings,
)
from spare_jax.runs import settings
from spare_jax.runs.splits import WORLDS
from spare_jax.runs.stage import experiment
from spare_jax.tasks.task import world_of

PHASE: dict[str, Any] = dict(
    batch_rows=4, optimizer="muon", learning_rate=2e-3, warmup=0.02, weight_decay=0.01, clip=1.0, eval_every=500,
    patience=1000, checkpoint_every=1000,
)  # fmt: skip
# First to look things up by name: solutions that state every fact of a short story. Then the reference solutions alone.
FACTS = SolvingPhase(
    **PHASE, row_length=320, split="pretraining-counts", lengths=(0, 1, 2, 3), max_distractors=4, every_fact=True
)
SOLVE = SolvingPhase(**PHASE, row_length=320, split="pretraining-solve")
GRADE = GradingPhase(**PHASE, row_length=768, right_solutions=1)
EVERY_LENGTH = (1, 2, 3, 4, 5, 6)
# The arithmetic world's figures were found first; the others are learnt sooner. Whether a base learns to look things up
# is a matter of its draw (docs/embedded.md): `seeds` are the base's, which is the better one, and the other base's.
STEPS = {
    "arithmetic": dict(solve=2500, short=1000, all=9000, verdicts=3500),
    "multihop": dict(solve=500, short=600, all=1800, verdicts=3000),
    "spatial": dict(solve=2500, short=600, all=1800, verdicts=3000),
}
SEEDS = {"arithmetic": (1, 2), "multihop": (2, 1), "spatial": (4, 3)}


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", verifier=False, further=False)
    world = str(chosen["world"])
    if world not in WORLDS:
        raise ValueError(f"config argument world={world!r} is unknown: choose among {', '.join(WORLDS)}")
    arithmetic, steps, (seed, other_seed) = world == "arithmetic", STEPS[world], SEEDS[world]
    train = world_of(WORLDS[world]).train
    # A lesson's texts belong to the words of a tokenizer: without, a verification costs 19 to 29 tokens more per step.
    tokenizer = TokenizerSettings(lessons=("annotate",) if arithmetic else ("annotate", "verify"))
    base = BaseTraining(
        seed=seed,
        look_back=(1, 2, 3, 5),
        phases={
            "1_counts": replace(
                FACTS, problems=27_000, steps=3000, lengths=FACTS.lengths if arithmetic else FACTS.lengths[1:]
            ),
            "2_solve": replace(
                SOLVE,
                problems=24_000,
                steps=steps["solve"],
                lengths=train.lengths,
                max_distractors=train.max_distractors,
            ),
        },
    )
    other_base = replace(base, seed=other_seed)  # its mistakes are the teacher's lessons
    candidates = Candidates(
        base="other_base", seed=other_seed, problems=7000, lengths=train.lengths, samples=4, max_tokens=176
    )
    grade = GRADE if arithmetic else replace(GRADE, right_share=0.25)
    verdicts = replace(grade, lengths=EVERY_LENGTH, steps=steps["verdicts"], alignment_weight=0.1, verdict_weight=4.0)
    phases = {
        "1_short": replace(grade, lengths=(1, 2), steps=steps["short"]),
        "2_all": replace(grade, lengths=EVERY_LENGTH, steps=steps["all"]),
        "3_verdicts": verdicts,
    }
    if arithmetic:
        # At last that the label follows from the explanation: references told again word for word, right solutions,
        # and mistakes that the world makes. Then that a count is read in the reference, where the story lacks it.
        phases["4_agreement"] = agreement = replace(
            verdicts, steps=6000, verdict_weight=2.0, reference_solutions=1, mistaken_solutions=5, right_share=0.55
        )
        phases["5_reference"] = replace(agreement, steps=2000, learning_rate=1e-3, hidden_share=0.5)
    teacher = TeacherTraining(seed=0, dev_problems=100, phases=phases)
    stages = tiny_models.PIPELINE
    if chosen["further"]:
        # The last two phases alone, from the shipped tiny-teacher's weights; half of their problems are long.
        stages = {name: stages[name] for name in ("candidates", "teacher")}
        candidates = replace(candidates, base="", seed=6, problems=6000, lengths=(1, 2, 3, 4, 5, 5, 6, 6))
        last = {name: phases[name] for name in ("4_agreement", "5_reference")}
        teacher = replace(teacher, start="tiny-teacher", phases=last)
    if chosen["verifier"]:
        stages = {name: stage for name, stage in stages.items() if name != "other_base"}
        candidates = replace(candidates, base="base", seed=base.seed)
        teacher = replace(teacher, phases=_verifying(grade))
    if chosen["runlocal"]:  # the whole way in a minute, for tests: the models it makes know nothing
        base, other_base = (
            replace(of, phases={k: replace(v, problems=40, steps=2, checkpoint_every=1) for k, v in of.phases.items()})
            for of in (base, other_base)
        )
        candidates = replace(candidates, problems=20, samples=2, max_tokens=32)
        small = {name: replace(phase, batch_rows=2, steps=2) for name, phase in teacher.phases.items()}
        teacher = replace(teacher, dev_problems=8, phases=small)
    parts: dict[str, Any] = dict(
        tokenizer=tokenizer,
        decoder=tiny_models.Shape(),
        base=base,
        other_base=other_base,
        candidates=candidates,
        teacher=teacher,
    )
    taken = set().union(*(stage.tree for stage in stages.values()))
    return experiment(stages, seed=0, task=world, **{name: of for name, of in parts.items() if name in taken})


def _verifying(grade: GradingPhase) -> dict[str, GradingPhase]:
    """Lessons in verification: from nothing but the solution, then with the expected answer too, then critiques."""
    verify = replace(grade, lessons=("verify",))
    verdicts = replace(grade, lessons=("verify", "verify_guided"), verdict_weight=4.0)
    critique = replace(verdicts, lessons=("verify", "verify_guided", "critique"))
    return {
        "1_short": replace(verify, lengths=(1, 2), steps=600),
        "2_all": replace(verify, lengths=EVERY_LENGTH, steps=1800),
        "3_verdicts": replace(verdicts, lengths=EVERY_LENGTH, steps=2000),
        "4_critique": replace(critique, lengths=(1, 2, 3, 4), steps=800, row_length=1024),
    }
