"""The models of a run: loaded as the config names them, put on an engine, and written when they have been trained."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from spare_jax import assets
from spare_jax.engines.endpoint import PREFIX as ENDPOINT
from spare_jax.engines.endpoint import Endpoint, EndpointEngine
from spare_jax.engines.local import LocalEngine
from spare_jax.keys import FileName
from spare_jax.models import adapters, huggingface, peft, quantization
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import ReadOut
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.chat import token_bytes
from spare_jax.runs.run import Engine, Run


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as a config names it: a Hugging Face directory, an embedded model's name, a directory of the work
    directory, or a hub id, perhaps with a revision; endpoint:NAME is a server's, which can be asked and nothing else
    (docs/judges.md)."""

    path: FileName = ""
    revision: str | None = None


@dataclasses.dataclass(frozen=True)
class RewardModel(Model):
    """`convention` says how an existing one is read, where its directory does not (docs/models.md)."""

    convention: str = ""


@dataclasses.dataclass(frozen=True)
class Generator:
    """What solves; it also stands in for each of the other models whose path is empty."""

    generator: Model = Model()


@dataclasses.dataclass(frozen=True)
class WithJudge(Generator):
    """`judge` is prompted to annotate (judge spare) or to verify (judge verify)."""

    judge: Model = Model()


@dataclasses.dataclass(frozen=True)
class WithPRM(Generator):
    """`prm` is what PRM and ORM are trained from, and the existing model of judge reward_model."""

    prm: RewardModel = RewardModel()


@dataclasses.dataclass(frozen=True)
class WithGenerative(Generator):
    """`generative` is the generative reward model of judge generative, and what one is trained from."""

    generative: Model = Model()


@dataclasses.dataclass(frozen=True)
class WithPolicy(Generator):
    """`policy` is what online reinforcement learning trains."""

    policy: Model = Model()


@dataclasses.dataclass(frozen=True)
class Rewarding(WithJudge, WithGenerative):
    """What reinforcement learning is usually paid by."""


@dataclasses.dataclass(frozen=True)
class WithRewardModels(WithPRM, WithGenerative):
    """What reward models are trained from."""


@dataclasses.dataclass(frozen=True)
class WithJudges(WithRewardModels, WithJudge):
    """All that judges ask."""


@dataclasses.dataclass(frozen=True)
class Models(WithJudges, WithPolicy):
    """All there are."""


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """How models are run (engines/local.py): at most `slots` sequences at once, fewer where `cache_bytes` hold fewer,
    of `max_length` tokens of prompt and answer together.

    `chunk` are the decode steps between two visits of the host, `prefill_tokens` the tokens of a batch of prompts or of
    texts to score. `cache_bytes` are for keys and values; None: what is wanted, on an accelerator what is left.
    `concurrency` requests wait for a server at once. `quantize` keeps the weights in "int8" or "nf4", and `dtype` is
    what is computed in (docs/performance.md).
    """

    slots: int = 128
    max_length: int = 1024
    chunk: int = 16
    prefill_tokens: int = 2048
    cache_bytes: int | None = None
    concurrency: int = 16
    dtype: str = "float32"
    quantize: str = ""


def load(run: Run, *named: Model, dtype: DTypeLike = jnp.float32) -> Checkpoint:
    """The first of these models that has a path, its parameters in `dtype`. A path of the work directory comes before
    all others.

    Raises:
      ModelError: none has, or it is a server's, whose weights nobody sees.
    """
    entry = _first(named)
    if entry.path.startswith(ENDPOINT):
        raise huggingface.ModelError(
            f"config.models names {entry.path!r}, and this needs its weights: name a Hugging Face directory"
        )
    own = run.work.path / entry.path
    path = own if own.is_dir() else assets.resolve(entry.path)
    return huggingface.load(path, revision=entry.revision, dtype=dtype, mesh=run.inference_mesh)


def load_to_ask(run: Run, *named: Model) -> Checkpoint | Endpoint:
    """A model that is asked for text: the same, or a server's."""
    entry = _first(named)
    if entry.path.startswith(ENDPOINT):
        return Endpoint(entry.path.removeprefix(ENDPOINT))
    return load(run, entry)


def _first(named: tuple[Model, ...]) -> Model:
    for entry in named:
        if entry.path:
            return entry
    raise huggingface.ModelError(
        "config.models.generator.path is empty: set it to the directory of a Hugging Face model"
    )


def load_to_train(run: Run, *named: Model, lora: adapters.AdapterConfig, dtype: str) -> Checkpoint:
    """The same, to be trained: in float32, or with new adapters over parameters in `dtype`, which is what the model
    computes in."""
    if not lora.rank:
        return load(run, *named)
    checkpoint = load(run, *named, dtype=dtype)
    return dataclasses.replace(checkpoint, model=adapters.adapt(checkpoint.model, lora, jax.random.key(run.seed)))


def engine(
    run: Run,
    checkpoint: Checkpoint | Endpoint,
    how: EngineSettings,
    max_tokens: int | None = None,
    read_out: ReadOut | None = None,
    grammars: bool = False,
) -> Engine:
    """An engine for one model; `max_tokens` is the longest answer that will be asked for, None the whole length, and
    `grammars` whether requests will have any."""
    if isinstance(checkpoint, Endpoint):
        return EndpointEngine(checkpoint.model, run.seed, how.concurrency)
    pad = checkpoint.tokenizer.pad_token_id
    return LocalEngine(
        quantization.quantize(checkpoint.model, how.quantize) if how.quantize else checkpoint.model,
        checkpoint.config,
        pad_id=0 if pad is None else pad,
        seed=run.seed,
        slots=how.slots,
        max_length=max_length(checkpoint, how),
        max_tokens=max_tokens,
        cache_bytes=how.cache_bytes,
        chunk=how.chunk,
        prefill_tokens=how.prefill_tokens,
        lanes=run.lanes,
        mesh=run.inference_mesh,
        read_out=read_out,
        head=checkpoint.head,
        tokens=token_bytes(checkpoint.tokenizer) if grammars else (),
        dtype=how.dtype,
    )


def max_length(checkpoint: Checkpoint | Endpoint, how: EngineSettings) -> int:
    """Tokens of prompt and answer together: the engine's, or the model's own if that is less. What is too long for a
    server is the server's to say."""
    if isinstance(checkpoint, Endpoint):
        return sys.maxsize
    return min(how.max_length, checkpoint.config.max_length)


def export(run: Run, directory: str, model: Decoder, start: Checkpoint) -> list[str]:
    """Write what was trained from `start` as a Hugging Face directory, `directory`/export, and its adapters, if it
    has any, as `directory`/adapter; returns the two."""
    huggingface.save(run.work.path / directory / "export", adapters.merge(model), start.config, start.tokenizer)
    written = [f"{directory}/export"]
    if adapters.of_model(model):
        peft.save(run.work.path / directory / "adapter", model, str(start.path.resolve()))
        written.append(f"{directory}/adapter")
    return written
