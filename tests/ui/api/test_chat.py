"""OpenAI's API through the ASGI transport: what is understood, what is refused, how a stream looks."""

import json
from typing import Any

import pytest

from ftw.substrate.engine import Request, Sampling, TransformersEngine
from ftw.substrate.model import Model
from tests.ui.api.conftest import Open, Server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "hi"}]


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": USER, "max_tokens": 6, "temperature": 0} | changes


def complete(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "hi", "max_tokens": 6, "temperature": 0} | changes


def events(server: Server, path: str, asked: dict[str, Any]) -> list[Any]:
    """The data of a stream's events, [DONE] as text."""
    answer = server.post(path, asked | {"stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    texts = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def written(model: Model, ids: list[int], n: int = 6, **sampling: Any) -> str:
    """What the engine writes by itself."""
    return TransformersEngine(model).generate(Request(tuple(ids), n, Sampling(**sampling)))[0].text


def test_models_are_listed_and_found_by_name(shared: Server) -> None:
    listed = shared.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["tiny"]
    assert shared.get("/v1/models/tiny").json() == listed["data"][0]
    missing = shared.get("/v1/models/org/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_a_conversation_is_answered_in_the_model_s_template(shared: Server, model: Model) -> None:
    answer = shared.ok(CHAT, chat())
    ids = model.encode("hi", chat=True)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": written(model, ids), "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 6,
        "total_tokens": len(ids) + 6,
    }
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")


def test_content_in_parts_and_roles_of_all_kinds_are_understood(shared: Server) -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    whole = shared.ok(CHAT, chat())["choices"][0]["message"]["content"]
    assert (
        shared.ok(CHAT, chat(messages=[{"role": "user", "content": parts}]))["choices"][0]["message"]["content"]
        == whole
    )
    talk = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "a", "name": "me"},
        {"role": "assistant", "content": "b", "refusal": None, "tool_calls": None},
        *USER,
    ]
    system = [talk[0] | {"role": "system"}, *talk[1:]]
    one, other = (shared.ok(CHAT, chat(messages=messages)) for messages in (talk, system))
    assert one["choices"] == other["choices"]
    assert one["usage"]["prompt_tokens"] > 20


def test_a_stream_says_the_same_as_a_whole_answer(shared: Server) -> None:
    whole = shared.ok(CHAT, chat())
    first, *middle, last, done = events(shared, CHAT, chat())
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(one["choices"][0]["delta"]["content"] for one in middle) == whole["choices"][0]["message"]["content"]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert done == "[DONE]"
    assert {one["object"] for one in (first, *middle, last)} == {"chat.completion.chunk"}
    assert len({one["id"] for one in (first, *middle, last)}) == 1
    assert all(one["choices"][0]["finish_reason"] is None for one in (first, *middle))
    assert "usage" not in last


