"""The recorder of a process that a test has started: the test's own recorder decides, this one carries to and fro."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from pytest_lmcache import errors
from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.children.starts import OFFLINE
from pytest_lmcache.children.wire import Lines, connect, error_named, packed, packed_request, unpacked
from pytest_lmcache.errors import CassetteMiss, LMCacheError, MissInChild, UnsupportedInChild
from pytest_lmcache.interaction import Answer, Call
from pytest_lmcache.not_recorded import NotRecorded
from pytest_lmcache.redact import Redactor
from pytest_lmcache.settings import Mode, Settings


class RemoteRecorder:
    """Does for the interception in this process what a Recorder does, by way of the process of the test.

    ``variable`` says where that is. Safe with threads and across ``fork``. A miss is raised as MissInChild, which
    is an ordinary exception; the test's recorder remembers it.
    """

    def __init__(self, variable: str, *, is_fork: bool = False) -> None:
        self.variable = variable
        self._born = 0 if is_fork else os.getpid()
        self.redact = _Sender()
        self.faults = _Faults(self._report)
        self.inner_faults: list[BaseException] = []
        self.caches_in_the_way: set[str] = set()
        self.bypassed_caches: list[Any] = []
        mode = variable.split(" ")[2]
        self.is_offline = mode.endswith(OFFLINE)
        self.may_ask = False
        self.settings = Settings(mode=Mode(mode.removesuffix(OFFLINE)))
        self._line: _Line | None = None
        self._numbers: dict[CallRecord, int] = {}

    # What the interception wants to know.

    @property
    def mode(self) -> Mode:
        """The mode of the test whose the next call is."""
        return self.settings.mode or Mode.REPLAY

    def number(self) -> int:
        """The test's recorder counts; here a call begins, which may be another test's than the last one."""
        got = self._ask("settings")
        self.may_ask, self.is_offline = got.pop("may_ask"), got.pop("is_offline", False)
        self.settings = Settings().updated(got, "the test's process")
        return 0

    # The way of a call.

    def begin(
        self, order: int, call: Call, *, fast_path: bool = False, address: str = ""
    ) -> tuple[CallRecord, Answer | None]:
        """As the test's recorder decides. Raises MissInChild, and what else that raises."""
        request = packed_request(call.request)
        got = self._ask("begin", name=call.name, request=request, fast_path=fast_path, address=address)
        record = CallRecord(order, call.name, got["key"], got["nth"], streamed=got["streamed"])
        answer = self._answer(record, got)
        if answer is not None:
            record.entry = _Entry(self, got["number"])  # type: ignore[assignment]
        elif got["number"] is not None:
            self._numbers[record] = got["number"]
        return record, answer

    def claim(
        self, record: CallRecord, _call: Call, *, waited: bool, can_wait: bool
    ) -> tuple[bool, Answer | None]:
        """As `Recorder.claim`; the test's process holds the lock."""
        if self.mode not in {Mode.RECORD, Mode.ONCE} or record not in self._numbers:
            return True, None
        got = self._ask("claim", self._numbers[record], waited=waited, can_wait=can_wait)
        return got["is_claimed"], self._answer(record, got)

    def finish(self, record: CallRecord, _call: Call, answer: Answer) -> None:
        """Hand the provider's answer over: it is in the test's layers when this returns."""
        record.tokens, record.cached, record.usd = answer.tokens, answer.cached, answer.usd
        record.open_stream = None
        if record not in self._numbers:
            return
        self._ask("finish", self._numbers.pop(record), answer=packed(answer))

    def discard(self, record: CallRecord, _call: Call, answer: Answer, why: NotRecorded) -> None:
        """Hand over an error that may pass."""
        record.open_stream = None
        if record in self._numbers:
            self._ask(
                "discard", self._numbers.pop(record), answer=packed(answer), reason=why.reason, text=why.what
            )

    def refuse(self, name: str) -> None:
        """Let a call of an entry point that is not recorded pass, or raise."""
        self._ask("refuse", name=name)

    def cut_off(self, record: CallRecord, answer: Answer, *, waited: float = 0.0) -> NoReturn:
        """What was cut off when it was recorded goes on now: a miss."""
        self._ask("cut_off", self._number(record), answer=packed(answer), waited=waited)
        raise AssertionError

    def end(self) -> None:
        """Here the process ends: what was read of streams so far is what there will be."""
        if self._line is None or self._line.pid != os.getpid():
            return
        for record in list(self._numbers):
            if record.open_stream is not None:
                with suppress(
                    MissInChild
                ):  # the test's process has gone before: nothing is recorded any more
                    record.open_stream.left()

    def _answer(self, record: CallRecord, got: Mapping[str, Any]) -> Answer | None:
        if got.get("answer") is None:
            return None
        answer = unpacked(got["answer"])
        record.source, record.seconds = got["source"], answer.seconds
        record.tokens, record.cached, record.usd = answer.tokens, answer.cached, answer.usd
        return answer

    def _report(self, fault: BaseException) -> None:
        self._ask("fault", kind=type(fault).__name__, text=str(fault))

    def _number(self, record: CallRecord) -> int | None:
        return getattr(record.entry, "number", None) or self._numbers.get(record)

    def _ask(self, what: str, number: int | None = None, **more: Any) -> dict[str, Any]:
        """Have the test's process do something. Raises what it raises there."""
        got = self._connected().ask({"do": what, "number": number, **self.redact.news(), **more})
        if "raised" in got:
            fault = _fault(*got["raised"])
            if got["is_known"]:
                self.faults.know(fault)
            raise fault
        return got

    def _connected(self) -> _Line:
        if self._line is None or self._line.pid != os.getpid():
            self.redact.forget()
            self._line = _Line(self.variable, _name(is_fork=self._born != os.getpid()))
            _at_exit(self.end)
        return self._line


