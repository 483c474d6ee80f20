"""A toy task, its problem, and a way to ask a program of a model that answers by a function: for tests of judges."""

from small_tokenizer import small_tokenizer

from spare_jax.engines.scripted import ScriptedEngine
from spare_jax.programs import Completion, run
from spare_jax.prompts.chat import encode
from spare_jax.records import Gold, Problem, Solution
from spare_jax.tasks.task import Task

TOKENIZER = small_tokenizer()
TASK = Task(
    name="toy",
    instruction="Solve it.",
    guidelines="Grade it.",
    error_categories=(),
    extract_answer=lambda steps: steps[-1] if steps else None,
    answers_equal=lambda answer, golds: answer in golds,
)
PROBLEM, GOLD = Problem("p", "How many?"), Gold("p", ("8",), ("3 + 5 = 8.",))


def solution(*steps, answer=None):
    return Solution("p/0", "p", steps, answer, "stop")


class EmptyJournal:
    """A journal that answers nothing and keeps nothing."""

    def get(self, request_id):
        return None

    def put(self, request_id, completions):
        pass


def ask(program, answer):
    """The program's result, and its requests, of a model that answers a request by `answer(request)`."""
    requests = []

    def record(request):
        requests.append(request)
        return answer(request)

    engine = ScriptedEngine(record)
    engines = dict.fromkeys(("generator", "judge", "annotator", "prm"), engine)
    ((_, result),) = run(engines, [("program", lambda: program)], EmptyJournal())
    return result, requests


def completion(text):
    ids = (*encode(TOKENIZER, text), TOKENIZER.eos_token_id)
    return Completion(ids=ids, logprobs=(-0.1,) * len(ids))
