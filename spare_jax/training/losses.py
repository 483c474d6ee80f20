"""Losses as terms, each a sum over a count, so that microbatches change nothing but the order of a sum.

Of a batch a loss gives `sums`, one number per term, and `counts`, what each is divided by. The objective is the sum
over the terms of sum / count, both of a whole batch. Counts need no model: the train step has them before its first
microbatch, divides every microbatch's sums by them, and adds the results.

No loss holds float32 logits of [batch, length, vocabulary]: at 8 x 2048 x 152k these are 10 GB. The reward model's loss
gathers the hidden states at the step tags first and takes two columns of the head; the others go through the tokens
chunk by chunk (`next_token_logps`) and compute a chunk's logits again in the backward pass.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from spare_jax.keys import unlisted
from spare_jax.models import decoder
from spare_jax.models.rows import gathers_kernels, row_shares

Batch = Mapping[str, Array]

# Up to this many logits on a device (64 MB in float32) all tokens are one chunk, and nothing is recomputed.
WHOLE_LOGITS = 2**24
# Where there are more, a chunk is this many tokens of a device. Every chunk adds to the gradient of the head and, over
# fsdp, gathers the head; on an accelerator that takes longer than the products, so its chunks are large.
CHUNK_TOKENS = 2048
CHUNK_TOKENS_ON_CPU = 512


class Loss(abc.ABC):
    """What the loop trains with. A loss has terms, each a sum over a batch and a count that divides it.

    Terms that `watched` names come last; they are measured in every step and are no part of the objective.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    def sums(
        self,
        model: decoder.Decoder,
        batch: Batch,
        *,
        key: PRNGKeyArray | None = None,
        remat: decoder.Remat = "none",
        dtype: DTypeLike = jnp.float32,
    ) -> Float[Array, " terms"]:
        """The sum of each term over a batch [rows, ...], differentiable in the model. A `key` is given in a step of
        training alone: evaluation adds no noise. `remat` and `dtype` are those of `decoder.hidden_states`."""
        noise = None if key is None else self.embedding_noise(key, batch, model.config.hidden_size)
        return self.terms(model, _hidden_states(model, batch, noise=noise, remat=remat, dtype=dtype), batch)

    def embedding_noise(
        self, key: PRNGKeyArray, batch: Batch, hidden_size: int
    ) -> Float[Array, "rows length hidden"] | None:
        """What a step of training adds to the embeddings, None for nothing."""
        return None

    @abc.abstractmethod
    def terms(
        self, model: decoder.Decoder, hidden: Float[Array, "rows length hidden"], batch: Batch
    ) -> Float[Array, " terms"]:
        """The sum of each term, from the hidden states of the batch."""

    @abc.abstractmethod
    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        """What each sum is divided by; the batch may have further axes in front. The last is what the step's log calls
        `supervised`."""


