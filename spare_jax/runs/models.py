"""The models of a run: loaded by their role, put on an engine, and written when they have been trained."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from spare_jax import assets
from spare_jax.engines.endpoint import PREFIX as ENDPOINT
from spare_jax.engines.endpoint import Endpoint, EndpointEngine
from spare_jax.engines.local import LocalEngine
from spare_jax.models import adapters, huggingface, peft, quantization
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import ReadOut
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.chat import token_bytes
from spare_jax.runs.run import Engine, Run
from spare_jax.runs.settings import Config


def load(run: Run, role: str, dtype: DTypeLike = jnp.float32) -> Checkpoint:
    """The model of `config.models`, its parameters in `dtype`; judge and prm default to the generator. A
    path of the work directory comes before all others.

    Raises:
      ModelError: there is none, or it is a server's, whose weights nobody sees.
    """
    entry = _entry(run, role)
    if entry.path.startswith(ENDPOINT):
        raise huggingface.ModelError(
            f"config.models.{role} is {entry.path!r}, and this needs its weights: name a Hugging Face directory"
        )
    own = run.work.path / entry.path
    path = own if own.is_dir() else assets.resolve(entry.path)
    return huggingface.load(path, revision=entry.revision, dtype=dtype, mesh=run.inference_mesh)


def load_to_ask(run: Run, role: str) -> Checkpoint | Endpoint:
    """A model that is asked for text: the same, or a server's."""
    entry = _entry(run, role)
    if entry.path.startswith(ENDPOINT):
        return Endpoint(entry.path.removeprefix(ENDPOINT))
    return load(run, role)


def _entry(run: Run, role: str) -> Config:
    entry = run.config.models[role]
    if entry.path:
        return entry
    if role != "generator":
        return _entry(run, "generator")
    raise huggingface.ModelError(
        "config.models.generator.path is empty: set it to the directory of a Hugging Face model"
    )


def load_to_train(run: Run, role: str, lora: Config, dtype: str) -> Checkpoint:
    """The same, to be trained: in float32, or with new adapters (`lora`: AdapterConfig) over parameters in `dtype`,
    which is what the model computes in."""
    if not lora.rank:
        return load(run, role)
    checkpoint = load(run, role, dtype)
    config = adapters.AdapterConfig(**lora)
    return dataclasses.replace(
        checkpoint, model=adapters.adapt(checkpoint.model, config, jax.random.key(run.config.seed))
    )


def engine(
    run: Run,
    checkpoint: Checkpoint | Endpoint,
    max_tokens: int | None = None,
    read_out: ReadOut | None = None,
    grammars: bool = False,
) -> Engine:
    """An engine for one model, with the sizes of `config.engine`; `max_tokens` is the longest answer that will be
    asked for, None the whole length, and `grammars` whether requests will have any."""
    sizes = run.config.engine
    if isinstance(checkpoint, Endpoint):
        return EndpointEngine(checkpoint.model, run.config.seed, sizes.concurrency)
    pad = checkpoint.tokenizer.pad_token_id
    return LocalEngine(
        quantization.quantize(checkpoint.model, sizes.quantize) if sizes.quantize else checkpoint.model,
        checkpoint.config,
        pad_id=0 if pad is None else pad,
        seed=run.config.seed,
        slots=sizes.slots,
        max_length=max_length(run, checkpoint),
        max_tokens=max_tokens,
        cache_bytes=sizes.cache_bytes,
        chunk=sizes.chunk,
        prefill_tokens=sizes.prefill_tokens,
        lanes=run.lanes,
        mesh=run.inference_mesh,
        read_out=read_out,
        head=checkpoint.head,
        tokens=token_bytes(checkpoint.tokenizer) if grammars else (),
        dtype=sizes.dtype,
    )


def max_length(run: Run, checkpoint: Checkpoint | Endpoint) -> int:
    """Tokens of prompt and answer together: the config's, or the model's own if that is less. What is too long for
    a server is the server's to say."""
    if isinstance(checkpoint, Endpoint):
        return sys.maxsize
    return min(run.config.engine.max_length, checkpoint.config.max_length)


def export(run: Run, directory: str, model: Decoder, start: Checkpoint) -> list[str]:
    """Write what was trained from `start` as a Hugging Face directory, `directory`/export, and its adapters, if it
    has any, as `directory`/adapter; returns the two."""
    huggingface.save(run.work.path / directory / "export", adapters.merge(model), start.config, start.tokenizer)
    written = [f"{directory}/export"]
    if adapters.of_model(model):
        peft.save(run.work.path / directory / "adapter", model, str(start.path.resolve()))
        written.append(f"{directory}/adapter")
    return written
