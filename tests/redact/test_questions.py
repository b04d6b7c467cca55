"""What redaction takes out of a question tells it apart from others all the same, on every machine."""

import json
import re

import litellm
import pytest

from pytest_lmcache import CassetteMiss, use_cassette
from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.redact import Redactor

GONE = "http://127.0.0.1:9/v1"
ALNUM = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF3hJ5kL7n"
OTHER = "zY4xW6vU8tS0rQ2pO4nM6lK8jI0hG2fE4dC6bA8z"
pytestmark = pytest.mark.usefixtures("nobody_records")


def key_of(**arguments):
    """The key of a call on a machine without keys; that of the stored question is the same."""
    redactor = Redactor(environ={})
    redactor.learn(arguments)
    stored = redactor.request(request_of(("model", "messages"), (), arguments, "completion"))
    key = strategy("exact").key(Call("completion", stored))
    assert key == strategy("exact").key(Call("completion", redactor.request(stored)))
    return key


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


def tool(**fields):
    parameters = {"type": "object", "properties": fields}
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


def called(arguments, name="arguments"):
    return {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", name: arguments}}]}]}


def read(name, value):
    """An argument that a model reads, alone and in a list."""
    return {name: value, "extra_body": {name: [value]}}


PROMPTS = [
    ("Explain: secret_key=generateSecretKey12()", "Explain: secret_key=generateSecretKey99()"),
    ("https://h/?key=summer-sale-2025-shoes", "https://h/?key=winter-sale-2026-boots"),
    ("Bearer authentication-scheme-v10", "Bearer authentication-scheme-v11"),
    ("token: USDC4998400510945WETH", "token: USDC4998400510945DAI"),
    (
        "@include sk-Transition-Duration-Long-Running-Animation-0",
        "@include sk-Transition-Duration-Long-Running-Animation-1",
    ),
    ("password: ****34", "password: ****35"),
    ("ftp://anonymous:guest@h", "ftp://anonymous:visitor@h"),
    ("https://ann:hunter2@h", "https://bob:hunter3@h"),
    ("https://h/?api_key=demo&sig=a", "https://h/?api_key=test&sig=b"),
    ("sk-Button_primary__olCNB", "sk-Button_secondary__olCNB"),
    *(
        (text.format(ALNUM), text.format(OTHER))
        for text in ("sk-{}", "hf_{}", "api_key={}", "?key={}", "Bearer {}")
    ),
    (f"https://ann:{ALNUM}@h", f"https://ann:{OTHER}@h"),
    ("password=hunter2", "password=hunter3"),
    ("Incorrect API key provided: " + "*" * 20 + "abcd", "Incorrect API key provided: " + "*" * 20 + "wxyz"),
]
QUESTIONS = [
    (tool(password={"enum": ["open"]}, x="open"), tool(password={"enum": ["closed"]}, x="open")),
    (tool(password="open"), tool(password="closed")),
    (tool(api_key="first"), tool(api_key="second")),
    ({"extra_body": {"think_token": "<think>"}}, {"extra_body": {"think_token": "<reason>"}}),
    ({"think_token": "<think>"}, {"think_token": "<reason>"}),
    *(
        (
            {"extra_body": {"chat_template_kwargs": {name: "open"}}},
            {"extra_body": {"chat_template_kwargs": {name: "shut"}}},
        )
        for name in ("secret", "password", "api_key", "think_token", "token")
    ),
    *(
        ({"extra_body": {name: "sesame-1"}}, {"extra_body": {name: "sesame-2"}})
        for name in ("secret", "password", "passphrase", "cookie", "secret_word", "magic_token")
    ),
    *(
        (
            {"messages": [{"role": "user", "content": "x", name: "open"}]},
            {"messages": [{"role": "user", "content": "x", name: "shut"}]},
        )
        for name in ("secret", "password", "api_key", "authorization", "client_secret")
    ),
    *(
        (called({"secret": "open", "password": "a"}, name), called({"secret": "shut", "password": "a"}, name))
        for name in ("arguments", "args", "input")
    ),
    (
        {"extra_body": {"url": "https://h/?key=summer-sale-2025-shoes"}},
        {"extra_body": {"url": "https://h/?key=winter-sale-2026-boots"}},
    ),
    (called({"api_key": ALNUM}), called({"api_key": OTHER})),
    (called({"headers": {"authorization": "no"}}), called({"headers": {"authorization": "yes"}})),
    (called(json.dumps({"token": ALNUM})), called(json.dumps({"token": OTHER}))),
    (
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"password": "open"}}}]}]},
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"password": "shut"}}}]}]},
    ),
    *(
        (
            {"contents": {"parts": [{name: {"api_key": ALNUM}}]}},
            {"contents": {"parts": [{name: {"api_key": OTHER}}]}},
        )
        for name in ("args", "response")
    ),
    (
        {"extra_body": {"chat_template_kwargs": {"api_key": ALNUM}}},
        {"extra_body": {"chat_template_kwargs": {"api_key": OTHER}}},
    ),
    *(
        (
            {"tools": [{"name": "f", name: [{"api_key": "x"}]}]},
            {"tools": [{"name": "f", name: [{"api_key": "y"}]}]},
        )
        for name in ("examples", "input_examples", "inputSchema", "parametersJsonSchema", "$defs", "default")
    ),
    (called({"authorization": f"Bearer {ALNUM}"}), called({"authorization": f"Basic {ALNUM}"})),
    *(
        (read(name, f"https://h/a.png?sig={ALNUM}"), read(name, f"https://h/a.png?sig={OTHER}"))
        for name in (
            "prompt",
            "input",
            "system",
            "instructions",
            "query",
            "suffix",
            "stop",
            "contents",
            "user",
        )
    ),
    *(
        (read(name, {"text": f"https://{ALNUM}@h"}), read(name, {"text": f"https://{OTHER}@h"}))
        for name in ("contents", "system_instruction", "systemInstruction", "prediction", "documents")
    ),
]


