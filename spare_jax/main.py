"""The entry point: `python -m spare_jax.main --config=configs/prm_math.py [--workdir=DIR] [--config.key=value]`."""

import contextlib
import errno
import functools
import json
import logging
import os
import pathlib
import platform
import signal
import sys
import time

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/prm_math.py[:key=value,...].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory; default runs/<config>-<fingerprint>.")
flags.mark_flag_as_required("config")

logger = logging.getLogger("spare_jax")

_GO_ON = "run the same command to go on"
_REMEDIES = {
    errno.ENOSPC: f"free some space, then {_GO_ON}",
    errno.EDQUOT: f"free some of your quota, then {_GO_ON}",
    errno.EFBIG: f"allow larger files (ulimit -f), then {_GO_ON}",
    errno.EMFILE: f"allow more open files (ulimit -n), then {_GO_ON}",
    errno.ENFILE: f"close files of other processes, then {_GO_ON}",
    errno.EROFS: "give a --workdir that can be written",
    errno.EACCES: "change its permissions, or give another --workdir",
    errno.EPERM: "change its permissions, or give another --workdir",
}


def main(argv: list[str]) -> None:
    """Run the config's stages; a mistake of the user's, what the system refuses and an interrupt are told in one line.

    Ctrl-C and SIGTERM end the run in order: what has been answered is in its journal, and the same command goes on. A
    second one kills at once. The exit status is 128 and the signal's number, as a shell gives it.
    """
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}: settings are given as --config.key=value")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler())
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax tells every file it touches, and by a trace what it raises
    started = time.perf_counter()
    try:
        path, missing = run(_CONFIG.value, _config_name(), _WORKDIR.value)
    except (ValueError, FloatingPointError, OSError) as error:
        # Errors for the user are one sentence that names the remedy; the trace is for whoever asks.
        logger.debug("", exc_info=True)
        if os.environ.get("SPARE_JAX_TRACE"):
            raise
        sys.exit(f"error: {_one_line(error)}")
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: {_GO_ON}", file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
    print(f"done in {time.perf_counter() - started:.0f} s: {path}{missing}")


def _interrupt(number: int, _: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _one_line(error: Exception) -> str:
    """An error on one line; what the operating system refused with the file and a remedy."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        file = f"{error.filename}: " if error.filename else ""
        text = f"{file}{error.strerror}: {_REMEDIES.get(error.errno, f'when it is mended, {_GO_ON}')}"
    return " ".join(text.split("\n"))


def run(config, name: str, workdir: str | None) -> tuple[pathlib.Path, str]:
    """Run `config` in its work directory; returns what to look at first, and what has failed, in words.

    Args:
      config: the ConfigDict of a file in configs/.
      name: the config's name, for the default work directory.
      workdir: the work directory, None for the default.
    """
    # Imported here: `--help` and a mistyped flag should not wait for JAX.
    import jax

    from spare_jax.runs import splits
    from spare_jax.runs.run import Run
    from spare_jax.runs.settings import check_keys, merged
    from spare_jax.runs.stage import chosen, execute, merged_trees
    from spare_jax.storage.jsonlines import fingerprint
    from spare_jax.storage.store import WorkDir

    settings, known = config.to_dict(), known_stages()
    stages = chosen(settings.pop("stages"), known)
    check_keys(settings, merged_trees(known.values()))
    task = splits.task_of(config.task)
    read = functools.reduce(merged, (stage.settings(settings) for stage in stages.values()))
    work = WorkDir(workdir or f"runs/{name}-{fingerprint(read)[:8]}")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/spare_jax"))
    mesh = _mesh(config.mesh)
    with work.lock():
        current = Run(work, task, config.seed, mesh)
        logger.info("work directory %s", work.path)
        try:
            execute(current, stages, settings)
        finally:
            if current.measured or current.failures:
                work.write_json(f"runs/{work.next_run()}.json", _measured(current))
        work.write_json("config.json", json.loads(config.to_json_best_effort()))
    report = work.path / "report.html"
    return report if report.exists() else work.path, _missing(current)


def known_stages():
    """The stages of all pipelines, by their names."""
    from spare_jax.pipelines import (
        annotation_study,
        label_files,
        math_benchmarks,
        offline_rl,
        online_rl,
        prm,
        search_study,
        spark_reward_models,
        spark_verifications,
        tiny_models,
    )

    pipelines = (
        prm,
        label_files,
        offline_rl,
        online_rl,
        spark_verifications,
        spark_reward_models,
        math_benchmarks,
        annotation_study,
        search_study,
        tiny_models,
    )
    return {name: stage for pipeline in pipelines for name, stage in pipeline.STAGES.items()}


def _missing(current) -> str:
    """How many of what each stage asked for failed, and why; empty where nothing did."""
    from spare_jax.runs.run import why

    told = (
        f"{stage}: {len(failed)} of {current.asked[stage]} failed: {why(failed.values())}"
        for stage, failed in current.failures.items()
    )
    return "".join(f"\n{line}" for line in told)


def _mesh(sizes):
    """The mesh over all devices; a CPU is split first, unless JAX has started already or XLA_FLAGS has split it."""
    import jax

    from spare_jax.models.sharding import make_mesh

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", sizes.cpu_devices)
    data = sizes.data if sizes.data != -1 else max(1, jax.device_count() // (sizes.fsdp * sizes.tensor))
    return make_mesh(data, sizes.fsdp, sizes.tensor)


def _measured(current) -> dict:
    import flax
    import jax

    return {
        "stages": current.measured,
        "failures": {
            stage: {name: failure.message for name, failure in failed.items()}
            for stage, failed in current.failures.items()
        },
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
    }


def parse_flags(argv: list[str]) -> list[str]:
    """The flags, read by absl; what it would tell by a trace is told in one line."""
    given = [a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))]
    if given and not pathlib.Path(given[-1].split(":", 1)[0]).is_file():
        sys.exit(f"error: config file {given[-1].split(':', 1)[0]} is missing: name one of configs/")
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")
    except (AttributeError, KeyError) as error:
        from spare_jax.runs.settings import no_such_key

        key = str(error).strip("\"'")
        full = next((a.split("=")[0] for a in argv if a.startswith("--config.") and key in a.split("=")[0]), key)
        sys.exit(f"error: {no_such_key(full.removeprefix('--'))}")


def _config_name() -> str:
    """The config file's name, from the flag as it was given."""
    text = next((a.split("=", 1)[1] for a in sys.argv if a.startswith(("--config=", "-config="))), "config")
    return pathlib.Path(text.split(":", 1)[0]).stem


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
