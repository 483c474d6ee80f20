"""An engine that answers by a Python function, for tests of programs, judges and stages. No JAX."""

from collections.abc import Callable

from spare_jax.programs import Completion, Request, Sample


class Killed(Exception):
    """Raised by a `ScriptedEngine` where a test wants the process to be killed."""


class ScriptedEngine:
    """Answers each request by `answer(request)`.

    Args:
      answer: the completions of a request: n of them for `Sample`, one for `Score`.
      per_poll: how many requests one poll answers.
      newest_first: answer in reverse order of submission, to test that the order does not matter.
      kill_after: raise `Killed` in place of the answer after so many.
    """

    def __init__(
        self,
        answer: Callable[[Request], tuple[Completion, ...]],
        per_poll: int = 8,
        newest_first: bool = False,
        kill_after: int | None = None,
    ):
        self._answer = answer
        self._per_poll = per_poll
        self._newest_first = newest_first
        self._kill_after = kill_after
        self._queue: list[tuple[str, Request]] = []
        self._seen: set[str] = set()
        self.answered: list[str] = []

    def submit(self, request_id: str, request: Request) -> None:
        """Queue a request.

        Raises:
          ValueError: the id was submitted before.
        """
        if request_id in self._seen:
            raise ValueError(f"request {request_id!r} was submitted twice: request ids must be unique")
        self._seen.add(request_id)
        self._queue.append((request_id, request))

    def poll(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """Answer up to `per_poll` requests.

        Raises:
          Killed: `kill_after` requests have been answered; the answers of this poll are lost.
          ValueError: the function gave another number of completions than the request asks for.
        """
        finished = []
        for _ in range(min(self._per_poll, len(self._queue))):
            if self._kill_after is not None and len(self.answered) >= self._kill_after:
                raise Killed(f"killed after {self._kill_after} answers")
            request_id, request = self._queue.pop(-1 if self._newest_first else 0)
            completions = tuple(self._answer(request))
            wanted = request.n if isinstance(request, Sample) else 1
            if len(completions) != wanted:
                raise ValueError(
                    f"request {request_id!r} asks for {wanted} completions and the script gave {len(completions)}: "
                    "let `answer` return one per sample"
                )
            self.answered.append(request_id)
            finished.append((request_id, completions))
        return finished