@dataclasses.dataclass(frozen=True)
class TokenTagLoss(Loss):
    """Cross-entropy over the two vocabulary entries "-" and "+", read at the step tags (arXiv 2506.15498).

    With z the logits at a tag and y the label, a probability of "correct":
    loss = -y log softmax(z)[good] - (1 - y) log softmax(z)[bad]; hard labels are y = 0 and y = 1.

    One term, in nats: the mean over the tags with a label. A batch (of `batches.pack`) has tags, labels and tag_weights
    of shape [rows, tags], weight 0 where there is no tag or no label.
    """

    good_id: int
    bad_id: int

    def terms(self, model, hidden, batch) -> Float[Array, " terms"]:
        at_tags = jnp.take_along_axis(hidden, batch["tags"][:, :, None], axis=1)
        logits = decoder.class_logits(model, at_tags, (self.bad_id, self.good_id)).astype(jnp.float32)
        labels = batch["labels"]
        losses = optax.softmax_cross_entropy(logits, jnp.stack([1 - labels, labels], axis=-1))
        return jnp.sum(losses * batch["tag_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["tag_weights"])[None]


@dataclasses.dataclass(frozen=True)
class LanguageModelLoss(Loss):
    """Next-token cross-entropy where `loss_weights` is not 0: SFT on completions, where the weights are those of
    `batches.completion_example`.

    One term, in nats: the mean over the tokens by their weights; loss_weights[b, t] is the weight of predicting
    ids[b, t + 1] from position t.

    With `neftune_alpha` (NEFTune, arXiv 2310.05914; SPARE's SFT takes 5) a step of training adds noise to the
    embeddings, uniform in +-alpha / sqrt(L d), with d the hidden size and L the length of the token's own text.
    Hugging Face takes the padded length of the batch for L.
    """

    neftune_alpha: float = 0.0

    def embedding_noise(self, key, batch, hidden_size) -> Float[Array, "rows length hidden"] | None:
        return self.neftune_alpha * _unit_noise(key, batch["segments"], hidden_size) if self.neftune_alpha else None

    def terms(self, model, hidden, batch) -> Float[Array, " terms"]:
        return -jnp.sum(next_token_logps(model, hidden, batch) * batch["loss_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["loss_weights"])[None]


@dataclasses.dataclass(frozen=True)
class ORPOLoss(Loss):
    """Odds ratio preference optimisation (arXiv 2403.07691) on rows of `batches.pack_pairs`.

    With log P(y|x) the *mean* log-probability of a completion's tokens (the paper's section 4.1), odds = P / (1 - P).
    Two terms in nats: the negative log-likelihood of the chosen, mean over the tokens of all pairs, and
    -beta log sigmoid(log odds(chosen) - log odds(rejected)), mean over the pairs (eq. 6 and 7, where beta is lambda).
    `beta` is SPARE's; TRL's default is 0.1.

    The paper's likelihood is that of the completion given its prompt. TRL 1.13's (trl.experimental.orpo) is that of
    prompt and completion, all tokens but the first: `nll_on_prompt` is that one.
    """

    beta: float = 0.2
    nll_on_prompt: bool = False

    def terms(self, model, hidden, batch) -> Float[Array, " terms"]:
        completion, likelihood = batch["loss_weights"], self._likelihood_mask(batch)
        logps = next_token_logps(model, hidden, batch, completion + likelihood > 0)
        means = _pair_sums(logps * completion, batch) / jnp.maximum(_pair_sums(completion, batch), 1)
        odds = log_odds(means)
        odds_ratio = -self.beta * jax.nn.log_sigmoid(odds[..., 0] - odds[..., 1])
        nll = -_pair_sums(logps * likelihood, batch)[..., 0]
        weights = batch["pair_weights"]
        return jnp.stack([jnp.sum(nll * weights), jnp.sum(odds_ratio * weights)])

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        tokens, weights = _pair_sums(self._likelihood_mask(batch), batch)[..., 0], batch["pair_weights"]
        return jnp.stack([jnp.sum(tokens * weights), jnp.sum(weights)])

    def _likelihood_mask(self, batch: Batch) -> Float[Array, "*batch length"]:
        """1 where the prediction from a position belongs to the negative log-likelihood."""
        if not self.nll_on_prompt:
            return batch["loss_weights"]
        return (jnp.roll(batch["positions"], -1, axis=-1) == batch["positions"] + 1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class DPOLoss(Loss):
    """Direct preference optimisation (arXiv 2305.18290, eq. 7) on rows of `batches.pack_pairs` that went through
    `loop.with_reference`.

    With log P(y|x) the *summed* log-probability of a completion's tokens and log R that of the reference model, one
    term in nats: -log sigmoid(beta (log P/R of the chosen - log P/R of the rejected)), the mean over the pairs. `beta`
    is TRL's default.

    Step-DPO (arXiv 2406.18629) is this loss on pairs whose prompt holds the right steps before a first error.
    """

    beta: float = 0.1

    def terms(self, model, hidden, batch) -> Float[Array, " terms"]:
        if "reference_logps" not in batch:
            raise ValueError("rows without the reference's log-probabilities: pass them through loop.with_reference")
        logps = _pair_sums(next_token_logps(model, hidden, batch) * batch["loss_weights"], batch)
        gains = logps - batch["reference_logps"]
        losses = -jax.nn.log_sigmoid(self.beta * (gains[..., 0] - gains[..., 1]))
        return jnp.sum(losses * batch["pair_weights"])[None]

    def counts(self, batch: Batch) -> Float[Array, " terms"]:
        return jnp.sum(batch["pair_weights"])[None]


@dataclasses.dataclass(frozen=True)
class GRPOLoss(Loss):
    """Group relative policy optimisation (arXiv 2402.03300, eq. 3) on rows of `batches.pack_samples`.

    A sampled token with the ratio r = exp(log pi - log pi_sampling) and the advantage A has the loss
    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight * KL. A `clip_high` above `clip_low` is DAPO's
    clip-higher (arXiv 2503.14476, section 3.1). `mean` is how tokens are averaged:

    - "token": over all tokens of the batch (DAPO; TRL's "bnpo", and its "dapo" in one process);
    - "sequence": over the tokens of a completion, then over completions (arXiv 2402.03300's formula; TRL's "grpo");
    - "constant": their sum over `max_tokens` times the number of completions (Dr. GRPO, arXiv 2503.20783; TRL's
      "dr_grpo").

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

    def terms(self, model, hidden, batch) -> Float[Array, " terms"]:
        sampled, gains = batch["loss_weights"], batch["advantages"]
        # Where nothing was sampled all log-probabilities are 0: no ratio there can overflow.
        logps = next_token_logps(model, hidden, batch)
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


def token_logps(model: decoder.Decoder, batch: Batch, dtype: DTypeLike = jnp.float32) -> Float[Array, "rows length"]:
    """`next_token_logps` of a model that computes in `dtype`."""
    return next_token_logps(model, _hidden_states(model, batch, dtype=dtype), batch)


def pair_logps(model: decoder.Decoder, batch: Batch, dtype: DTypeLike = jnp.float32) -> Float[Array, "rows pairs 2"]:
    """Log-probability in nats of each completion given its prompt, the sum over its tokens: first the chosen one's,
    then the rejected one's; 0 where a row has no such pair. Rows are those of `batches.pack_pairs`."""
    return _pair_sums(token_logps(model, batch, dtype) * batch["loss_weights"], batch)


def next_token_logps(
    model: decoder.Decoder,
    hidden: Float[Array, "rows length hidden"],
    batch: Batch,
    mask: Bool[Array, "rows length"] | None = None,
) -> Float[Array, "rows length"]:
    """Log-probability in nats of predicting ids[b, t + 1] from position t, in float32, where `mask` is set, by default
    where `loss_weights` is not 0; elsewhere 0.

    More than WHOLE_LOGITS logits on a device are made for a chunk of its tokens at a time, and again in the backward
    pass. On a CPU the tokens of the mask come first, and chunks without any are left out; not over fsdp, where a branch
    around what a chunk gathers took a v5e chip 2.3 GB more (docs/performance.md).
    """
    targets = jnp.roll(batch["ids"], -1, axis=1)
    mask = batch["loss_weights"] > 0 if mask is None else mask

    def of_chunk(hidden, targets, mask):
        logps = -optax.softmax_cross_entropy_with_integer_labels(decoder.logits(model, hidden), targets)
        return jnp.where(mask, logps, 0)

    # A device's own tokens are cut, so that under data parallelism every device works in every chunk.
    rows, length = targets.shape
    devices = row_shares(rows)
    tokens = rows // devices * length
    if tokens * model.config.vocab_size <= WHOLE_LOGITS:
        return of_chunk(hidden, targets, mask)
    leaves_out = jax.default_backend() == "cpu" and not gathers_kernels()
    number = math.ceil(tokens / (CHUNK_TOKENS_ON_CPU if leaves_out else CHUNK_TOKENS))
    width = math.ceil(tokens / number)

    def of_device(x):
        """[devices, number * width, ...]: what fills the last chunk up is outside the mask."""
        x = x.reshape(devices, tokens, *x.shape[2:])
        return jnp.pad(x, ((0, 0), (0, number * width - tokens), *((0, 0) for _ in x.shape[2:])))

    arrays = [of_device(x) for x in (hidden, targets, mask)]
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
    """log(P / (1 - P)) from log P <= 0. For log P below -1e-7 the error is a few units in the last place of float32;
    closer to 0, 1 - P is taken as float32's epsilon, so that the value is 16 and the slope large and finite."""
    epsilon = jnp.finfo(jnp.float32).eps
    logps += jax.lax.stop_gradient(jnp.minimum(logps, -epsilon) - logps)
    return logps - jnp.log(-jnp.expm1(logps))


def _hidden_states(model: decoder.Decoder, batch: Batch, **options: Any) -> Float[Array, "rows length hidden"]:
    return decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"], **options)


def _pair_sums(values: Float[Array, "*batch length"], batch: Batch) -> Float[Array, "*batch pairs 2"]:
    """Sums of `values` over the chosen and the rejected text of every pair: segments 2p + 1 and 2p + 2 of a row."""
    numbers = 1 + jnp.arange(2 * batch["pair_weights"].shape[-1]).reshape(-1, 2, 1)
    inside = batch["segments"][..., None, None, :] == numbers
    return jnp.sum(jnp.where(inside, values[..., None, None, :], 0), axis=-1)


def _unit_noise(
    key: PRNGKeyArray, segments: Int[Array, "rows length"], hidden_size: int
) -> Float[Array, "rows length hidden"]:
    """Uniform in +-1 / sqrt(L d), with L the number of tokens of a position's segment."""
    lengths = jnp.sum(segments[:, :, None] == segments[:, None, :], axis=-1)
    noise = jax.random.uniform(key, (*segments.shape, hidden_size), minval=-1, maxval=1)
    return noise * jax.lax.rsqrt(1.0 * lengths * hidden_size)[..., None]
