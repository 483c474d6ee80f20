"""Losses as terms, each a sum over a count, so that microbatches change nothing but the order of a sum.

A loss says two things of a batch: `sums`, one number per term, and `counts`, what each of them is divided by. The
objective is the sum over the terms of sum / count, both of a whole batch. Counts need no model: the train step has
them before its first microbatch, divides every microbatch's sums by them, and only adds.

None of them holds float32 logits of [batch, length, vocabulary]: at 8 x 2048 x 152k these are 10 GB. The reward model's
loss gathers the hidden states at the step tags first and takes two columns of the head; the others go through the
tokens chunk by chunk (`token_logps`) and recompute a chunk's logits in the backward pass.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from spare_jax.keys import unlisted
from spare_jax.models import decoder
from spare_jax.models.rows import gathers_kernels, row_shares

Batch = Mapping[str, Array]

# Up to this many logits on a device (64 MB in float32) all tokens are one chunk, and nothing is recomputed.
WHOLE_LOGITS = 2**24
# Where there are more, the logits of so many tokens of a device exist at once. Every chunk adds to the gradient of the
# head and, over fsdp, gathers the head: an accelerator does that slower than its products, so its chunks are large.
CHUNK_TOKENS = 2048
CHUNK_TOKENS_ON_CPU = 512


class Loss(Protocol):
    """What the loop trains with: the losses of this module.

    The last terms may be `watched`: they are named there, measured in every step, and no part of the objective.
    """

    watched: ClassVar[tuple[str, ...]]

    def sums(
        self, model: decoder.Decoder, batch: Batch, *, key: PRNGKeyArray | None = None, remat: decoder.Remat, dtype: Any
    ) -> Float[Array, " terms"]:
        """The sum of each term over a batch [rows, ...], differentiable in the model. There is a `key` in a step of
        training alone; `remat` and `dtype` are those of `decoder.hidden_states`."""
        ...

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        """What each sum is divided by; the batch may have further axes in front. The last is what the step's log calls
        `supervised`."""
        ...


@dataclasses.dataclass(frozen=True)
class TokenTagLoss:
    """Cross-entropy over the two vocabulary entries "-" and "+", read at the step tags (arXiv 2506.15498).

    With z the logits at a tag and y the label, a probability of "correct":
    loss = -y log softmax(z)[good] - (1 - y) log softmax(z)[bad]; hard labels are y = 0 and y = 1.

    One term, in nats: the mean over the tags by their weights. A batch (of `batches.pack`) has tags, labels and
    tag_weights of shape [rows, tags], weight 0 where padded or unknown.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    good_id: int
    bad_id: int

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype=jnp.float32,
    ) -> Float[Array, " terms"]:
        hidden = _hidden_states(model, batch, remat=remat, dtype=dtype)
        at_tags = jnp.take_along_axis(hidden, batch["tags"][:, :, None], axis=1)
        logits = decoder.class_logits(model, at_tags, (self.bad_id, self.good_id)).astype(jnp.float32)
        labels = batch["labels"]
        losses = optax.softmax_cross_entropy(logits, jnp.stack([1 - labels, labels], axis=-1))
        return jnp.sum(losses * batch["tag_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["tag_weights"])[None]


@dataclasses.dataclass(frozen=True)
class LanguageModelLoss:
    """Next-token cross-entropy where `loss_weights` is not 0: SFT on completions, where the weights are those of
    `batches.completion_example`.

    One term, in nats: the mean over the tokens by their weights; loss_weights[b, t] is the weight of predicting
    ids[b, t + 1] from position t.

    With `neftune_alpha` (NEFTune, arXiv 2310.05914; SPARE's SFT takes 5) a step of training adds noise to the
    embeddings, uniform in +-alpha / sqrt(L d), with d the hidden size and L the length of the token's own text.
    Hugging Face takes the padded length of the batch for L. Evaluation, which has no key, adds none.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    neftune_alpha: float = 0.0

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype=jnp.float32,
    ) -> Float[Array, " terms"]:
        noise = None
        if key is not None and self.neftune_alpha:
            noise = self.neftune_alpha * _unit_noise(key, batch["segments"], model.config.hidden_size)
        logps = token_logps(model, batch, noise=noise, remat=remat, dtype=dtype)
        return -jnp.sum(logps * batch["loss_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["loss_weights"])[None]


@dataclasses.dataclass(frozen=True)
class ORPOLoss:
    """Odds ratio preference optimisation (arXiv 2403.07691) on rows of `batches.pack_pairs`.

    With log P(y|x) the *mean* log-probability of a completion's tokens (the paper's section 4.1), odds = P / (1 - P).
    Two terms in nats: the negative log-likelihood of the chosen, mean over the tokens of all pairs, and
    -beta log sigmoid(log odds(chosen) - log odds(rejected)), mean over the pairs (eq. 6 and 7, where beta is lambda).
    A pair's weight multiplies its share of both and of their counts. `beta` is SPARE's; TRL's default is 0.1.

    The paper's likelihood is that of the completion given its prompt. TRL 1.13's (trl.experimental.orpo) is that of
    prompt and completion, all tokens but the first: `nll_on_prompt` is that one.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    beta: float = 0.2
    nll_on_prompt: bool = False

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype=jnp.float32,
    ) -> Float[Array, " terms"]:
        completion, likely = batch["loss_weights"], self._likely(batch)
        logps = token_logps(model, batch, completion + likely > 0, remat=remat, dtype=dtype)
        means = _of_pairs(logps * completion, batch) / jnp.maximum(_of_pairs(completion, batch), 1)
        odds = log_odds(means)
        odds_ratio = -self.beta * jax.nn.log_sigmoid(odds[..., 0] - odds[..., 1])
        nll = -_of_pairs(logps * likely, batch)[..., 0]
        weights = batch["pair_weights"]
        return jnp.stack([jnp.sum(nll * weights), jnp.sum(odds_ratio * weights)])

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        tokens, weights = _of_pairs(self._likely(batch), batch)[..., 0], batch["pair_weights"]
        return jnp.stack([jnp.sum(tokens * weights), jnp.sum(weights)])

    def _likely(self, batch: Batch) -> Float[Array, "*batch length"]:
        """1 where the prediction from a position belongs to the negative log-likelihood."""
        if not self.nll_on_prompt:
            return batch["loss_weights"]
        return (jnp.roll(batch["positions"], -1, axis=-1) == batch["positions"] + 1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class DPOLoss:
    """Direct preference optimisation (arXiv 2305.18290, eq. 7) on rows of `batches.pack_pairs` that went through
    `loop.with_reference`.

    With log P(y|x) the *summed* log-probability of a completion's tokens and log R that of the reference model, one
    term in nats: -log sigmoid(beta (log P/R of the chosen - log P/R of the rejected)), the mean over the pairs by
    their weights. `beta` is TRL's default.

    Step-DPO (arXiv 2406.18629) is this loss on pairs whose prompt holds the right steps before a first error.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    beta: float = 0.1

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype=jnp.float32,
    ) -> Float[Array, " terms"]:
        if "reference_logps" not in batch:
            raise ValueError("rows without the reference's log-probabilities: pass them through loop.with_reference")
        gains = pair_logps(model, batch, remat=remat, dtype=dtype) - batch["reference_logps"]
        losses = -jax.nn.log_sigmoid(self.beta * (gains[..., 0] - gains[..., 1]))
        return jnp.sum(losses * batch["pair_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["pair_weights"])[None]


@dataclasses.dataclass(frozen=True)
class GRPOLoss:
    """Group relative policy optimisation (arXiv 2402.03300, eq. 3) on rows of `batches.pack_samples`.

    Of a sampled token with the ratio r = exp(log pi - log pi_sampling) and the advantage A:
    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight * KL. A `clip_high` above `clip_low` is DAPO's
    clip-higher (arXiv 2503.14476, section 3.1). `mean` says over what the tokens are summed and divided:

    - "token": all tokens of the batch by their number (DAPO; TRL's "bnpo", and its "dapo" in one process);
    - "sequence": a completion's by their number, and the mean of these (the formula of arXiv 2402.03300; TRL's "grpo");
    - "constant": all by `max_tokens` times the number of completions (Dr. GRPO, arXiv 2503.20783; TRL's "dr_grpo").

    `kl` estimates KL(pi || reference) at a token from d = log reference - log pi: "k1" is -d, "k2" d^2 / 2, "k3"
    exp(d) - d - 1. As a term of a loss k1 has no gradient in expectation: it is for measuring. With a `kl_weight` rows
    need `reference_logps`, which `grpo.py` puts beside them.

    Two terms in nats, the clipped objective and the weighted KL; watched, as means over tokens: "kl", "clipped" (the
    share of tokens whose gradient the clip removes) and "log_ratio", the mean of |log r|.
    """

    watched: ClassVar[tuple[str, ...]] = ("kl", "clipped", "log_ratio")

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_weight: float = 0.001
    kl: str = "k3"
    mean: str = "token"
    max_tokens: int = unlisted(0)

    def __post_init__(self):
        if self.kl not in KL_ESTIMATORS:
            raise ValueError(f"kl={self.kl!r} is unknown: use {', '.join(KL_ESTIMATORS)}")
        if self.mean not in ("token", "sequence", "constant"):
            raise ValueError(f"mean={self.mean!r} is unknown: use token, sequence or constant")
        if self.mean == "constant" and self.max_tokens < 1:
            raise ValueError("mean='constant' divides by max_tokens: set it to the longest completion's")

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype=jnp.float32,
    ) -> Float[Array, " terms"]:
        sampled, gains = batch["loss_weights"], batch["advantages"]
        # Where nothing was sampled all log-probabilities are 0: no ratio there can overflow.
        logps = token_logps(model, batch, remat=remat, dtype=dtype)
        log_ratios = logps - batch["sampled_logps"]
        ratios = jnp.exp(log_ratios)
        clipped = jnp.clip(ratios, 1 - self.clip_low, 1 + self.clip_high)
        policy = -jnp.minimum(ratios * gains, clipped * gains)
        kl = jnp.zeros_like(logps)
        if self.kl_weight:
            if "reference_logps" not in batch:
                raise ValueError("rows without the reference's log-probabilities: add them, or set kl_weight to 0")
            kl = KL_ESTIMATORS[self.kl](batch["reference_logps"] - logps)
        removed = jnp.where(gains < 0, ratios < 1 - self.clip_low, (ratios > 1 + self.clip_high) & (gains > 0))
        weights = batch["sequence_weights"] if self.mean == "sequence" else sampled
        terms = [policy * weights, self.kl_weight * kl * weights, kl, removed, jnp.abs(log_ratios)]
        return jnp.stack([jnp.sum(term) for term in terms])

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        tokens, sequences = jnp.sum(batch["loss_weights"]), jnp.sum(batch["sequence_weights"])
        count = {"token": tokens, "sequence": sequences, "constant": self.max_tokens * sequences}[self.mean]
        return jnp.stack([count, count, tokens, tokens, tokens])


KL_ESTIMATORS = {
    "k1": lambda d: -d,
    "k2": lambda d: jnp.square(d) / 2,
    "k3": lambda d: jnp.expm1(d) - d,
}


def pair_logps(
    model: decoder.Decoder, batch: Batch, *, remat: decoder.Remat = "none", dtype=jnp.float32
) -> Float[Array, "rows pairs 2"]:
    """Log-probability in nats of each completion given its prompt, the sum over its tokens: first the chosen one's,
    then the rejected one's; 0 where a row has no such pair. Rows are those of `batches.pack_pairs`."""
    return _of_pairs(token_logps(model, batch, remat=remat, dtype=dtype) * batch["loss_weights"], batch)


def token_logps(
    model: decoder.Decoder,
    batch: Batch,
    asked: Bool[Array, "rows length"] | None = None,
    *,
    noise: Float[Array, "rows length hidden"] | None = None,
    remat: decoder.Remat = "none",
    dtype=jnp.float32,
) -> Float[Array, "rows length"]:
    """Log-probability in nats of predicting ids[b, t + 1] from position t, in float32, where it is `asked`, by default
    where `loss_weights` is not 0; elsewhere 0.

    `noise` is added to the embeddings. More than WHOLE_LOGITS logits on a device are made for some of its tokens at a
    time, and again in the backward pass. On a CPU those that are asked come first, and chunks of others are left out;
    not over fsdp, where a branch around what a chunk gathers took a v5e chip 2.3 GB more (docs/performance.md).
    """
    hidden = _hidden_states(model, batch, noise=noise, remat=remat, dtype=dtype)
    targets = jnp.roll(batch["ids"], -1, axis=1)
    asked = batch["loss_weights"] > 0 if asked is None else asked

    def of_chunk(hidden, targets, asked):
        logps = -optax.softmax_cross_entropy_with_integer_labels(decoder.logits(model, hidden), targets)
        return jnp.where(asked, logps, 0)

    # A device's own tokens are cut, so that under data parallelism every device works in every chunk.
    rows, length = targets.shape
    devices = row_shares(rows)
    tokens = rows // devices * length
    if tokens * model.config.vocab_size <= WHOLE_LOGITS:
        return of_chunk(hidden, targets, asked)
    leaves_out = jax.default_backend() == "cpu" and not gathers_kernels()
    number = math.ceil(tokens / (CHUNK_TOKENS_ON_CPU if leaves_out else CHUNK_TOKENS))
    width = math.ceil(tokens / number)

    def of_device(x):
        """[devices, number * width, ...]: what fills the last chunk up is not asked."""
        x = x.reshape(devices, tokens, *x.shape[2:])
        return jnp.pad(x, ((0, 0), (0, number * width - tokens), *((0, 0) for _ in x.shape[2:])))

    arrays = [of_device(x) for x in (hidden, targets, asked)]
    order = jnp.argsort(~arrays[2], axis=1, stable=True) if leaves_out else None
    take = jax.vmap(lambda x, order: x[order])
    if order is not None:
        arrays = [take(x, order) for x in arrays]

    @jax.checkpoint
    def of_some(chunk):
        if not leaves_out:
            return of_chunk(*chunk)
        nothing = jnp.zeros(chunk[1].shape, jnp.float32)
        return jax.lax.cond(jnp.any(chunk[2]), of_chunk, lambda *_: nothing, *chunk)

    chunks = [jnp.moveaxis(x.reshape(devices, number, width, *x.shape[2:]), 1, 0) for x in arrays]
    logps = jnp.moveaxis(jax.lax.map(of_some, chunks), 0, 1).reshape(devices, number * width)
    if order is not None:
        logps = take(logps, jnp.argsort(order, axis=1))
    return logps[:, :tokens].reshape(rows, length)


def log_odds(logps: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log(P / (1 - P)) of log P <= 0, exact to some units of the last place of float32 from -1e-7 down to any depth.

    Where P is 1 to float32, 1 - P is taken as its epsilon: a value of 16, and a slope that is large and finite.
    """
    epsilon = jnp.finfo(jnp.float32).eps
    logps += jax.lax.stop_gradient(jnp.minimum(logps, -epsilon) - logps)
    return logps - jnp.log(-jnp.expm1(logps))


def _hidden_states(model: decoder.Decoder, batch: Batch, **options: Any) -> Float[Array, "rows length hidden"]:
    return decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"], **options)


def _of_pairs(values: Float[Array, "*batch length"], batch: Batch) -> Float[Array, "*batch pairs 2"]:
    """Sums of `values` over the two texts of every pair: pair p of a row is its segments 2p + 1 and 2p + 2."""
    numbers = 1 + jnp.arange(2 * batch["pair_weights"].shape[-1]).reshape(-1, 2, 1)
    there = batch["segments"][..., None, None, :] == numbers
    return jnp.sum(jnp.where(there, values[..., None, None, :], 0), axis=-1)


def _unit_noise(
    key: PRNGKeyArray, segments: Int[Array, "rows length"], hidden_size: int
) -> Float[Array, "rows length hidden"]:
    """Uniform in +-1 / sqrt(L d), with L the number of tokens of a position's segment."""
    lengths = jnp.sum(segments[:, :, None] == segments[:, None, :], axis=-1)
    noise = jax.random.uniform(key, (*segments.shape, hidden_size), minval=-1, maxval=1)
    return noise * jax.lax.rsqrt(1.0 * lengths * hidden_size)[..., None]
