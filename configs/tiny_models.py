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

from ml_collections import ConfigDict

from spare_jax.runs import settings
from spare_jax.runs.splits import WORLDS
from spare_jax.tasks.task import world_of

PHASE = dict(
    batch_rows=4, optimizer="muon", learning_rate=2e-3, warmup=0.02, weight_decay=0.01, clip=1.0, eval_every=500,
    patience=1000, checkpoint_every=1000,
)  # fmt: skip
# First to look things up by name: solutions that state every fact of a short story. Then the reference solutions alone.
FACTS = PHASE | dict(
    row_length=320, split="pretraining-counts", lengths=(0, 1, 2, 3), max_distractors=4, every_fact=True
)
SOLVE = PHASE | dict(row_length=320, split="pretraining-solve", every_fact=False)
GRADE = PHASE | dict(
    row_length=768, right_solutions=1, right_share=1.0, alignment_weight=1.0, verdict_weight=1.0, lessons=("annotate",)
)  # fmt: skip
# At last that the label follows from the explanation: references told again word for word, right solutions, and
# mistakes that the world makes. Then that a count is read in the reference, where the story does not tell it.
AGREE = dict(
    steps=6000, learning_rate=2e-3, alignment_weight=0.1, verdict_weight=2.0, reference_solutions=1,
    mistaken_solutions=5, right_share=0.55,
)  # fmt: skip
REFERENCE = AGREE | dict(steps=2000, learning_rate=1e-3, hidden_share=0.5)
# The arithmetic world's figures were found first; the others are learnt sooner. Whether a base learns to look things up
# is a matter of its draw (docs/embedded.md): `seeds` are the base's, which is the better one, and the other base's.
STEPS = {
    "arithmetic": dict(seeds=(1, 2), solve=2500, short=1000, all=9000, verdicts=3500),
    "multihop": dict(seeds=(2, 1), solve=500, short=600, all=1800, verdicts=3000),
    "spatial": dict(seeds=(4, 3), solve=2500, short=600, all=1800, verdicts=3000),
}


def get_config(argument: str | None = None):
    chosen = settings.parse_argument(argument, runlocal=False, world="arithmetic", verifier=False, further=False)
    config: settings.Config = ConfigDict()
    config.seed = 0
    config.task = world = chosen["world"]
    if world not in WORLDS:
        raise ValueError(f"config argument world={world!r} is unknown: choose among {', '.join(WORLDS)}")
    train = world_of(WORLDS[world]).train
    steps, grade = STEPS[world], GRADE if world == "arithmetic" else GRADE | dict(right_share=0.25)
    facts = FACTS if world == "arithmetic" else FACTS | dict(lengths=(1, 2, 3))
    solve = SOLVE | dict(lengths=train.lengths, max_distractors=train.max_distractors)
    config.stages = ("tokenizer", "base", "other_base", "candidates", "teacher")
    config.mesh = settings.mesh_entry()
    config.engine = settings.default().engine
    # A lesson's texts belong to the words of a tokenizer: without, a verification costs 19 to 29 tokens more per step.
    lessons = ("annotate",) if world == "arithmetic" else ("annotate", "verify")
    config.tokenizer = ConfigDict(dict(vocab_size=640, lessons=lessons))
    config.decoder = ConfigDict(
        dict(
            hidden_size=128, intermediate_size=384, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
            max_length=1024,
        )
    )  # fmt: skip
    config.base = ConfigDict(
        dict(
            seed=steps["seeds"][0],
            look_back=(1, 2, 3, 5),
            phases={
                "1_counts": facts | dict(problems=27_000, steps=3000),
                "2_solve": solve | dict(problems=24_000, steps=steps["solve"]),
            },
        )
    )
    # The same from another seed: its mistakes are the teacher's lessons.
    config.other_base = ConfigDict(config.base.to_dict() | dict(seed=steps["seeds"][1]))
    config.candidates = ConfigDict(
        dict(
            base="other_base", seed=steps["seeds"][1], problems=7000, lengths=train.lengths, samples=4, temperature=1.0,
            top_p=1.0, max_tokens=176,
        )
    )  # fmt: skip
    every_length = grade | dict(lengths=(1, 2, 3, 4, 5, 6))
    phases = {
        "1_short": grade | dict(lengths=(1, 2), steps=steps["short"]),
        "2_all": every_length | dict(steps=steps["all"]),
        "3_verdicts": every_length | dict(steps=steps["verdicts"], alignment_weight=0.1, verdict_weight=4.0),
    }
    if world == "arithmetic":
        phases["4_agreement"] = every_length | AGREE
        phases["5_reference"] = every_length | REFERENCE
    config.teacher = ConfigDict(dict(seed=0, dev_problems=100, phases=phases))
    if chosen["further"]:
        _go_further(config)
    if chosen["verifier"]:
        _verify(config, grade)
    if chosen["runlocal"]:
        _small(config)
    return config


def _go_further(config) -> None:
    """Only the last two phases, from the shipped tiny-teacher's weights, on problems of their own: half of them long,
    since there its labels fail first."""
    config.stages = ("candidates", "teacher")
    config.candidates.update(base="", seed=6, problems=6000, lengths=(1, 2, 3, 4, 5, 5, 6, 6))
    config.teacher.start = "tiny-teacher"
    for phase in ("1_short", "2_all", "3_verdicts"):
        del config.teacher.phases[phase]


def _verify(config, grade) -> None:
    """Lessons in verification: from nothing but the solution, then with the expected answer too, then critiques."""
    config.stages = tuple(stage for stage in config.stages if stage != "other_base")
    config.candidates.update(base="base", seed=config.base.seed)
    verdicts = grade | dict(lessons=("verify", "verify_guided"), verdict_weight=4.0)
    config.teacher.phases = ConfigDict(
        {
            "1_short": grade | dict(lessons=("verify",), lengths=(1, 2), steps=600),
            "2_all": grade | dict(lessons=("verify",), lengths=(1, 2, 3, 4, 5, 6), steps=1800),
            "3_verdicts": verdicts | dict(lengths=(1, 2, 3, 4, 5, 6), steps=2000),
            "4_critique": verdicts
            | dict(lessons=("verify", "verify_guided", "critique"), lengths=(1, 2, 3, 4), steps=800, row_length=1024),
        }
    )


def _small(config) -> None:
    """The whole way in a minute, for tests: the models it makes know nothing."""
    for base in (config.base, config.other_base):
        for phase in base.phases.values():
            phase.update(problems=40, steps=2, checkpoint_every=1)
    config.candidates.update(problems=20, samples=2, max_tokens=32)
    config.teacher.dev_problems = 8
    for phase in config.teacher.phases.values():
        phase.update(batch_rows=2, steps=2)
