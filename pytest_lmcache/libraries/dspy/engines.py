"""DSPy asks the same by its own engine and by LiteLLM: each one's calls and answers in the form of the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_lmcache.interaction import Answer, Call, copied
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.libraries.dspy import answers
from pytest_lmcache.libraries.dspy.call import NAME
from pytest_lmcache.libraries.equivalence import Equivalence

LITELLM = "completion"


def _other_name(call: Call) -> str | None:
    """The name of a call by the other engine; streams cannot be converted."""
    return None if call.request.get("stream") else {NAME: LITELLM, LITELLM: NAME}.get(call.name)


def _as_own(call: Call) -> Call | None:
    """A call as DSPy's own engine makes it; None if it cannot."""
    if call.name == NAME:
        return call
    if call.request.get("n", 1) != 1:
        return None
    from dspy.lm15 import request_from_openai_chat

    body = {name: value for name, value in call.request.items() if name != "n"}
    try:
        body.update(_strict_format(body.get("response_format")))
        asked = answers.question(request_from_openai_chat(body), "chat", stream=False)
    except Exception:  # noqa: BLE001 - DSPy raises whatever it likes for a request that it cannot convert
        return None
    return Call(NAME, request_of((), (), asked, NAME))


def _strict_format(form: Any) -> dict[str, Any]:
    """The schema of a pydantic class as DSPy's own engine sends it: strict."""
    if not isinstance(form, dict) or form.keys() != {"name", "schema"}:
        return {}
    from dspy.clients.legacy_requests import _strict_json_schema

    form = {"name": form["name"], "schema": _strict_json_schema(copied(form["schema"])), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _convert(call: Call, answer: Answer) -> Answer:
    """A response that the other engine recorded, as this call's engine gives it."""
    if call.name == LITELLM:
        return answer._replace(data=_chat(answers.response_from_plain(answer.data), call.request))
    from dspy.lm15 import response_from_openai_chat

    response = response_from_openai_chat(dict(answer.data), model=call.request["model"])
    return answer._replace(data=answers.response_to_plain(response), hidden=None)


def _chat(response: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """A response of DSPy's own engine as LiteLLM gives it."""
    from dspy.clients.call_result import legacy_output, usage_dict

    output = legacy_output(response, logprobs=response.logprobs is not None)
    message = {"role": "assistant", "content": output["text"]}
    message.update((name, output[name]) for name in ("tool_calls", "reasoning_content") if name in output)
    reason = "tool_calls" if response.finish_reason == "tool_call" else response.finish_reason
    choice = {"index": 0, "finish_reason": reason, "message": message}
    if "logprobs" in output:
        choice["logprobs"] = output["logprobs"]
    provider = request["model"].partition("/")[0]
    data = {
        "id": response.id,
        "created": 0,
        "model": response.model,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage_dict(response, provider),
    }
    plain: dict[str, Any] = copied(data)
    return plain


EQUIVALENCE = Equivalence("DSPy", _other_name, _as_own, _convert)