class _Line:
    """The connection of one process, for one question at a time."""

    def __init__(self, variable: str, name: str) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        scope, token, _, address = variable.split(" ", 3)
        hello = {"do": "hello", "scope": scope, "token": token, "pid": self.pid, "name": name}
        try:
            self._lines: Lines = connect(address)
        except OSError as problem:
            raise _gone(problem) from None
        self.ask(hello)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                return self._lines.ask(question)
        except (OSError, ValueError) as problem:
            raise _gone(problem) from None


def _gone(problem: Exception) -> MissInChild:
    return MissInChild(
        f"Process {os.getpid()} ({_name()}) was started by a test whose pytest process cannot be reached any more "
        f"({type(problem).__name__}), so its language-model calls are refused.\n"
        "End the process in the test that starts it, or start it where nothing is recorded or replayed."
    )


def _at_exit(act: Callable[[], None]) -> None:
    """Act when this process ends, also where multiprocessing ends it."""
    atexit.register(act)
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util.Finalize(None, act, exitpriority=0)


def _name(*, is_fork: bool = False) -> str:
    """How a person knows this process: its name among multiprocessing's, or its command, which a fork has not."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        process = multiprocessing.current_process()
        if process.name != "MainProcess":
            return str(process.name)
    if is_fork:
        return "made by os.fork()"
    return errors.shorten(" ".join(map(os.fsdecode, sys.orig_argv)))


def _fault(kind: str, text: str) -> BaseException:
    fault = error_named(kind, text)
    if isinstance(fault, CassetteMiss):
        return UnsupportedInChild(text) if isinstance(fault, errors.UnsupportedCall) else MissInChild(text)
    return fault


class _Faults(list[BaseException]):
    """What went wrong here; what the test's recorder does not know yet is reported to it."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._report_one = report

    def know(self, fault: BaseException) -> None:
        """Keep one that comes from there."""
        super().append(fault)

    def append(self, fault: BaseException) -> None:
        """Keep and report one."""
        super().append(fault)
        self._report_one(fault)

    def extend(self, faults: Iterable[BaseException]) -> None:
        """Keep and report several."""
        for fault in faults:
            self.append(fault)


class _Entry:
    """The recording of an answer, in the test's process."""

    def __init__(self, recorder: RemoteRecorder, number: int) -> None:
        self._recorder = recorder
        self.number = number

    def broken(self, problem: str) -> LMCacheError:
        """The error for a recording that cannot be read, with its file and line."""
        got = self._recorder._ask("broken", self.number, problem=problem)  # noqa: SLF001 - of this file
        return errors.CassetteError(got["text"])


class _Sender:
    """Stands where a Recorder has its Redactor: the test's one redacts, and is sent the secrets of this process."""

    def __init__(self) -> None:
        self._finder = Redactor()
        self._sent: Any = None

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Remember the secrets among a call's raw arguments."""
        self._finder.learn(arguments)

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The same: nothing is stored here."""
        return arguments

    def forget(self) -> None:
        """Begin anew with another connection, in another process perhaps."""
        self._finder = Redactor()
        self._sent = None

    def news(self) -> dict[str, Any]:
        """The secrets that have not been sent yet."""
        known = self._finder.known_secrets()
        if known == self._sent:
            return {}
        self._sent = known
        return {"secrets": known}
