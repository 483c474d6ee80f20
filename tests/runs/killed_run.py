"""Run by test_resume.py in a process of its own: the main job, killed (as by kill -9) at one moment after the other.

    python killed_run.py WORKDIR [EVENT/COUNT ...]

EVENT names what happens when a process is killed, COUNT for the how manieth time it happens in that process; `never/1`
is a run to the end. Each is a child of a process that has imported everything and has not started JAX: importing is
half of what a short run costs. Prints the exit statuses of the children as JSON.
"""

import json
import os
import signal
import sys

from absl import logging
from tests_config import small_config

from spare_jax import main
from spare_jax.pipelines import prm  # noqa: F401  which `main.run` imports
from spare_jax.storage import jsonlines, store
from spare_jax.training import checkpoints, loop


def kill_at(event: str, count: int) -> None:
    """Arrange the kill by wrapping what the package calls anyway."""
    seen = 0

    def happens(name: str) -> None:
        nonlocal seen
        if name == event:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    append, replace, complete = store.Journal._append, jsonlines._replace, store.WorkDir.complete
    save, fetch = checkpoints.Checkpoints.save, loop._fetch

    def torn_append(self, line):
        happens(f"put:{self.path.name}")
        if event == f"torn:{self.path.name}" and line.startswith(b'{"id"'):
            self._file.write(line[: len(line) // 2])
            self._file.flush()
            happens(event)
        append(self, line)

    def watched_replace(path, chunks):
        happens(f"before:{path.name}")
        replace(path, chunks)
        happens(f"after:{path.name}")

    def watched_complete(self, stage, outputs):
        happens(f"complete:{stage}")
        complete(self, stage, outputs)

    def watched_save(self, step, state, progress):
        save(self, step, state, progress)
        happens("save")

    def watched_fetch(*arguments):
        happens("fetch")
        return fetch(*arguments)

    store.Journal._append, jsonlines._replace, store.WorkDir.complete = torn_append, watched_replace, watched_complete
    checkpoints.Checkpoints.save, loop._fetch = watched_save, watched_fetch


def exit_status(workdir: str, event: str, count: int) -> int:
    """Of a child that runs the job; negative where a signal has ended it."""
    child = os.fork()
    if not child:
        kill_at(event, count)
        main.run(small_config(), "small", workdir)
        sys.exit()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    moments = [moment.rsplit("/", 1) for moment in sys.argv[2:]]
    print(json.dumps([exit_status(sys.argv[1], event, int(count)) for event, count in moments]))
