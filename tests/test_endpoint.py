"""The endpoint engine against a server of the test's own, which also fails in the ways that servers do."""

import http.server
import json
import logging
import threading
import time

import pytest
from tests_config import config_of

from spare_jax import main
from spare_jax.engines import endpoint
from spare_jax.engines.endpoint import EndpointEngine
from spare_jax.models.huggingface import ModelError, tokenizer_digest
from spare_jax.programs import Completion, Failure, Grammar, Sample, Score, tokens_read, tokens_written
from spare_jax.prompts.annotate import format_records
from spare_jax.prompts.chat import encode_chat, end_ids, shared_prefix
from spare_jax.prompts.code_points import END, CodePoints, messages_of
from spare_jax.prompts.solve import split_solution
from spare_jax.records import StepJudgement

KEY = "sk-very-secret"
TURNS = [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "2 + 2? <|end|> ½ 🙂"}]


class Server:
    """Answers chat completions by `answers`, one per request: a body, a status, or the name of a misbehaviour."""

    def __init__(self):
        self.answers, self.requests, self.headers, self.at_once, self.most = [], [], [], 0, 0
        self.lock, server = threading.Lock(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.requests.append(body)
                    server.headers.append(dict(self.headers))
                    server.at_once += 1
                    server.most = max(server.most, server.at_once)
                    answer = server.answers.pop(0) if server.answers else server.reply(body)
                if callable(answer):
                    answer = answer(body)
                with server.lock:  # before the answer goes out: who has read it may ask again at once
                    server.at_once -= 1
                server.send(self, answer)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, body, text="It is 4.\nThe answer is 4.", reason="stop"):
        choices = [{"message": {"content": text}, "finish_reason": reason} for _ in range(body["n"])]
        return {"choices": choices, "usage": {"prompt_tokens": 30, "completion_tokens": 7 * body["n"]}}

    def send(self, handler, answer):
        status, text, headers = 200, "", {}
        if isinstance(answer, dict):
            text = json.dumps(answer)
        elif answer == "malformed":
            text = '{"choices": ['
        elif answer == "redirect":
            status, headers = 302, {"Location": f"{self.url}/elsewhere"}
        elif isinstance(answer, tuple):
            status, text, headers = answer
        length = len(text) + (100 if answer == "cut" else 0)
        handler.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())
        if answer == "cut":
            handler.wfile.write(b'{"cho')
            handler.wfile.flush()
            handler.connection.close()


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setenv(endpoint.URL_VARIABLE, found.url)
    monkeypatch.setenv(endpoint.KEY_VARIABLE, KEY)
    yield found
    found.http.shutdown()
    found.http.server_close()


def sample(n=1, **changes):
    how = {"max_tokens": 50, "n": n, "temperature": 0.7, "top_p": 0.9, "stop": (END,)} | changes
    return Sample("judge", tuple(encode_chat(CodePoints(), TURNS)), **how)


def answers(engine, requests):
    for request_id, request in requests.items():
        engine.submit(request_id, request)
    found = {}
    while len(found) < len(requests):
        found |= dict(engine.poll())
    return found


def quick(**changes):
    return EndpointEngine("some-model", pause=0.01, **changes)


def test_a_conversation_is_the_same_on_both_sides():
    tokenizer = CodePoints()
    ids = encode_chat(tokenizer, TURNS)
    assert messages_of(ids) == TURNS
    begun = [*ids, *tokenizer.encode("It is")]
    assert messages_of(begun) == [*TURNS, {"role": "assistant", "content": "It is"}]
    assert end_ids(tokenizer) == (END,) and tokenizer.decode([*tokenizer.encode("a½🙂"), END]) == "a½🙂"
    prefix = shared_prefix(tokenizer, TURNS, ids)
    assert prefix is not None and tokenizer.decode(prefix.ids) == "Be brief.\n"
    steps, spans, _ = split_solution(tokenizer, [*tokenizer.encode("One.\nTwo."), END], (END,))
    assert steps == ("One.", "Two.") and spans == ((0, 4), (5, 9))
    assert tokenizer_digest(tokenizer) == CodePoints.digest


def test_what_is_asked_and_what_comes_back(server):
    engine = quick(seed=3)
    (answer,) = answers(engine, {"x": sample(n=2)}).values()
    (body,) = server.requests
    assert body["messages"] == TURNS and body["model"] == "some-model"
    assert (body["n"], body["max_tokens"], body["temperature"], body["top_p"]) == (2, 50, 0.7, 0.9)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert [CodePoints().decode(c.ids) for c in answer] == ["It is 4.\nThe answer is 4."] * 2
    assert all(c.ids[-1] == END and c.finish_reason == "stop" and not c.logprobs for c in answer)
    # What was spent is what the server says, not how many characters there are.
    assert (
        [c.prompt_tokens for c in answer] == [30, 0]
        and tokens_read(sample(n=2), answer) == 30
        and tokens_written(answer) == 14
    )
    assert engine.stats == {"prompt_tokens": 30, "generated_tokens": 14, "computed_tokens": 30}


def test_seeds_follow_the_request_and_the_run(server):
    for seed in (1, 1, 2):
        answers(quick(seed=seed), {"x": sample(), "y": sample()})
    seeds = [body["seed"] for body in server.requests]
    assert len(set(seeds)) == 4 and sorted(seeds[:2]) == sorted(seeds[2:4])


