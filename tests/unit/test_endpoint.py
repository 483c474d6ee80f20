"""The endpoint engine against a server of the tests' own, which also fails in the ways that servers do."""

import base64
import html
import itertools
import json
import logging
import time
import urllib.parse

import pytest
from chat_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_config import config_of

from spare_jax import main
from spare_jax.engines import endpoint
from spare_jax.engines.endpoint import EndpointEngine
from spare_jax.engines.secret import Secret
from spare_jax.models.huggingface import ModelError, tokenizer_digest
from spare_jax.programs import Completion, Failure, Grammar, Sample, Score, tokens_read, tokens_written
from spare_jax.prompts.annotate import format_records
from spare_jax.prompts.chat import encode_chat, end_ids, shared_prefix
from spare_jax.prompts.code_points import END, CodePoints, messages_of
from spare_jax.prompts.solve import split_solution
from spare_jax.records import StepJudgement

KEY = "sk-very-secret"
TURNS = [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "2 + 2? <|end|> ½ 🙂"}]


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setenv(endpoint.URL_VARIABLE, found.url)
    monkeypatch.setenv(endpoint.KEY_VARIABLE, KEY)
    yield found
    found.close()


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


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def drip(start, pieces, pause):
    yield start
    for piece in pieces:
        time.sleep(pause)
        yield piece


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD, b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 400 No\r\nContent-Length: 1000\r\n\r\n", b"x"),
    ],
)
def test_an_answer_has_a_deadline_however_it_drips(server, start, piece):
    server.answers.append(lambda _: drip(start, itertools.repeat(piece, 100), 0.05))
    began = time.monotonic()
    (answer,) = answers(quick(attempts=1, timeout=0.4), {"x": sample()}).values()
    assert isinstance(answer, Failure) and 0.3 < time.monotonic() - began < 1.5
    assert "400" in answer.message or "not whole in 0.4 s" in answer.message


def test_a_slow_answer_that_is_whole_in_time_is_taken(server):
    body = json.dumps(server.reply({"n": 1})).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    server.answers.append(lambda _: drip(head, [body[i : i + 50] for i in range(0, len(body), 50)], 0.05))
    (answer,) = answers(quick(attempts=1, timeout=5), {"x": sample()}).values()
    assert not isinstance(answer, Failure)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n", CHUNKED])
def test_an_endless_body_is_left_after_what_the_request_can_need(server, monkeypatch, start):
    sent, piece = [], b"x" * (1 << 16)

    def endless(_):
        yield start
        while True:
            sent.append(1)
            yield b"10000\r\n" + piece + b"\r\n" if start is CHUNKED else piece

    server.answers.append(endless)
    (answer,) = answers(quick(attempts=1), {"x": sample(max_tokens=1000)}).values()
    assert isinstance(answer, Failure) and ("larger than 1,304,576 bytes" in answer.message or "500" in answer.message)
    assert len(sent) < 400  # pieces of 64 KiB, those in the buffers of both ends included


def test_a_long_text_is_no_endless_body(server):
    text = "\\frac{1}{2} + " * 3000
    server.answers.append(lambda body: server.reply(body, text, "length"))
    (answer,) = answers(quick(), {"x": sample(max_tokens=30_000)}).values()
    assert CodePoints().decode(answer[0].ids) == text


def choice(reason="stop", **message):
    return {"choices": [{"message": message, "finish_reason": reason}]}


@pytest.mark.parametrize(
    "body",
    [
        choice(content=None),
        choice(content=""),
        choice(content=" \n"),
        choice(),
        choice(content=3),
        choice(content={"text": "x"}),
        choice(content=[]),
        choice(content=[{"type": "text", "text": ""}]),
        choice(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        choice(content=[{"type": "text", "text": "It is"}, {"type": "audio"}]),
        choice(content=["text"]),
        choice(content=[{"type": "text", "text": 3}]),
        choice(content=None, reasoning_content="Let me think"),
        choice(content="", reasoning="Let me think"),
        choice(content=[{"type": "thinking", "thinking": []}]),
        {"choices": []},
        {"choices": None},
        {"choices": {"0": {}}},
        {"choices": [None]},
        {"choices": [{"message": "x", "finish_reason": "stop"}]},
        {"error": {"message": "overloaded"}},
    ],
)
def test_what_holds_no_text_is_asked_again_and_then_fails(server, body):
    server.answers += [body, body]
    (answer,) = answers(quick(attempts=2), {"x": sample()}).values()
    assert isinstance(answer, Failure) and "2 attempts: its answer" in answer.message and len(server.requests) == 2
    assert answer.passing


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (choice(content=None, refusal="I'm sorry"), "refused to answer"),
        (choice(content=[{"type": "refusal", "refusal": "I'm sorry"}]), "refused to answer"),
        (choice("content_filter", content="It is"), "refused to answer"),
        (choice("tool_calls", content=None, tool_calls=[{"id": "1"}]), "called a tool"),
        (choice(content="Let me see", tool_calls=[{"id": "1"}]), "called a tool"),
        (choice(content=None, function_call={"name": "f"}), "called a tool"),
        (choice("length", content=None, reasoning_content="Let me think"), "raise max_tokens"),
        (choice("length", content=""), "raise max_tokens"),
    ],
)
def test_what_will_not_be_answered_fails_at_once(server, body, said):
    server.answers.append(body)
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert isinstance(answer, Failure) and said in answer.message and len(server.requests) == 1 and not answer.passing


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "It is "}, {"type": "text", "text": "4."}], "It is 4."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "4."}], "4."),
        ([{"type": "output_text", "text": "4."}, {"type": "text", "text": None}], "4."),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("a \ud83d\ude42 pair \U0001f642", "a \U0001f642 pair \U0001f642"),
    ],
)
def test_texts_in_parts_and_halves_of_pairs_are_read(server, content, text):
    server.answers.append(choice(content=content))
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert CodePoints().decode(answer[0].ids) == text


