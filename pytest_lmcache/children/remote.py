"""The recorder in a child process: it has the process of the test decide on each call."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from pytest_lmcache import errors
from pytest_lmcache.call_record import CallRecord, Staged
from pytest_lmcache.children.starts import Membership
from pytest_lmcache.children.wire import Lines, connect, error_named, from_json, to_json
from pytest_lmcache.errors import CassetteMiss, LMCacheError, MissInChild, UnsupportedInChild
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.not_recorded import NotRecorded
from pytest_lmcache.redact import Redactor
from pytest_lmcache.settings import Mode, Settings


class RemoteRecorder:
    """Does what a Recorder does for the interception, by messages to the process of the test (see `wire`).

    ``membership`` says where that is. Safe with threads and across ``fork``. A miss is raised as MissInChild, an
    ordinary exception, and noted by the test's recorder.
    """

    def __init__(self, membership: Membership, *, is_fork: bool = False) -> None:
        self.membership = membership
        self._process = 0 if is_fork else os.getpid()
        self._connection: _Connection | None = None
        self._numbers: dict[CallRecord, int] = {}
        self.redact = _SecretFinder()
        self.faults = _Faults(self._report)
        self.inner_faults: list[BaseException] = []
        self.caches_in_the_way: set[str] = set()
        self.bypassed_caches: list[Any] = []
        self.is_offline = membership.is_offline
        self.may_ask = False
        self.staged: Staged | None = None  # the test's process has the faults and replies
        self.settings = Settings(mode=Mode(membership.mode))
        self.verification = _Verification(self._ask)

    @property
    def mode(self) -> Mode:
        """The mode of the test that the next call belongs to."""
        return self.settings.mode or Mode.REPLAY

    def number(self) -> int:
        """Get the settings of the test that the next call belongs to; the test's recorder counts its calls."""
        got = self._ask("settings")
        self.may_ask, self.is_offline = got.pop("may_ask"), got.pop("is_offline")
        self.settings = Settings().updated(got, "the test's process")
        return 0

    def begin(
        self, order: int, call: Call, *, fast_path: bool = False, address: str = ""
    ) -> tuple[CallRecord, Answer | None]:
        """As `Recorder.begin`. Raises MissInChild, and what else that raises."""
        request = to_json(Answer(Kind.RESPONSE, call.request))
        got = self._ask("begin", name=call.name, request=request, fast_path=fast_path, address=address)
        record = CallRecord(order, call.name, got["key"], got["nth"], streamed=got["streamed"])
        record.is_asked_again = got["ask_again"]
        answer, number = _answer(record, got), got["number"]
        if answer is not None:
            record.entry = _Entry(number, partial(self._ask, "broken", number))  # type: ignore[assignment]
        elif number is not None:
            self._numbers[record] = number
        return record, answer

    def claim(
        self, record: CallRecord, _call: Call, *, waited: bool, can_wait: bool
    ) -> tuple[bool, Answer | None]:
        """As `Recorder.claim`; the test's process holds the lock, and counts what calls cost."""
        number = self._numbers.get(record)
        if number is None:
            return True, None
        got = self._ask("claim", number, waited=waited, can_wait=can_wait)
        return got["is_claimed"], _answer(record, got)

    def finish(self, record: CallRecord, _call: Call, answer: Answer) -> None:
        """As `Recorder.finish`: the answer is in the test's cache when this returns."""
        record.copy_usage(answer)
        self._end("finish", record, answer=to_json(answer))

    def discard(self, record: CallRecord, _call: Call, answer: Answer, why: NotRecorded) -> None:
        """As `Recorder.discard`."""
        self._end("discard", record, answer=to_json(answer), reason=why.reason, text=why.what)

    def refuse(self, name: str, reason: str = "") -> None:
        """As `Recorder.refuse`."""
        self._ask("refuse", name=name, reason=reason)

    def cut_off(self, record: CallRecord, answer: Answer, *, waited: float = 0.0) -> NoReturn:
        """As `Recorder.cut_off`."""
        number = getattr(record.entry, "number", None) or self._numbers.get(record)
        self._ask("cut_off", number, answer=to_json(answer), waited=waited)
        raise AssertionError

    def _end(self, do: str, record: CallRecord, **more: Any) -> None:
        record.open_stream = None
        if record in self._numbers:
            self._ask(do, self._numbers.pop(record), **more)

    def _end_streams(self) -> None:
        """End the streams that are still open when this process ends."""
        if self._connection is None or self._connection.process != os.getpid():
            return
        for record in list(self._numbers):
            if record.open_stream is not None:
                with suppress(MissInChild):  # the test's process has ended before
                    record.open_stream.left()

    def _report(self, fault: BaseException) -> None:
        self._ask("fault", kind=type(fault).__name__, text=str(fault))

    def _ask(self, do: str, number: int | None = None, **more: Any) -> dict[str, Any]:
        """Send a message. Returns the reply, or raises what was raised there."""
        if self._connection is None or self._connection.process != os.getpid():
            self.redact.forget()
            self._connection = _Connection(self.membership, _name(is_fork=self._process != os.getpid()))
            _at_exit(self._end_streams)
        got = self._connection.ask({"do": do, "number": number, **self.redact.unsent(), **more})
        if "raised" in got:
            fault = _error(*got["raised"])
            if got["is_known"]:
                self.faults.append_known(fault)
            raise fault
        return got