def test_a_text_that_was_begun_goes_on(server):
    request = sample()
    request = Sample("judge", (*request.ids, *CodePoints().encode("It is")), 50)
    server.answers.append(lambda body: server.reply(body, " 4.", "length"))
    (answer,) = answers(quick(), {"x": request}).values()
    body = server.requests[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "It is"}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
    assert answer == (Completion(tuple(map(ord, " 4.")), (), "length", (), 30, 7),)


@pytest.mark.parametrize(
    "failure",
    [
        (429, "slow down", {"Retry-After": "0"}),
        (500, "", {}),
        (503, "busy", {}),
        "cut",
        "malformed",
        {"choices": [{}]},
        {},
    ],
)
def test_what_may_do_the_next_time_is_asked_again(server, failure):
    server.answers += [failure, failure]
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert len(server.requests) == 3 and not isinstance(answer, Failure)
    assert server.requests[0] == server.requests[2]  # the same seed too


def test_a_server_that_never_answers_fails_the_request(server):
    server.answers += [(500, f"trace of {KEY} at {server.url}", {})] * 3
    (answer,) = answers(quick(attempts=3), {"x": sample()}).values()
    assert isinstance(answer, Failure) and len(server.requests) == 3
    assert "3 attempts" in answer.message and "status 500" in answer.message
    assert KEY not in answer.message


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((401, f"bad key {KEY}", {}), "status 401: bad key ***"),
        ((400, "maximum context length", {}), "400: maximum context"),
        ("redirect", "status 302"),
        (lambda body: {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}, "gave 1 answers where 2"),
    ],
)
def test_what_is_refused_for_good_is_not_asked_again(server, refusal, said):
    server.answers.append(refusal)
    (answer,) = answers(quick(), {"x": sample(n=2)}).values()
    assert isinstance(answer, Failure) and said in answer.message and KEY not in answer.message
    assert len(server.requests) == 1


def test_no_more_than_so_many_wait_at_once_and_all_are_answered(server):
    def slowly(body):
        time.sleep(0.03)
        return server.reply(body)

    server.answers += [slowly] * 40
    found = answers(quick(concurrency=3), {f"r{i}": sample() for i in range(40)})
    assert len(found) == 40 and server.most == 3
    assert not any(isinstance(answer, Failure) for answer in found.values())


def test_nobody_there(monkeypatch):
    monkeypatch.setenv(endpoint.URL_VARIABLE, "http://127.0.0.1:9")
    (answer,) = answers(quick(attempts=2), {"x": sample()}).values()
    assert isinstance(answer, Failure) and "no connection (ConnectionRefusedError)" in answer.message
    assert "127.0.0.1" not in answer.message


def test_requests_that_no_server_can_answer_are_named(server):
    engine = quick()
    for request, why in (
        (Score("judge", (1,), (0,)), "gives no scores"),
        (sample(grammar=Grammar("a+b")), "to a grammar"),
        (sample(stop=(10,)), "not at ids such as 10"),
    ):
        with pytest.raises(ValueError, match=why):
            engine.submit("x", request)


def test_without_an_address_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv(endpoint.URL_VARIABLE, raising=False)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL is not set to a server's address: export it"):
        EndpointEngine("some-model")


ROW = {
    "id": "a",
    "question": "Two and two?",
    "reference": "2 + 2 = 4.\nThe answer is 4.",
    "solution": ["It is 4.", "The answer is 4."],
}


def own_file(tmp_path, judge, argument="runlocal"):
    config = config_of("annotate", argument)
    (tmp_path / "own.jsonl").write_text(json.dumps(ROW) + "\n")
    config.data.path, config.judge = str(tmp_path / "own.jsonl"), judge
    config.models.generator.path = config.models.judge.path = "endpoint:some-model"
    return config


def test_a_judge_on_a_server_labels_a_file_and_hides_address_and_key(tmp_path, server, caplog):
    caplog.set_level(logging.DEBUG)
    said = (StepJudgement(label=True, explanation="fine", reference=(1,)), StepJudgement(label=False, reference=(2,)))
    server.answers += [(503, "", {}), lambda body: server.reply(body, format_records(said))]
    main.run(own_file(tmp_path, "spare"), "annotate", str(tmp_path / "work"))
    (row,) = map(json.loads, (tmp_path / "work/trl_stepwise.jsonl").read_text().splitlines())
    assert row["labels"] == [True, True]  # the outcome outranks the annotator on the last step
    (judged,) = map(json.loads, (tmp_path / "work/judgements/spare.jsonl").read_text().splitlines())
    assert (judged["prompt_tokens"], judged["generated_tokens"]) == (30, 7)
    assert "[r2] The answer is 4." in server.requests[-1]["messages"][-1]["content"]
    written = "".join(p.read_text() for p in (tmp_path / "work").rglob("*") if p.is_file()) + caplog.text
    assert KEY not in written and server.url not in written


def test_rollouts_on_a_server_go_on_from_the_solution(tmp_path, server):
    main.run(own_file(tmp_path, "rollouts"), "annotate", str(tmp_path / "work"))
    (judged,) = map(json.loads, (tmp_path / "work/judgements/rollouts.jsonl").read_text().splitlines())
    assert [step["score"] for step in judged["steps"]] == [1.0, 1.0]
    assert server.requests[0]["messages"][-1] == {"role": "assistant", "content": "It is 4.\n"}
    assert judged["generated_tokens"] == 7 * server.requests[0]["n"]


def test_a_reward_model_has_to_be_here(tmp_path, server):
    config = own_file(tmp_path, "reward_model")
    config.models.prm.path = "endpoint:some-model"
    with pytest.raises(ModelError, match="this needs its weights: name a Hugging Face directory"):
        main.run(config, "annotate", str(tmp_path / "work"))
