"""One run over a work directory: what every stage is handed."""

import collections
import dataclasses
import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tqdm
from jaxtyping import DTypeLike

from spare_jax import assets, programs
from spare_jax.engines.endpoint import PREFIX as ENDPOINT
from spare_jax.engines.endpoint import Endpoint, EndpointEngine
from spare_jax.engines.local import LocalEngine
from spare_jax.models import adapters, huggingface, peft, quantization
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import ReadOut
from spare_jax.models.huggingface import Checkpoint
from spare_jax.programs import Failure
from spare_jax.prompts.chat import token_bytes
from spare_jax.records import Gold, Judgement, Problem, Solution
from spare_jax.runs.settings import Config
from spare_jax.solvers import sample
from spare_jax.storage.store import WorkDir
from spare_jax.tasks.task import Task
from spare_jax.training import batches, loop, losses

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
    """One run over a work directory: the config, the mesh, and what the run has measured so far."""

    config: Config
    work: WorkDir
    task: Task
    mesh: jax.sharding.Mesh
    measured: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, dict[str, Failure]] = dataclasses.field(default_factory=dict)  # by stage: programs, and why
    asked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # programs, by stage

    @property
    def lanes(self) -> int:
        """Threads of an engine: one per device of a split CPU (engines/local.py), else 1."""
        split = self.mesh.devices.flat[0].platform == "cpu" and self.mesh.shape["data"] == self.mesh.size
        return self.mesh.size if split else 1

    @property
    def inference_mesh(self) -> jax.sharding.Mesh | None:
        """Where engines compute: the run's mesh, or one CPU device that the lanes share."""
        return self.mesh if self.lanes == 1 else None

    def with_settings(self, settings: Mapping[str, Any]) -> "Run":
        """The same run under other settings, by their keys in the config ("solve.samples")."""
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict(settings)
        return dataclasses.replace(self, config=config)

    def load(self, role: str, dtype: DTypeLike = jnp.float32) -> Checkpoint:
        """The model of `config.models`, its parameters in `dtype`; judge and prm default to the generator. A
        path of the work directory comes before all others.

        Raises:
          ModelError: there is none, or it is a server's, whose weights nobody sees.
        """
        entry = self._entry(role)
        if entry.path.startswith(ENDPOINT):
            raise huggingface.ModelError(
                f"config.models.{role} is {entry.path!r}, and this needs its weights: name a Hugging Face directory"
            )
        own = self.work.path / entry.path
        path = own if own.is_dir() else assets.resolve(entry.path)
        return huggingface.load(path, revision=entry.revision, dtype=dtype, mesh=self.inference_mesh)

    def load_to_ask(self, role: str) -> Checkpoint | Endpoint:
        """A model that is asked for text: the same, or a server's."""
        entry = self._entry(role)
        if entry.path.startswith(ENDPOINT):
            return Endpoint(entry.path.removeprefix(ENDPOINT))
        return self.load(role)

    def _entry(self, role: str) -> Config:
        entry = self.config.models[role]
        if entry.path:
            return entry
        if role != "generator":
            return self._entry("generator")
        raise huggingface.ModelError(
            "config.models.generator.path is empty: set it to the directory of a Hugging Face model"
        )

    def load_to_train(self, role: str, lora: Config, dtype: str) -> Checkpoint:
        """The same, to be trained: in float32, or with new adapters (`lora`: AdapterConfig) over parameters in `dtype`,
        which is what the model computes in."""
        if not lora.rank:
            return self.load(role)
        checkpoint = self.load(role, dtype)
        config = adapters.AdapterConfig(**lora)
        return dataclasses.replace(
            checkpoint, model=adapters.adapt(checkpoint.model, config, jax.random.key(self.config.seed))
        )

    def engine(
        self,
        checkpoint: Checkpoint | Endpoint,
        max_tokens: int | None = None,
        read_out: ReadOut | None = None,
        grammars: bool = False,
    ) -> LocalEngine | EndpointEngine:
        """An engine for one model, with the sizes of `config.engine`; `max_tokens` is the longest answer that will be
        asked for, None the whole length, and `grammars` whether requests will have any."""
        sizes = self.config.engine
        if isinstance(checkpoint, Endpoint):
            return EndpointEngine(checkpoint.model, self.config.seed, sizes.concurrency)
        pad = checkpoint.tokenizer.pad_token_id
        return LocalEngine(
            quantization.quantize(checkpoint.model, sizes.quantize) if sizes.quantize else checkpoint.model,
            checkpoint.config,
            pad_id=0 if pad is None else pad,
            seed=self.config.seed,
            slots=sizes.slots,
            max_length=self.max_length(checkpoint),
            max_tokens=max_tokens,
            cache_bytes=sizes.cache_bytes,
            chunk=sizes.chunk,
            prefill_tokens=sizes.prefill_tokens,
            lanes=self.lanes,
            mesh=self.inference_mesh,
            read_out=read_out,
            head=checkpoint.head,
            tokens=token_bytes(checkpoint.tokenizer) if grammars else (),
            dtype=sizes.dtype,
        )

    def max_length(self, checkpoint: Checkpoint | Endpoint) -> int:
        """Tokens of prompt and answer together: the config's, or the model's own if that is less. What is too long for
        a server is the server's to say."""
        if isinstance(checkpoint, Endpoint):
            return sys.maxsize
        return min(self.config.engine.max_length, checkpoint.config.max_length)

    def answer(
        self,
        stage: str,
        part: str,
        engines: Mapping[str, LocalEngine | EndpointEngine],
        started: Mapping[str, Callable[[], programs.Program]],
        or_else: Callable[[str, str], Any],
    ) -> list[Any]:
        """Run programs by their ids under a journal and a progress bar; their results in the order of `started`.

        The result of a program that failed is `or_else(its id, why)`. It is counted, and so is a judgement that says
        itself why there is none: the run's last line tells both, and runs/<n>.json names them.

        Raises:
          StageFailed: every program failed; nothing is to be made of that.
        """
        results: dict[str, Any] = {}
        failures: dict[str, Failure] = {}
        name, began = f"{stage} {part}".strip(), time.perf_counter()
        with self.work.journal(stage, part) as journal, progress_bar(len(started), name) as bar:
            for program_id, result in programs.run(engines, started.items(), journal):
                if (failure := _failure_of(result)) is not None:
                    failures[program_id] = failure
                results[program_id] = or_else(program_id, result.message) if isinstance(result, Failure) else result
                bar.set_postfix_str(_work_done(engines.values(), time.perf_counter() - began), refresh=False)
                bar.update()
        self.asked[stage] += len(started)
        if failures:
            self.failures.setdefault(stage, {}).update(failures)
            if len(failures) == len(started):
                raise StageFailed(f"stage {stage}: all of {len(started)} failed: {why(failures.values())}")
            logger.warning("%s: %d of %d failed: %s", name, len(failures), len(started), why(failures.values()))
        measured = self.measured.setdefault(stage, {})
        for engine in engines.values():
            for key, value in engine.stats.items():
                measured[key] = measured.get(key, 0) + value
        return [results[program_id] for program_id in started]

    def need_all_answers(self, stage: str) -> None:
        """Raises StageFailed where something that the stage has asked so far failed for a cause that may pass: what it
        asks next is about all the answers, and would not be asked again when the others have come."""
        if passing := [failure for failure in self.failures.get(stage, {}).values() if failure.passing]:
            raise StageFailed(f"stage {stage}: {len(passing)} of {self.asked[stage]} failed: {why(passing)}")

    def solve(
        self,
        stage: str,
        checkpoint: Checkpoint | Endpoint,
        problems: Sequence[Problem],
        how: Config,
        begun: Mapping[str, Sequence[int]] | None = None,
        kind: str = "solutions",
    ) -> None:
        """Sample `how.samples` solutions of every problem by one policy, and write them as records of a kind.

        `begun` has the token ids that a problem's solutions begin with, by its id; the others begin with nothing.
        """
        settings = sample.SolveSettings(
            samples=how.samples,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
            tokenizer_digest=huggingface.tokenizer_digest(checkpoint.tokenizer),
        )
        started = {
            f"{stage}/{p.id}": functools.partial(
                sample.solutions, self.task, p, checkpoint.tokenizer, settings, (begun or {}).get(p.id, ())
            )
            for p in problems
        }
        engines = {"generator": self.engine(checkpoint, how.max_tokens)}
        found = self.answer(stage, "", engines, started, or_else=lambda *_: [])
        self.work.write(kind, (solution for several in found for solution in several))

    def train_config(self, settings: Mapping[str, Any]) -> loop.TrainConfig:
        """Settings of the config as a TrainConfig, with the run's seed unless they name one."""
        return loop.TrainConfig(**{"seed": self.config.seed, **settings})

    def train(
        self,
        description: str,
        directory: Path,
        config: loop.TrainConfig,
        model: Decoder,
        loss: losses.Loss,
        train_rows: batches.Packed,
        dev_rows: batches.Packed,
    ) -> loop.TrainResult:
        """Train a copy of `model` under a progress bar, on rows that are packed to the config's `row_length`."""
        with progress_bar(0, description, "step") as bar:

            def progress(step: int, steps: int, metrics: Mapping[str, float]) -> None:
                bar.total = steps
                bar.update(step - bar.n)
                shown = {name: f"{metrics[name]:.4g}" for name in ("loss", "dev_loss") if name in metrics}
                bar.set_postfix(shown, refresh=False)

            result = loop.train(config, model, loss, train_rows, dev_rows, directory, self.mesh, progress)
        for split, counts in (("train", result.train_counts), ("dev", result.dev_counts)):
            if counts.too_long:
                logger.warning(
                    "%s, %s split: %d of %d pairs were longer than a row and left out",
                    description, split, counts.too_long, counts.examples,
                )  # fmt: skip
            if counts.truncated:
                logger.warning(
                    "%s, %s split: %d of %d examples were longer than a row and lost %d step tags and %d targets",
                    description, split, counts.truncated, counts.examples, counts.dropped_tags, counts.dropped_targets,
                )  # fmt: skip
        return result

    def fine_tune(
        self,
        description: str,
        directory: str,
        start: Checkpoint,
        loss: losses.Loss,
        rows: Sequence[batches.Packed],
        how: Config,
        counted: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Train `start` on the rows of train and dev by the settings `how`, and write checkpoints/, what `export` does
        and training.json, the training's figures and what was `counted`, below `directory`; returns what it wrote.

        Raises:
          ValueError: there is nothing to learn from.
        """
        train_rows, dev_rows = rows
        if not train_rows.rows:
            raise ValueError(
                f"{description}: nothing to learn from {train_rows.counts.examples} examples, of which "
                f"{train_rows.counts.too_long} are longer than row_length={how.row_length}: give more problems, more "
                "samples or longer rows"
            )
        checkpoints, config = self.work.path / directory / "checkpoints", self.train_config(how)
        result = self.train(description, checkpoints, config, start.model, loss, train_rows, dev_rows)
        written = self.write_training(directory, result, counted or {})
        return [*self.export(directory, result.model, start), written]

    def write_training(self, directory: str, result: loop.TrainResult, counted: Mapping[str, Any]) -> str:
        """Write `directory`/training.json: the training's figures, and what was `counted`."""
        said = {
            "steps": result.steps,
            "best_step": result.best_step,
            "best_loss": result.best_loss,
            "stopped_early": result.stopped_early,
            "train": dataclasses.asdict(result.train_counts),
            "dev": dataclasses.asdict(result.dev_counts),
        }
        self.work.write_json(f"{directory}/training.json", said | dict(counted))
        return f"{directory}/training.json"

    def export(self, directory: str, model: Decoder, start: Checkpoint) -> list[str]:
        """Write what was trained from `start` as a Hugging Face directory, `directory`/export, and its adapters, if it
        has any, as `directory`/adapter; returns the two."""
        huggingface.save(self.work.path / directory / "export", adapters.merge(model), start.config, start.tokenizer)
        written = [f"{directory}/export"]
        if adapters.of_model(model):
            peft.save(self.work.path / directory / "adapter", model, str(start.path.resolve()))
            written.append(f"{directory}/adapter")
        return written

    def records(self) -> tuple[list[Problem], dict[str, Problem], dict[str, Gold], list[Solution]]:
        """Problems as a list and by id, gold by problem, solutions."""
        found = self.work.read("problems")
        gold = {g.problem_id: g for g in self.work.read("gold")}
        return found, {p.id: p for p in found}, gold, self.work.read("solutions")

    def judgements(self, judge: str) -> dict[str, Judgement]:
        """A judge's judgements by solution, empty where it was not asked."""
        kind = f"judgements/{judge}"
        return {j.solution_id: j for j in self.work.read(kind)} if self.work.file(kind).exists() else {}


class StageFailed(ValueError):
    """Nothing that a stage asked for was answered, or less than it can go on with."""


def why(failures: Iterable[Failure]) -> str:
    """The reasons of failures, the most frequent first, three at most, and what to do where they may pass. Messages
    that differ in their numbers alone are one reason, told as it was first."""
    found = list(failures)
    first: dict[str, str] = {}
    kinds = collections.Counter(_NUMBER.sub("#", failure.message) for failure in found)
    for failure in found:
        first.setdefault(_NUMBER.sub("#", failure.message), failure.message)
    told = [f"{first[kind]} ({count})" for kind, count in kinds.most_common(3)]
    more = [f"{len(kinds) - 3} more reasons in runs/"] if len(kinds) > 3 else []
    again = ["the same command asks again"] if any(failure.passing for failure in found) else []
    return "; ".join(told + more + again)


_NUMBER = re.compile(r"[0-9]+")


def _failure_of(result: Any) -> Failure | None:
    """Why a program has no result, or its judgement, or each of its judgements, is none; None where there is one."""
    if isinstance(result, Failure):
        return result
    said = [result] if isinstance(result, Judgement) else result if isinstance(result, tuple) else ()
    failed = [one.failure for one in said if isinstance(one, Judgement) and one.failure]
    return Failure(failed[0], passing=False) if failed and len(failed) == len(said) else None


def progress_bar(total: int, description: str, unit: str = "it") -> tqdm.tqdm:
    """A bar that shows stage, rate and remaining time; calm where nobody watches a terminal."""
    return tqdm.tqdm(total=total, desc=f"{description:<22}", unit=unit, mininterval=1.0, maxinterval=5.0, ncols=100)


def _work_done(engines: Iterable[LocalEngine | EndpointEngine], seconds: float) -> str:
    """Tokens per second, written and read, and the share of the prompts' tokens that was not read again."""
    total = collections.Counter()
    for engine in engines:
        total.update(engine.stats)
    asked, computed = total["prompt_tokens"] + total["scored_tokens"], total["computed_tokens"]
    reused = max(0.0, 1 - computed / asked) if asked else 0.0
    return f"{(total['generated_tokens'] + computed) / max(seconds, 1e-9):,.0f} tok/s, {reused:.0%} reused"
