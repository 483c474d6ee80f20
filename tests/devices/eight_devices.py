"""Run by test_sharding.py in a process of its own, because the number of devices is fixed when JAX starts
(XLA_FLAGS in the environment sets it).

Prints one JSON object with what was seen on a mesh of 2 x 2 x 2 fake CPU devices.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spare_jax.models import config, decoder, huggingface, sharding, weights

CONFIG = config.DecoderConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    tie_embeddings=False, family="qwen2",
)  # fmt: skip


def message(function, *args) -> str:
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    return "no error"


def spec(array) -> list:
    return list(array.sharding.spec)


def main(directory: str) -> dict:
    mesh = sharding.make_mesh(2, 2, 2)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    abstract = jax.eval_shape(lambda key: decoder.init_decoder(CONFIG, key), jax.random.key(0))
    model_shardings = sharding.shardings_of(abstract, mesh)
    abstract_moments = jax.eval_shape(optimizer.init, abstract)
    state_shardings = sharding.shard_moments(abstract_moments, model_shardings, mesh)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def init(key):
        model = decoder.init_decoder(CONFIG, key)
        return model, optimizer.init(model)

    def loss_of(model, ids):
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        hidden = decoder.hidden_states(model, ids, positions, jnp.ones_like(ids), remat="full")
        scores = decoder.logits(model, hidden)[:, :-1]
        return optax.softmax_cross_entropy_with_integer_labels(scores, ids[:, 1:]).mean()

    def train_step(model, state, ids):
        loss, grads = jax.value_and_grad(loss_of)(model, ids)
        updates, state = optimizer.update(grads, state, model)
        return optax.apply_updates(model, updates), state, loss

    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (8, 140))
    alone = jax.device_put(init(jax.random.key(0))[0], jax.devices()[0])
    one_loss = float(jax.jit(loss_of)(alone, jnp.asarray(ids)))

    seen = {}
    with jax.set_mesh(mesh):
        born = jax.jit(init, out_shardings=(model_shardings, state_shardings))
        model, state = born(jax.random.key(0))
        query = model.blocks.attention.query.kernel.get_value()
        moment = state[1][0].mu.blocks.attention.query.kernel.get_value()
        seen["query"] = [spec(query), list(query.shape), list(query.addressable_shards[0].data.shape)]
        seen["moment"] = [spec(moment), list(moment.addressable_shards[0].data.shape)]
        seen["embed"] = spec(model.embed.get_value())
        seen["count"] = spec(state[1][0].count)
        seen["structure"] = jax.tree.structure(model) == jax.tree.structure(model_shardings)

        huggingface.save_weights(directory, model)
        weights.PIECE_BYTES = 400  # a few rows, so that every shard is written in pieces that its rows do not divide by
        loaded = huggingface.load_weights(directory, CONFIG, mesh=mesh)
        pairs = list(zip(jax.tree.leaves(model), jax.tree.leaves(loaded), strict=True))
        seen["loaded_equal"] = all(np.array_equal(a, b) for a, b in pairs)
        seen["loaded_shardings"] = all(a.sharding == b.sharding for a, b in pairs)

        batch = jax.device_put(ids, sharding.batch_sharding(mesh))
        seen["batch_shard"] = list(batch.addressable_shards[0].data.shape)
        step = jax.jit(train_step, donate_argnums=(0, 1), out_shardings=(model_shardings, state_shardings, replicated))
        losses = []
        for _ in range(3):
            model, state, loss = step(model, state, batch)
            losses.append(float(loss))
        seen["losses"], seen["one_device_loss"], seen["compiled"] = losses, one_loss, step._cache_size()
        seen["still_sharded"] = spec(model.blocks.attention.query.kernel.get_value())

    rules = sharding.ShardingRules(embed="tensor")
    seen["one_axis_twice"] = message(sharding.shardings_of, abstract, mesh, rules)
    odd = config.DecoderConfig(63, 32, 48, 2, 4, 2, 8)
    odd = jax.eval_shape(lambda key: decoder.init_decoder(odd, key), jax.random.key(0))
    seen["not_divisible"] = message(sharding.shardings_of, odd, mesh)
    seen["wrong_product"] = message(sharding.make_mesh, 3, 2, 1)
    return seen


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