@pytest.mark.parametrize(
    ("one", "two"), [*((said(one), said(two)) for one, two in PROMPTS), *QUESTIONS], ids=str
)
def test_questions_that_differ_share_no_key(one, two):
    """Two questions that differ in what a rule takes out, or took out once, have keys of their own."""
    asked = {"model": "openai/m", "messages": [{"role": "user", "content": "x"}]}
    assert key_of(**{**asked, **one}) != key_of(**{**asked, **two})


def test_own_patterns_leave_no_hash():
    """What a pattern of the user takes out may be short, so that a hash would tell what it was."""
    redactor = Redactor(r"customer-(?P<secret>\d+)", environ={})
    assert redactor("customer-1") == redactor("customer-2") == "customer-<redacted:pattern>"


def ask(text, url=GONE, *before, **more):
    messages = [*before, {"role": "user", "content": text}]
    answer = litellm.completion(
        model="openai/gpt-4o-mini", messages=messages, api_base=url, api_key="sk-local", max_retries=0, **more
    )
    return answer.choices[0].message.content


def test_each_question_gets_its_own_answer(tmp_path, provider):
    """Two prompts that were one text once are two recordings with an answer each."""
    path = tmp_path / "c.yaml"
    for url in (provider.url, GONE):
        with use_cassette(path, mode="record" if url != GONE else "replay"):
            assert ask("secret_key=generateSecretKey12()", url).endswith("Key12()")
            assert ask("secret_key=generateSecretKey99()", url).endswith("Key99()")
            assert ask("Is hf_" + ALNUM + " valid?", url) != ask("Is hf_" + OTHER + " valid?", url)
    assert ALNUM not in path.read_text()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_goes_into_the_next_question(tmp_path, provider, stream):
    """A placeholder in a replayed answer is that which the live answer left in the next question."""
    key = "-----BEGIN PRIVATE KEY-----\n" + (ALNUM + "\n") * 3 + "-----END PRIVATE KEY-----"
    secrets = f"use hf_{ALNUM}, password=hunter2, https://ann:hunter2@h or\n{key}"

    def conversation(url):
        request = {"model": "openai/m", "api_base": url, "api_key": "sk-local", "max_retries": 0}
        first = litellm.completion(**request, stream=stream, messages=[{"role": "user", "content": "keys?"}])
        pieces = [part.choices[0].delta.content or "" for part in first] if stream else []
        told = "".join(pieces) or first.choices[0].message.content
        written = {
            "id": "c1",
            "type": "function",
            "function": {"name": "f", "arguments": json.dumps({"a": told})},
        }
        messages = [
            {"role": "assistant", "content": told, "tool_calls": [written]},
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"seen": told})},
        ]
        return str(litellm.completion(**request, messages=messages).choices[0].message.content)

    path = tmp_path / "c.yaml"
    provider.script(secrets)
    with use_cassette(path, mode="record"):
        recorded = conversation(provider.url)
    assert "hunter2" in recorded
    assert not re.search(f"hunter2|{ALNUM}", path.read_text())
    with use_cassette(path):
        assert "<redacted:huggingface-token:" in conversation(GONE)


def test_machines_with_other_keys_find_the_recording(tmp_path, provider, monkeypatch):
    """A key of this machine leaves no hash: in a prompt, in a tool's headers and in an address."""
    path = tmp_path / "c.yaml"
    for url, key in ((provider.url, ALNUM), (GONE, OTHER), (GONE, "")):
        tools = [
            {"type": "mcp", "server_url": f"https://h/?apikey={key}", "headers": {"X-Auth": key or None}}
        ]
        if key:
            monkeypatch.setenv("ACME_API_KEY", key)
        else:
            monkeypatch.delenv("ACME_API_KEY")
        with use_cassette(path, mode="record" if url != GONE else "replay"):
            ask("hello", url, tools=tools)
            if key:
                ask(f"is {key} valid, as in api_key={key} or https://h/?key={key}", url)
    assert not re.search("<redacted:[^>]*:[0-9a-f]{6}>", path.read_text())


