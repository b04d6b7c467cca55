"""What DSPy asks is one question, whichever engine carries it: its own, or LiteLLM."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pytest_lmcache.interaction import Answer, Call, copied
from pytest_lmcache.keys.plain import request_of

OWN, LITELLM = "dspy", "completion"
OTHER = {OWN: LITELLM, LITELLM: OWN}


def may_be_the_others(call: Call) -> bool:
    """Whether DSPy's other engine could have asked this too; streams cannot be converted."""
    is_there = hasattr(sys.modules.get("dspy"), "lm15")
    return is_there and call.name in OTHER and not call.request.get("stream")


def as_own(call: Call) -> Call | None:
    """A call as DSPy's own engine asks it, None for one that this engine cannot carry."""
    if call.name == OWN:
        return call
    if call.request.get("n", 1) != 1:
        return None
    from dspy.lm15 import request_from_openai_chat

    from pytest_lmcache.libraries.dspy import answers as lm15

    body = {name: value for name, value in call.request.items() if name != "n"}
    try:
        body.update(_strict_format(body.get("response_format")))
        asked = lm15.question(request_from_openai_chat(body), "chat", stream=False)
    except Exception:  # noqa: BLE001 - it has no such form, for whatever reason
        return None
    return Call(OWN, request_of((), (), asked, OWN))


def _strict_format(form: Any) -> dict[str, Any]:
    """A pydantic class as DSPy's own engine sends it: its schema, made strict."""
    if not isinstance(form, dict) or form.keys() != {"name", "schema"}:
        return {}
    from dspy.clients.legacy_requests import _strict_json_schema

    form = {"name": form["name"], "schema": _strict_json_schema(copied(form["schema"])), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def answer_for(call: Call, answer: Answer) -> Answer:
    """The other engine's recorded response as this call's engine gives it."""
    from pytest_lmcache.libraries.dspy import answers as lm15

    if call.name == OWN:
        from dspy.lm15 import response_from_openai_chat

        response = response_from_openai_chat(dict(answer.data), model=call.request["model"])
        return answer._replace(data=lm15.store_response(response), hidden=None)
    return answer._replace(data=_chat(lm15.revive_response(answer.data), call.request))


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
