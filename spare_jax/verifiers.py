"""Generative reward models by supervised fine-tuning on verifications (SPARK, arXiv 2512.03244, stage II).

The paper publishes no settings of this training. What is learnt is the text of the kind (prompts/generative.py) and the
end of it, behind the prompt by which the model is asked ever after.
"""

import logging
from collections.abc import Mapping, Sequence

from spare_jax.models import conventions
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts import generative, verify
from spare_jax.prompts.chat import encode, encode_chat, end_ids
from spare_jax.records import LabelledSolution
from spare_jax.run import Run
from spare_jax.training import batches, losses

logger = logging.getLogger(__name__)


def train_verifier(
    run: Run,
    stage: str,
    start: Checkpoint,
    kind: str,
    directory: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
) -> list[str]:
    """Train one generative reward model from `start` by `config.verifier`, and export it; returns what it wrote.

    Args:
      stage: whose training it is.
      kind: what the model learns to write: "orm", "prm" or "prm_cot".
      directory: of the work directory, for checkpoints/, export/, training.json and, with adapters, adapter/.
      labelled: {"train": ..., "dev": ...}, solutions whose judgement is the target. Those without a whole target
        (`generative.target`) are left out and counted. With `config.verifier.balanced` as many targets that say Yes as
        No are used, by their own word.

    Raises:
      ValueError: the kind is unknown, or there is nothing to learn from.
    """
    how = run.config.verifier
    guidelines = generative.BRIEF_GUIDELINES if how.brief else generative.GUIDELINES
    convention = conventions.GenerativeConvention(kind, guidelines.get(kind, ""))
    rows, left_out = [], {}
    for split in ("train", "dev"):
        found = ((item.judgement.outcome, example(run, start, convention, item)) for item in labelled[split])
        whole = [(outcome, learnt) for outcome, learnt in found if learnt is not None]
        left_out[split] = len(labelled[split]) - len(whole)
        if how.balanced:
            outcomes = [bool(outcome) for outcome, _ in whole]
            whole, warning = batches.outcome_balanced(whole, outcomes, run.config.seed)
            if warning:
                logger.warning("%s %s, %s split: %s", stage, kind, split, warning)
        rows.append(batches.pack([learnt for _, learnt in whole], how.train.row_length))
    if any(left_out.values()):
        logger.warning(
            "%s %s: of %d train and %d dev solutions %d and %d have no whole target and are left out",
            stage, kind, *(len(labelled[split]) for split in left_out), *left_out.values(),
        )  # fmt: skip
    counted = {"kind": kind, "left_out": left_out}
    loss = losses.LanguageModelLoss()
    written = run.fine_tune(f"{stage} {directory}", directory, start, loss, rows, how.train, counted)
    for path in written:
        if (run.work.path / path).is_dir():
            conventions.save_convention(run.work.path / path, convention)
    return written


def example(
    run: Run, start: Checkpoint, convention: conventions.GenerativeConvention, item: LabelledSolution
) -> batches.Example | None:
    """What is learnt of a solution: its target and the end of the text, behind the prompt; None where the target is not
    whole."""
    if (text := generative.target(convention.kind, item.judgement)) is None:
        return None
    messages = verify.render(run.task, item.problem, item.solution.steps, convention.guidelines)
    prompt = encode_chat(start.tokenizer, messages)
    return batches.completion_example([*prompt, *encode(start.tokenizer, text), *end_ids(start.tokenizer)], len(prompt))