class _Connection:
    """The connection of one process, for one message at a time."""

    def __init__(self, server: Membership, name: str) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        try:
            self._lines: Lines = connect(server.address)
        except OSError as problem:
            raise _gone(problem) from None
        hello = {"scope": server.scope, "token": server.token, "pid": self.process, "name": name}
        self.ask({"do": "hello", **hello})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                self._lines.send(message)
                while (replies := self._lines.receive()) == []:
                    pass
        except (OSError, ValueError) as problem:
            raise _gone(problem) from None
        if replies is None:
            raise _gone(ConnectionResetError())
        return replies[0]


def _answer(record: CallRecord, got: Mapping[str, Any]) -> Answer | None:
    if "answer" not in got:
        return None
    answer = from_json(got["answer"])
    record.source, record.seconds = got["source"], answer.seconds
    record.copy_usage(answer)
    return answer


def _gone(problem: Exception) -> MissInChild:
    return MissInChild(
        f"Process {os.getpid()} ({_name()}) was started by a test whose pytest process cannot be reached any more "
        f"({type(problem).__name__}), so its language-model calls are refused.\n"
        "End the process in the test that starts it, or start it where nothing is recorded or replayed."
    )


def _at_exit(act: Callable[[], None]) -> None:
    """Call a function when this process ends, also if multiprocessing ends it."""
    atexit.register(act)
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util.Finalize(None, act, exitpriority=0)


def _name(*, is_fork: bool = False) -> str:
    """A readable name of this process: that in multiprocessing, or its command, which a fork does not have."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        process = multiprocessing.current_process()
        if process.name != "MainProcess":
            return str(process.name)
    if is_fork:
        return "made by os.fork()"
    return errors.shorten(" ".join(map(os.fsdecode, sys.orig_argv)))


def _error(kind: str, text: str) -> BaseException:
    fault = error_named(kind, text)
    if isinstance(fault, CassetteMiss):
        return UnsupportedInChild(text) if isinstance(fault, errors.UnsupportedCall) else MissInChild(text)
    return fault


class _Faults(list[BaseException]):
    """The errors of this process; those that the test's recorder does not know yet are reported to it."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._report = report

    def append_known(self, fault: BaseException) -> None:
        """Note an error that the test's recorder has raised."""
        super().append(fault)

    def append(self, fault: BaseException) -> None:
        """Note an error and report it."""
        super().append(fault)
        self._report(fault)

    def extend(self, faults: Iterable[BaseException]) -> None:
        """Note errors and report them."""
        for fault in faults:
            self.append(fault)


class _Entry:
    """A recording, which only the test's process can read; ``ask`` asks it for the error of a broken one."""

    def __init__(self, number: int, ask: Callable[..., dict[str, Any]]) -> None:
        self.number = number
        self._ask = ask

    def broken(self, problem: str) -> LMCacheError:
        """The error of a recording that cannot be read, with its file and line."""
        return errors.CassetteError(self._ask(problem=problem)["text"])


class _Verification:
    """In the place of a Verification: passes new answers on to the test's."""

    def __init__(self, ask: Callable[..., dict[str, Any]]) -> None:
        self._ask = ask

    def answered(self, record: CallRecord, asked: str, new: Answer, why: str = "") -> None:
        """As `Verification.answered`."""
        number = getattr(record.entry, "number", None)
        self._ask("asked_again", number, model=asked, answer=to_json(new), why=why)


class _SecretFinder:
    """In the place of a Redactor: finds the secrets of this process, for the test's redactor."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as for another connection."""
        self._finder = Redactor()
        self._sent: Any = None

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Remember the secrets among a call's raw arguments."""
        self._finder.learn(arguments)

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are: nothing is stored here."""
        return arguments

    def unsent(self) -> dict[str, Any]:
        """The secrets, if there are new ones."""
        known = self._finder.known_secrets()
        if known == self._sent:
            return {}
        self._sent = known
        return {"secrets": known}
