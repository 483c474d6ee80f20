"""SPARK's meta-critique (arXiv 2512.03244, stage I): a verification is criticised and written again.

The conversation of prompts/verify.py goes on after the verifier's answer: the verifier is asked for a critique of it,
and then for the merged verification, which has the grammar of any verification.
"""

from collections.abc import Sequence

from spare_jax.prompts.chat import Message

BRIEF_CRITIQUE = "Criticise your verification."
BRIEF_MERGE = "Verify each step again."
"""The instructions for embedded models."""

CRITIQUE = """\
Now criticise your verification. Go through it step by step, work out again what you claimed, and name every fault of \
these kinds, with the number of the step:
- a missed error: the step is wrong and you called it correct;
- a false alarm: the step is right and you called it incorrect, for instance because it takes another route than yours;
- a wrong reason: the verdict holds, but not for the reason that you gave;
- a contradiction: the verdict says something else than your own analysis of the step, or your verdict on the answer \
something else than the verdicts on the steps.
Where there is no fault, say so, and invent none. Do not write the verification again yet."""

MERGE = """\
Now write the final verification, whole, in the form that was asked for at the beginning. Mend what your critique \
found and keep what it did not object to. Do not mention the critique: the text must stand by itself."""


def go_on(asked: Sequence[Message], answer: str, instruction: str) -> list[Message]:
    """The conversation `asked`, the `answer` to it, and the next instruction."""
    return [*asked, {"role": "assistant", "content": answer}, {"role": "user", "content": instruction}]
