"""Losses as (sum, count): dividing once, by the count of a whole batch, makes gradient accumulation token-exact.

Neither holds float32 logits of [batch, length, vocabulary]: at 8 x 2048 x 152k these are 10 GB. The reward model's
loss gathers the hidden states at the step tags first and takes two columns of the head; the language model's goes
through the tokens chunk by chunk and recomputes a chunk's logits in the backward pass.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from spare_jax.models import decoder

Batch = Mapping[str, Array]

# Up to this many logits (64 MB in float32) the language-model loss is one chunk and recomputes nothing.
_WHOLE_LOGITS = 2**24


def token_tag_loss(
    model: decoder.Decoder, batch: Batch, *, good_id: int, bad_id: int, remat: bool = False, dtype=jnp.float32
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy over the two vocabulary entries "-" and "+", read at the step tags (arXiv 2506.15498).

    With z the logits at a tag and y the label, a probability of "correct":
    loss = -y log softmax(z)[good] - (1 - y) log softmax(z)[bad]; hard labels are y = 0 and y = 1.

    Args:
      batch: as `batches.take` makes it; tags, labels, tag_weights of shape [batch, tags], weight 0 where padded or
        unknown.

    Returns:
      Weighted sum of the loss in nats, and sum of the weights (the number of supervised tags where weights are 1).
    """
    hidden = decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"], remat=remat, dtype=dtype)
    at_tags = jnp.take_along_axis(hidden, batch["tags"][:, :, None], axis=1)
    logits = decoder.class_logits(model, at_tags, (bad_id, good_id)).astype(jnp.float32)
    labels, weights = batch["labels"], batch["tag_weights"]
    losses = optax.softmax_cross_entropy(logits, jnp.stack([1 - labels, labels], axis=-1))
    return jnp.sum(losses * weights), jnp.sum(weights)


def lm_loss(
    model: decoder.Decoder, batch: Batch, *, remat: bool = False, dtype=jnp.float32, chunk_tokens: int = 2048
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Next-token cross-entropy where `loss_weights` is not 0.

    Args:
      batch: as `batches.take` makes it; loss_weights[b, t] is the weight of predicting ids[b, t + 1] from position t.
      chunk_tokens: how many tokens' logits exist at once where the whole would be large.

    Returns:
      Weighted sum of the loss in nats, and sum of the weights (the number of predicted tokens where weights are 1).
    """
    hidden = decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"], remat=remat, dtype=dtype)
    # A position whose next token belongs to another segment has weight 0, so the token rolled in does not matter.
    targets = jnp.roll(batch["ids"], -1, axis=1)
    weights = batch["loss_weights"]

    def chunk_loss(model, hidden, targets, weights):
        logits = decoder.logits(model, hidden).astype(jnp.float32)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights)

    rows, length = targets.shape
    if rows * length * model.config.vocab_size <= _WHOLE_LOGITS:
        return chunk_loss(model, hidden, targets, weights), jnp.sum(weights)
    # Chunks cut the time axis, not the rows: under data parallelism every device works in every chunk.
    width = max(w for w in range(1, length + 1) if length % w == 0 and (w == 1 or w * rows <= chunk_tokens))
    chunks = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(rows, length // width, width, *x.shape[2:]), 1, 0), (hidden, targets, weights)
    )
    one = jax.checkpoint(lambda total, chunk: (total + chunk_loss(model, *chunk), None))
    total, _ = jax.lax.scan(one, jnp.zeros((), jnp.float32), chunks)
    return total, jnp.sum(weights)