@pytest.mark.parametrize(
    "usage",
    [
        '{"prompt_tokens": null, "completion_tokens": null, "prompt_tokens_details": null}',
        '{"prompt_tokens": 1e30, "completion_tokens": -3}',
        '{"prompt_tokens": NaN, "completion_tokens": Infinity}',
        '{"prompt_tokens": 1e400, "completion_tokens": "7"}',
        '{"prompt_tokens": %s, "completion_tokens": [7]}' % ("9" * 5000),
        '{"prompt_tokens": true, "completion_tokens": {}}',
        '{"prompt_tokens_details": {"cached_tokens": 5}}',
        '{"prompt_tokens_details": [5]}',
        "[]", "null", "3", '"many"', "true",
    ],
)  # fmt: skip
def test_a_usage_that_says_nothing_loses_no_answer(server, usage):
    text = json.dumps(choice(content="It is 4."))[:-1] + f', "usage": {usage}}}'
    server.answers.append((200, text, {}))
    engine = quick()
    (answer,) = answers(engine, {"x": sample()}).values()
    assert (answer[0].prompt_tokens, answer[0].generated_tokens) == (0, 0)
    assert all(count == 0 for count in engine.stats.values())


@settings(max_examples=60, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda of: (
            st.lists(of, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "finish_reason", "usage", "prompt_tokens", "type", "text"]
                ),
                of,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_answer_or_a_failure_of_its_own(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(endpoint.URL_VARIABLE, "http://127.0.0.1:9")
        patch.setenv(endpoint.KEY_VARIABLE, KEY)
        engine = quick(attempts=1)
        for answer in (value, {"choices": [value]}, {"choices": [{"message": {"content": value}}], "usage": value}):
            try:
                (completion,) = engine._read(json.loads(json.dumps(answer), parse_int=float), 1)
            except (endpoint._Again, endpoint._Refused):
                continue
            assert CodePoints().decode(completion.ids).strip()


def dresses(key):
    """The key as an echo may show it."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    return {
        "plain": key,
        "upper": key.upper(),
        "backwards": key[::-1],
        "json": escaped,
        "json of json": escaped.replace("\\", "\\\\"),
        "percent": "".join(f"%{ord(c):02X}" for c in key),
        "percent twice": "".join(f"%25{ord(c):02X}" for c in key),
        "half percent": urllib.parse.quote(key),
        "html": "".join(f"&#{ord(c)};" for c in key),
        "html hex": "".join(f"&#x{ord(c):x};" for c in key),
        "base64": base64.b64encode(key.encode()).decode(),
        "base64 of the header": base64.b64encode(f"Bearer {key}".encode()).decode(),
        "base64 without end": base64.urlsafe_b64encode(f"x{key}".encode()).decode().rstrip("="),
        "hex": key.encode().hex(),
        "hex with colons": key.encode().hex(":"),
        "spaced": " ".join(key),
        "dashed": "-".join(key),
        "bytes": str([key.encode()]),
        "first part": key[:9],
        "last part": key[-9:],
        "inner part": key[3:10],
        "masked": f"{key[:7]}****{key[-4:]}",
        "entities": html.escape(f"<{key}>"),
    }


KEYS = (KEY, "sk-proj-Ab3dEf6hIj9kLmN0pQ", "gsk_1234567890abcdef", "a+b/c=d&e%f;g'h\"i<j>k")


@pytest.mark.parametrize("name", dresses(KEY))
@pytest.mark.parametrize("key", KEYS)
def test_no_dress_and_no_part_of_the_key_is_shown(name, key):
    echo = dresses(key)[name]
    for text in (f"bad key {echo}", f'{{"error": {{"message": "Incorrect API key: {echo}."}}}}', echo, f"x{echo}y"):
        said = Secret(key).hidden(text)
        assert echo not in said and key not in said
        assert "withheld" in said or "***" in said
    assert "maximum context length is 4096 tokens" in Secret(key).hidden(
        "This model's maximum context length is 4096 tokens"
    )


@pytest.mark.parametrize("status", [401, 403, 400, 404, 500, 429])
def test_the_key_is_in_no_failure(server, monkeypatch, status):
    monkeypatch.setenv(endpoint.KEY_VARIABLE, KEYS[1])
    for echo in dresses(KEYS[1]).values():
        server.answers.append((status, f"your key {echo} " + "x" * 3000, {}))
        (answer,) = answers(quick(attempts=1), {"x": sample()}).values()
        assert isinstance(answer, Failure) and f"status {status}" in answer.message
        assert echo not in answer.message and len(answer.message) < 300


@pytest.mark.parametrize("status", [401, 403, 400, 404, 413, 422])
def test_what_is_wrong_with_a_request_stays_wrong_and_a_key_can_be_mended(server, status):
    server.answers.append((status, "no", {}))
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert isinstance(answer, Failure) and answer.passing == (status in (401, 403)) and len(server.requests) == 1


@pytest.mark.parametrize("echo", ["plain", "base64", "base64 of the header", "base64 without end"])
def test_a_text_that_repeats_the_key_is_no_answer(server, echo):
    server.answers.append(lambda body: server.reply(body, f"It is {dresses(KEY)[echo]}."))
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert isinstance(answer, Failure) and "withheld" in answer.message
    assert dresses(KEY)[echo] not in answer.message and len(server.requests) == 1


def test_a_key_that_is_no_secret_is_a_word_like_others(server, monkeypatch):
    monkeypatch.setenv(endpoint.KEY_VARIABLE, "EMPTY")
    server.answers.append(lambda body: server.reply(body, "The box is EMPTY."))
    (answer,) = answers(quick(), {"x": sample()}).values()
    assert not isinstance(answer, Failure)


@pytest.mark.parametrize(
    "key", ["sk-abc\n", "\nsk-abc", "sk abc", "sk-abc\r\nX: y", "sk-\x7f", "sk-ключ", "sk-é", "sk-\u200b", " "]
)
def test_a_key_that_no_header_carries_is_an_error_at_the_start(server, monkeypatch, key):
    monkeypatch.setenv(endpoint.KEY_VARIABLE, key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds a character that no header can carry") as error:
        quick()
    assert key.strip() == "" or key.strip()[:5] not in str(error.value)
    assert not server.requests


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "http://",
        "http://:80/v1",
        "http://host:port/v1",
        "http://ho st/v1",
        "http://[::1/v1",
        "ftp://host",
    ],
)
def test_an_address_that_is_none_is_an_error_at_the_start(monkeypatch, url):
    monkeypatch.setenv(endpoint.URL_VARIABLE, url)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL is not set to a server's address"):
        quick()


def test_a_thousand_requests_to_a_dead_server_fail_as_fast_as_one(monkeypatch):
    monkeypatch.setenv(endpoint.URL_VARIABLE, "http://127.0.0.1:9")
    began = time.monotonic()
    answers(EndpointEngine("m", attempts=4, pause=0.1), {"x": sample()})
    one, began = time.monotonic() - began, time.monotonic()
    found = answers(EndpointEngine("m", attempts=4, pause=0.1), {f"r{i}": sample() for i in range(1000)})
    assert time.monotonic() - began < 2 * one + 2
    assert len(found) == 1000 and all("no connection" in answer.message for answer in found.values())


def test_a_server_that_comes_back_is_asked_again(server):
    engine = quick(attempts=2)
    server.answers += [(503, "", {})] * 2
    (lost,) = answers(engine, {"a": sample()}).values()
    assert isinstance(lost, Failure) and len(server.requests) == 2
    found = answers(engine, {"b": sample()}) | answers(engine, {f"c{i}": sample() for i in range(20)})
    assert not any(isinstance(answer, Failure) for answer in found.values())


def test_one_request_that_fails_for_ever_takes_no_other_with_it(server):
    def reply(body):
        if "poison" in body["messages"][-1]["content"]:
            return (503, "", {})
        time.sleep(0.02)
        return server.reply(body)

    server.answers += [reply] * 400
    turns = [{"role": "user", "content": "poison"}]
    poison = Sample("judge", tuple(encode_chat(CodePoints(), turns)), 50)
    requests = {f"r{i}": poison if i % 50 == 1 else sample() for i in range(200)}
    found = answers(quick(attempts=3), requests)
    assert {name for name, answer in found.items() if isinstance(answer, Failure)} == {"r1", "r51", "r101", "r151"}


def test_one_slow_row_does_not_hold_the_others(server):
    def reply(body):
        time.sleep(3 if "slow" in body["messages"][-1]["content"] else 0)
        return server.reply(body)

    server.answers += [reply] * 50
    engine, began = quick(concurrency=2), time.monotonic()
    engine.submit("slow", Sample("judge", tuple(encode_chat(CodePoints(), [{"role": "user", "content": "slow"}])), 50))
    for i in range(49):
        engine.submit(f"r{i}", sample())
    found = {}
    while len(found) < 49:
        found |= dict(engine.poll())
    assert time.monotonic() - began < 2.9 and "slow" not in found


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
