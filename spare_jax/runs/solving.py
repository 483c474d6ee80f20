"""Solutions of problems by a policy, written as records."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from spare_jax.engines.endpoint import Endpoint
from spare_jax.models import huggingface
from spare_jax.models.huggingface import Checkpoint
from spare_jax.records import Problem
from spare_jax.runs import models
from spare_jax.runs.run import Run, answer
from spare_jax.solvers import sample


def solve(
    run: Run,
    stage: str,
    checkpoint: Checkpoint | Endpoint,
    problems: Sequence[Problem],
    engine: models.EngineSettings,
    how: sample.SolveSettings,
    begun: Mapping[str, Sequence[int]] | None = None,
    kind: str = "solutions",
) -> None:
    """Sample `how.samples` solutions of every problem by one policy, and write them as records of a kind.

    `begun` has the token ids that a problem's solutions begin with, by its id; the others begin with nothing.
    """
    settings = dataclasses.replace(how, tokenizer_digest=huggingface.tokenizer_digest(checkpoint.tokenizer))
    started = {
        f"{stage}/{p.id}": functools.partial(
            sample.solutions, run.task, p, checkpoint.tokenizer, settings, (begun or {}).get(p.id, ())
        )
        for p in problems
    }
    engines = {"generator": models.engine(run, checkpoint, engine, how.max_tokens)}
    found = answer(run, stage, "", engines, started, or_else=lambda *_: [])
    run.work.write(kind, (solution for several in found for solution in several))
