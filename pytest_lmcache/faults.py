"""The methods of ``lm_cache`` with which a test sets up faults, and replies in place of the provider."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from pytest_lmcache.conversation import ToolCall
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.staged_answers import (
    FAULT,
    REPLY,
    Choice,
    Condition,
    Cut,
    Fail,
    Malformed,
    Outcome,
    Reply,
    Rule,
    Slow,
    Usage,
    reply_of,
)
from pytest_lmcache.staged_calls import StagedCalls

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder


class Which(TypedDict, total=False):
    """Which calls get a fault or a reply.

    - ``model``: a model or a pattern such as ``openai/*``; the provider before the slash may be left out
    - ``call``: the number of the call, from 1, or several numbers; counted among the calls since the set-up that
      ``model`` and ``when`` choose
    - ``when``: a function of the request, a dict
    - ``optional``: whether it is no error if no call meets it
    """

    model: str | None
    call: int | Collection[int] | None
    when: Condition | None
    optional: bool


class Faults:
    """Sets up faults and replies for the calls of one recorder.

    A call that meets one is not sent, takes no recording, and is neither recorded nor cached. A fault or a reply that
    no call meets fails the test.
    """

    _recorder: Recorder

    def fail(
        self,
        error: BaseException | type[BaseException],
        *,
        times: int | None = 1,
        message: str | None = None,
        retry_after: float | None = None,
        **which: Unpack[Which],
    ) -> None:
        """Let calls raise an error: ``lm_cache.fail(litellm.RateLimitError, times=2)``.

        Of a class of LiteLLM's the error is built as that of the provider that is asked, with ``message`` and a header
        ``retry-after`` of ``retry_after`` seconds; an instance, or another class, is raised as it is. ``times`` None
        is for any number of calls. Raises SettingsError for a value that is no error.
        """
        if not isinstance(error, BaseException) and not (
            isinstance(error, type) and issubclass(error, BaseException)
        ):
            raise SettingsError(f"lm_cache.fail takes an exception or a class of exceptions, not {error!r}.")
        self._stage("fail", [Fail(error, message, retry_after)], _name(error), times, which)

    def cut_stream(
        self,
        after: int,
        *,
        error: BaseException | type[BaseException] | None = ConnectionError,
        times: int | None = 1,
        **which: Unpack[Which],
    ) -> None:
        """Cut a stream after some chunks of its recording: ``lm_cache.cut_stream(after=3)``.

        The reader gets the library's error for a lost connection, ``error`` as `fail` would raise it, or, if that is
        None, a stream that just ends. Only calls of streams count.
        """
        if after < 0:
            raise SettingsError("lm_cache.cut_stream: after is the number of chunks, 0 or more.")
        self._stage("cut_stream", [Cut(after, error)], f"after={after}", times, which)

    def slow(
        self,
        seconds: float,
        *,
        wait: bool = False,
        times: int | None = 1,
        **which: Unpack[Which],
    ) -> None:
        """Let an answer take longer: ``lm_cache.slow(30)``.

        The clock that the code under test sees moves on by ``seconds``: that of ``time``, of ``datetime`` and of
        asyncio, whose time-outs come. With ``wait`` the call really takes so long. A call with a shorter ``timeout``
        raises the library's error for that; any other gets its recorded answer.
        """
        if seconds <= 0:
            raise SettingsError("lm_cache.slow: seconds is more than 0.")
        self._stage("slow", [Slow(seconds, wait)], f"{seconds:g}", times, which)

    def empty(self, *, times: int | None = 1, **which: Unpack[Which]) -> None:
        """Give calls an answer without text or tool calls: ``lm_cache.empty()``."""
        self._stage("empty", [Reply("")], "", times, which)

    def malformed_tool_call(
        self,
        name: str | None = None,
        *,
        arguments: str = '{"',
        times: int | None = 1,
        **which: Unpack[Which],
    ) -> None:
        """Give calls a tool call whose arguments are not JSON: ``lm_cache.malformed_tool_call()``.

        It calls the tool ``name``, or the first one that the call offers; then only calls with tools count.
        """
        self._stage("malformed_tool_call", [Malformed(name, arguments)], _text(name), times, which)

    def reply(
        self,
        *answers: Any,
        tool_calls: Sequence[ToolCall | tuple[str, Mapping[str, Any] | str]] = (),
        reasoning: str | None = None,
        embedding: Sequence[float] | Sequence[Sequence[float]] | None = None,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        times: int | None = None,
        **which: Unpack[Which],
    ) -> None:
        """Answer calls in place of the provider: ``lm_cache.reply("Paris.")``.

        An answer is a text, a list of texts (the pieces of a stream), a mapping or a pydantic model (which becomes
        JSON), a `ToolCall`, a `Reply`, an error, or a function that returns one of these for a request. One answer is
        for all calls, or for as many as ``times`` says; several are for one call after the other. The other arguments
        are those of `Reply`. Raises SettingsError for any other value.
        """
        more = {
            "tool_calls": [call if isinstance(call, ToolCall) else ToolCall(*call) for call in tool_calls],
            "reasoning": reasoning,
            "embedding": embedding,
            "finish_reason": finish_reason,
            "usage": usage,
        }
        given: dict[str, Any] = {
            name: value for name, value in more.items() if value is not None and value != []
        }
        if len(answers) > 1 and (given or times is not None):
            name = next(iter(given), "times")
            raise SettingsError(
                f"lm_cache.reply: {name} is for one answer. Give several as Reply(…, {name}=…)."
                if given
                else "lm_cache.reply: several answers are for one call each, so times cannot be given."
            )
        if not answers and not given:
            raise SettingsError('lm_cache.reply needs an answer, such as lm_cache.reply("Paris.").')
        outcomes: list[Outcome] = [_outcome(answer) for answer in answers] or [Reply()]
        if given:
            if not isinstance(outcomes[0], Reply):
                raise SettingsError(
                    f"lm_cache.reply: {', '.join(given)} cannot be added to an error or a function."
                )
            outcomes = [replace(outcomes[0], **given)]
        shown = ", ".join(map(_text, answers)) or f"{next(iter(given))}=…"
        self._stage("reply", outcomes, shown, times, which)

    def _stage(
        self,
        method: str,
        outcomes: Sequence[Outcome],
        shown: str,
        times: int | None,
        which: Which,
    ) -> None:
        if which.get("call") is not None and times == 1:
            times = None
        said = [shown] if shown else []
        said += [f"times={times}"] * (times not in {None, 1})
        said += [f"{name}={_text(value)}" for name, value in which.items()]
        source = REPLY if method == "reply" else FAULT
        rule = Rule(f"{method}({', '.join(said)})", source, outcomes, Choice(times=times, **which))
        if self._recorder.staged is None:
            self._recorder.staged = StagedCalls(self._recorder)
        self._recorder.staged.add(rule)


def _outcome(answer: Any) -> Outcome:
    is_function = callable(answer) and not isinstance(answer, type) and not hasattr(answer, "model_dump_json")
    function: Callable[[dict[str, Any]], Any] = answer
    return function if is_function else reply_of(answer, "reply")


def _name(error: Any) -> str:
    return error.__name__ if isinstance(error, type) else f"{type(error).__name__}(…)"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, BaseException | type) or callable(value):
        return str(getattr(value, "__name__", None) or _name(value))
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"  # noqa: PLR2004
