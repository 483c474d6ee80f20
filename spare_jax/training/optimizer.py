"""AdamW and Muon with warm-up and cosine decay (arXiv 2506.15498)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib


def learning_rate_schedule(peak: float, steps: int, warmup: float) -> optax.Schedule:
    """Linear warm-up over the fraction `warmup` of `steps`, then cosine decay to 0 at `steps`. The first step's rate is
    not 0 but peak / (warm-up steps + 1)."""
    warmup_steps = round(warmup * steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (warmup_steps + 1), peak_value=peak, warmup_steps=warmup_steps, decay_steps=max(1, steps)
    )


def adamw(schedule: optax.Schedule, weight_decay: float, clip: float) -> optax.GradientTransformation:
    """AdamW of gradients that are clipped to the global norm `clip`; norm scales and biases are not decayed. Initialise
    it by `init_state`, which keeps both moments in float32."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(b1=0.9, b2=0.95, eps=1e-8),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.scale_by_learning_rate(schedule),
    )


def muon(schedule: optax.Schedule, weight_decay: float, clip: float) -> optax.GradientTransformation:
    """Muon for the kernels of the blocks; AdamW with Nesterov momentum for embeddings, head, norms and biases.

    Muon (Jordan et al. 2024) updates a kernel by its orthogonalised momentum, scaled to the RMS of Adam's updates (Liu
    et al. 2025, section 2.2), so that both take the same learning rate and weight decay. Unlike `adamw` it decays norm
    scales and biases too, since optax has no mask for them here.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.contrib.muon(
            schedule,
            weight_decay=weight_decay,
            adam_b2=0.95,
            adam_weight_decay=weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_kernels,
        ),
    )


OPTIMIZERS = {"adamw": adamw, "muon": muon}


def _kernels(params: Any) -> Any:
    """A tree like `params`: the axes of stacked kernels [layers, in, out], and None for what Muon does not update."""

    def axes(path: Any, _: Any) -> optax.contrib.MuonDimensionNumbers | None:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        stacked = name.startswith("blocks.") and ".kernel" in name
        return optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2) if stacked else None

    return jax.tree.map_with_path(axes, params)


def init_state(optimizer: optax.GradientTransformation, params: Any) -> optax.OptState:
    """The optimiser's state at step 0. Moments take the dtype of the parameters that it is given: float32 ones."""
    return optimizer.init(jax.tree.map(lambda p: p.astype(jnp.float32), params))


def decayed(params: Any) -> Any:
    """A tree of bools like `params`: whether weight decay applies, which it does not to norm scales and biases."""
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(params)]
    return jax.tree.unflatten(jax.tree.structure(params), ["norm" not in n and "bias" not in n for n in names])
