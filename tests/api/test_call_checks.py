"""What is wrong with a call is told in one sentence, with the nearest name where one was meant."""

import pytest

from tests.api.test_unread_ways import function

CALL, JOIN = "/gradio_api/call", "/gradio_api/queue/join"


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        (f"{CALL}/v2/chta", {}, 404, "There is no endpoint '/chta'. Did you mean '/chat'?"),
        (f"{CALL}/nothing_like_it", {"data": []}, 404, "There are: /chat"),
        (f"{CALL}/v2/chat", {"message": "hi", "temprature": 1}, 422, "Did you mean 'temperature'?"),
        (f"{CALL}/v2/models", {"": None}, 422, "There is no parameter ''. It takes none."),
        (f"{CALL}/v2/chat", {}, 422, "There is no message to answer. Send text as 'message'."),
        (f"{CALL}/v2/chat", {"message": None}, 422, "There is no message to answer."),
        (f"{CALL}/v2/chat", {"message": 7}, 422, "The parameter 'message' of /chat must be text."),
        (f"{CALL}/v2/chat", {"message": "hi", "model": ["x"]}, 422, "Model must be text."),
        (f"{CALL}/v2/chat", {"message": "hi", "model": 7}, 422, "Model must be text."),
        (f"{CALL}/v2/chat", {"message": "hi", "model": "budgy"}, 404, "Did you mean 'budgie'?"),
        (
            f"{CALL}/v2/chat",
            {"message": "hi", "strategy": "beam"},
            422,
            "There is no strategy called 'beam'. Did you mean 'beams'?",
        ),
        (
            f"{CALL}/v2/chat",
            {"message": "hi", "temperature": "hot"},
            422,
            "Temperature must be a number from 0.0 to 2.0",
        ),
        (f"{CALL}/v2/chat", [1], 422, "The body must be a JSON object"),
        (f"{CALL}/v2/detect", {}, 422, "The parameter 'text' of /detect is missing."),
        (f"{CALL}/v2/tokens", {"messages": "x"}, 422, "The parameter 'messages' of /tokens must be a list."),
        (f"{CALL}/v2/tokens", {"messages": [], "ids": 7}, 422, "must be null or a list."),
        (f"{CALL}/chat", {"data": 7}, 422, "The values of the parameters are missing."),
        ("/gradio_api/run/models", {"data": [1]}, 422, "/models has 0 parameters, and 1 values were sent."),
        ("/gradio_api/run/strategies", {"data": [["x"]]}, 422, "The parameter 'model' of /strategies must be text."),
        ("/gradio_api/run/strategies", {"data": ["nope"]}, 422, "There is no model called 'nope' here."),
        (JOIN, {"fn_index": 99999, "data": [], "session_hash": "a"}, 422, "There is no function with this fn_index."),
        ("/gradio_api/cancel", {}, 422, "session_hash: Field required."),
    ],
)
def test_a_wrong_call_gets_one_sentence(http, path, body, status, sentence):
    answer = http.post(path, json=body)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "name", "place"), [(JOIN, "remake", 0), ("/gradio_api/run/predict", "measure", 1)]
)  # `place` is that of the chatbot
def test_a_value_that_a_component_cannot_have_gets_one_sentence(http, inside, path, name, place):
    index, count = function(inside, name)
    data = [{"last": 10**40}] * 2 + [None] * (count - 2)
    answer = http.post(path, json={"fn_index": index, "data": data, "session_hash": "a"})
    assert answer.status_code == 422
    sentence = f"The value {place} of the function {index} is none that a component 'chatbot' can have."
    assert answer.json()["detail"] == sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"message": ', "The body is no valid JSON in UTF-8."),
        (b'{"message": "\xff"}', "The body is no valid JSON in UTF-8."),
        (b'{"message": "hi", "temperature": NaN}', "JSON has no number NaN."),
        (b'{"messages": ' + b"[" * 9000 + b"]" * 9000 + b"}", "nested too deeply"),
    ],
)
def test_a_damaged_body_gets_one_sentence(http, body, sentence):
    answer = http.post(f"{CALL}/v2/chat", content=body, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


@pytest.mark.parametrize("name", ["chat/x", "v2/chat/x"])
def test_a_stream_that_nothing_feeds_is_not_found(http, name):
    assert http.get(f"{CALL}/{name}").status_code == 404
    assert http.get("/gradio_api/queue/data?session_hash=x").status_code == 404


def test_what_a_list_of_values_leaves_out_takes_its_default(http):
    assert http.post("/gradio_api/run/strategies", json={"data": []}).json()["data"][0]
    event = http.post(f"{CALL}/chat", json={"data": ["hello", "parrot"]}).json()["event_id"]
    assert '["hello"' in http.get(f"{CALL}/chat/{event}").text


def test_half_of_a_character_becomes_a_question_mark(http):
    event = http.post(f"{CALL}/v2/chat", content=b'{"message": "a\\ud800b", "model": "parrot"}').json()["event_id"]
    assert '["a?b"' in http.get(f"{CALL}/v2/chat/{event}").text


@pytest.mark.parametrize("session", ["", "a name of the caller's"])
def test_a_stream_is_read_by_the_id_of_its_event(http, session):
    body = {"data": ["hello", "parrot"]} | ({"session_hash": session} if session else {})
    event = http.post(f"{CALL}/chat", json=body).json()["event_id"]
    assert '["hello"' in http.get(f"{CALL}/chat/{event}").text
