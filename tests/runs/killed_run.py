"""Run by test_resume.py in a process of its own: the main job, killed (as by kill -9) at a moment given.

    python killed_run.py WORKDIR EVENT COUNT

EVENT names what happens when the process is killed, COUNT for the how manieth time it happens in this process.
"""

import os
import pathlib
import signal
import sys

from absl import logging
from tests_config import small_config

from spare_jax import main
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


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    kill_at(sys.argv[2], int(sys.argv[3]))
    main.run(small_config(), "small", str(pathlib.Path(sys.argv[1])))