OLD = [
    ("Is hf_{} valid?", "Is <redacted:huggingface-token> valid?"),
    (
        "api_key={} and https://ann:{}@h",
        "api_key=<redacted:api_key> and https://<redacted:url-credentials>@h",
    ),
    ("secret_key=generateSecretKey12()", "secret_key=<redacted:secret_key>()"),
    ("hf_{}", "<redacted:huggingface-token>"),
]


def as_once(path, old):
    """Give a cassette of one recording the placeholders and the kind of key that it had once."""
    text = re.sub(r"(?m)^key: [kh]", "key: k", path.read_text(), count=0)
    text = text.replace("the question", old)
    path.write_text(text)


@pytest.mark.parametrize(("asked", "stored"), OLD)
def test_what_was_recorded_without_hashes_is_found(tmp_path, provider, asked, stored):
    """A recording with placeholders of former versions replays, and only for what it may have been asked."""
    path = tmp_path / "c.yaml"
    provider.script("the answer")
    with use_cassette(path, mode="record"):
        ask("the question", provider.url)
    as_once(path, stored)
    before, count = path.read_text(), provider.count
    for mode in ("replay", "record"):
        with use_cassette(path, mode=mode):
            assert ask(asked.format(ALNUM, "x1y2z3"), provider.url) == "the answer"
    assert (path.read_text(), provider.count) == (before, count)
    with pytest.raises(CassetteMiss), use_cassette(path):
        ask(asked.format(ALNUM, "x1y2z3") + " and more")


@pytest.mark.parametrize(
    "stored", ["password=hunter2", f"npm_{ALNUM[:36]}", f"is hf_{ALNUM} and <redacted:jwt>"]
)
def test_what_was_recorded_before_a_rule_is_found(tmp_path, provider, stored):
    """What no rule took out when it was recorded replays, and the file stays as it is."""
    path = tmp_path / "c.yaml"
    provider.script("the answer")
    with use_cassette(path, mode="record"):
        ask("the question", provider.url)
    as_once(path, stored)
    before = path.read_text()
    with use_cassette(path):
        assert (
            ask(stored.replace("<redacted:jwt>", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"))
            == "the answer"
        )
    assert path.read_text() == before
    with pytest.raises(CassetteMiss), use_cassette(path):
        ask(stored + " 1")


def test_a_pattern_that_is_added_keeps_the_recordings(tmp_path, provider):
    """Nothing has to be recorded anew because `redact` takes more out than it did."""
    path = tmp_path / "c.yaml"
    with use_cassette(path, mode="record"):
        said = ask("who is customer-12345678?", provider.url)
        ask("who is customer-7?", provider.url)
    with use_cassette(path, redact=[r"customer-(?P<secret>[0-9]{8})"]):
        assert ask("who is customer-12345678?") == said


def test_a_tools_credentials_that_were_recorded_before_are_found(tmp_path, provider):
    """The placeholders of a tool's headers and address are what they were; their recording's key is another now."""
    path = tmp_path / "c.yaml"
    tool = {"type": "mcp", "server_url": f"https://ann:{ALNUM}@h/?key={ALNUM}", "headers": {"X-API-Key": "x"}}
    with use_cassette(path, mode="record"):
        ask("hello", provider.url, tools=[tool])
    assert re.search("(?m)^key: h", path.read_text())
    as_once(path, "")
    with use_cassette(path):
        ask("hello", tools=[{**tool, "headers": {"X-API-Key": None}}])


@pytest.mark.parametrize("value", ["open", "", None, ALNUM])
def test_a_field_that_was_taken_out_by_its_name_is_found(tmp_path, provider, value):
    """Under a secret's name any value was taken out once, and a missing one."""
    path = tmp_path / "c.yaml"
    provider.script("the answer")
    with use_cassette(path, mode="record"):
        ask("hello", provider.url, extra_body={"password": "the question", "x": 1})
    as_once(path, "<redacted:password>")
    with use_cassette(path):
        assert ask("hello", extra_body={"password": value, "x": 1}) == "the answer"
    with pytest.raises(CassetteMiss), use_cassette(path):
        ask("hello", extra_body={"password": value, "x": 2})


def test_a_key_of_the_machine_is_no_other_key(tmp_path, provider, monkeypatch):
    """What was recorded with a key of this machine, which leaves no hash, answers no question with another's."""
    path = tmp_path / "c.yaml"
    monkeypatch.setenv("HF_TOKEN", "hf_" + ALNUM)
    with use_cassette(path, mode="record"):
        ask(f"Is hf_{ALNUM} valid?", provider.url)
    assert "Is <redacted:huggingface-token> valid?" in path.read_text()
    with pytest.raises(CassetteMiss, match="huggingface-token:"), use_cassette(path):
        ask(f"Is hf_{ALNUM} valid?")
        ask(f"Is hf_{OTHER} valid?")


def test_an_address_in_a_prompt_stays(tmp_path, provider):
    """A prompt reaches the provider as it was written; the cassette alone has placeholders."""
    seen = provider.requests
    with use_cassette(tmp_path / "c.yaml", mode="record"):
        ask(f"https://ann:{ALNUM}@h", provider.url)
    assert seen[-1].prompt == f"https://ann:{ALNUM}@h"