def test_a_stream_ends_with_the_usage_where_asked(shared: Server) -> None:
    usage = shared.ok(CHAT, chat())["usage"]
    *before, last, done = events(shared, CHAT, chat(stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"] == usage
    assert all(one["usage"] is None for one in before)
    assert done == "[DONE]"


def test_a_completion_continues_text_and_tokens_alike(shared: Server, model: Model) -> None:
    ids = model.encode("hi")
    expected = written(model, ids)
    for prompt in ("hi", ["hi"], ids, [ids]):
        answer = shared.ok(COMPLETIONS, complete(prompt=prompt))
        assert answer["choices"][0]["text"] == expected
        assert answer["usage"]["prompt_tokens"] == len(ids)
        assert answer["object"] == "text_completion"
    *middle, last, done = events(shared, COMPLETIONS, complete())
    assert "".join(one["choices"][0]["text"] for one in middle) == expected
    assert last["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


def test_log_probabilities_of_the_tokens_written(shared: Server, model: Model) -> None:
    choice = shared.ok(COMPLETIONS, complete(logprobs=0))["choices"][0]
    found = choice["logprobs"]
    done = TransformersEngine(model).generate(Request(tuple(model.encode("hi")), 6))[0]
    assert found["token_logprobs"] == pytest.approx(list(done.logprobs), abs=1e-5)
    assert len(found["tokens"]) == len(found["text_offset"]) == 6
    assert found["text_offset"][0] == 0


def test_a_stop_string_ends_the_text_before_it(shared: Server) -> None:
    text = shared.ok(COMPLETIONS, complete(max_tokens=30))["choices"][0]["text"]
    stop = text[5:7]
    for given in (stop, ["\0never", stop]):
        choice = shared.ok(COMPLETIONS, complete(max_tokens=30, stop=given))["choices"][0]
        assert choice["text"] == text[: text.index(stop)]
        assert choice["finish_reason"] == "stop"


def test_a_seed_makes_a_draw_repeatable_and_the_default_is_no_greedy_text(shared: Server, model: Model) -> None:
    hot = {"temperature": None, "max_tokens": 20}
    one, again, other = (
        shared.ok(CHAT, chat(**hot, seed=seed))["choices"][0]["message"]["content"] for seed in (1, 1, 2)
    )
    assert one == again != other
    assert one == written(model, model.encode("hi", chat=True), 20, temperature=1.0, seed=1)


def test_both_names_of_the_limit_work(shared: Server) -> None:
    asked = chat(max_completion_tokens=3)
    del asked["max_tokens"]
    assert shared.ok(CHAT, asked)["usage"]["completion_tokens"] == 3
    assert shared.post(CHAT, chat(max_completion_tokens=3)).status_code == 400


def test_without_a_limit_the_context_decides(shared: Server, model: Model) -> None:
    ids = [65] * (model.context - 3)
    asked = complete(prompt=ids)
    del asked["max_tokens"]
    assert shared.ok(COMPLETIONS, asked)["usage"]["total_tokens"] <= model.context


IGNORED = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "n": 1, "presence_penalty": 0}


def test_fields_that_change_nothing_are_taken(shared: Server) -> None:
    more = {"logit_bias": {}, "frequency_penalty": 0.0, "logprobs": False, "tools": [], "tool_choice": "none"}
    text = {"response_format": {"type": "text"}, "parallel_tool_calls": True, "seed": None, "stop": None}
    assert shared.ok(CHAT, chat(**IGNORED, **more, **text))["choices"] == shared.ok(CHAT, chat())["choices"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"n": 2}, "n"),
    (CHAT, {"presence_penalty": 0.5}, "presence_penalty"),
    (CHAT, {"logit_bias": {"5": 1}}, "logit_bias"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools"),
    (CHAT, {"logprobs": True}, "logprobs"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format.type"),
    (CHAT, {"temperature": 2.5}, "temperature"),
    (CHAT, {"temperature": "0"}, "temperature"),
    (CHAT, {"top_p": 0}, "top_p"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_tokens": True}, "max_tokens"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, ""),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    (CHAT, {"stream_options": {"include_usage": True}}, ""),
    (CHAT, {"model": 5}, "model"),
    (COMPLETIONS, {"stop": ["a", "b", "c", "d", "e"]}, ""),
    (COMPLETIONS, {"stop": ""}, ""),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
    (COMPLETIONS, {"prompt": {}}, ""),
    (COMPLETIONS, {"best_of": 2}, "best_of"),
    (COMPLETIONS, {"logprobs": 3}, "logprobs"),
    (COMPLETIONS, {"echo": True}, "echo"),
    (COMPLETIONS, {"prompt": []}, ""),
    (COMPLETIONS, {"prompt": [10**6]}, ""),
    (COMPLETIONS, {"logprobs": 0, "stream": True}, "logprobs"),
]


@pytest.mark.parametrize(("path", "change", "param"), REFUSED)
def test_what_cannot_be_done_is_refused_with_its_parameter(
    shared: Server, path: str, change: dict[str, Any], param: str
) -> None:
    answer = shared.post(path, (chat() if path == CHAT else complete()) | change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if param:
        assert error["param"] == param


def test_an_unknown_key_is_named(shared: Server) -> None:
    error = shared.post(CHAT, chat(temprature=0)).json()["error"]
    assert error["param"] == "temprature"
    assert error["code"] == "unknown_parameter"
    assert "temprature" in error["message"]


def test_an_unknown_model_is_not_found(shared: Server) -> None:
    for path, asked in ((CHAT, chat(model="gpt")), (COMPLETIONS, complete(model="gpt", stream=True))):
        answer = shared.post(path, asked)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "'tiny'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "asked", [{"max_tokens": 1000}, {"prompt": [65] * 300}, {"prompt": [65] * 256, "stream": True}]
)
def test_a_prompt_that_does_not_fit_gives_both_sizes(shared: Server, asked: dict[str, Any]) -> None:
    answer = shared.post(COMPLETIONS, complete(**asked))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "256" in answer.json()["error"]["message"]


def test_an_unknown_path_and_a_wrong_method_have_the_shape_of_their_api(shared: Server) -> None:
    assert shared.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert shared.get("/nothing").json() == {"detail": "Not Found"}
    assert shared.get(CHAT).status_code == 405


def test_a_model_without_a_template_is_for_completions(open_server: Open) -> None:
    server = open_server()
    tokenizer = server.parts.chat.model.tokenizer
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = None
        answer = server.post(CHAT, chat())
        tokenizer.chat_template = "{{ raise_exception('no system here') }}"
        refused = server.post(CHAT, chat())
    finally:
        tokenizer.chat_template = template
    assert "use /v1/completions" in answer.json()["error"]["message"]
    assert "no system here" in refused.json()["error"]["message"]
    assert {answer.status_code, refused.status_code} == {400}
