"""Builds the faults and replies of a test for calls of child processes, of which there is only plain data."""

from __future__ import annotations

from pytest_lmcache.interaction import Call
from pytest_lmcache.staged_answers import AnswerBuilder


def builder(call: Call) -> AnswerBuilder:
    """What makes the answers of a call that another process makes."""
    model = str(call.request.get("model", ""))
    if call.name == "dspy":
        from pytest_lmcache.libraries.dspy import staged

        return staged.Builder(call, model.partition("/")[0])
    from pytest_lmcache.libraries.litellm import staged as of_litellm
    from pytest_lmcache.libraries.litellm.call import model_and_provider

    name, provider = model_and_provider(model, call.request)
    return of_litellm.builder_of(call, name, provider, asked=model)
