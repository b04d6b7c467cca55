"""Answers the calls of processes that tests started, with the recorders of those tests; a thread of this process."""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.children.starts import OFFLINE
from pytest_lmcache.children.wire import (
    LONGEST_PAUSE,
    Lines,
    Socket,
    connect,
    error_named,
    packed,
    unpacked,
    unpacked_request,
)
from pytest_lmcache.errors import CassetteMiss
from pytest_lmcache.interaction import Answer, Call
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode

# The recorder of a scope and of a process by its name. Raises CassetteMiss where its calls are late, and refused.
Find = Callable[[str, str], Recorder | None]
# Reports a call of a scope and of a process that no recorder has, by its name.
LiveCall = Callable[[str, str, str], None]
PATIENCE = 5.0  # seconds that a fork waits for an answer to be given
KEPT = 1000  # replayed calls of a process of which there may still be a question


class Server:
    """Listens from its making on; ``find`` gives the recorder of a call.

    The thread is stopped around a fork, so that the child of a test has no other threads than the test's.
    """

    def __init__(self, find: Find, live_call: LiveCall) -> None:
        self._find = find
        self._live_call = live_call
        self._process = os.getpid()
        self._token = secrets.token_urlsafe(24)
        self._folder: str | None = None
        self._listener, self.address = self._bound()
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._peers: dict[int, Peer] = {}
        self.lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self.resume()

    def variable(self, scope: str, mode: str, *, is_offline: bool) -> str:
        """What a process gets told in its environment."""
        return f"{scope} {self._token} {mode}{OFFLINE if is_offline else ''} {self.address}"

    def close(self) -> None:
        """End, and leave nothing behind."""
        if self._process != os.getpid():
            return
        self.pause()
        self.forget()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self) -> None:
        """Close what a fork has copied; the socket of the parent stays."""
        self._listener.close()
        for peer in self._peers.values():
            peer.lines.close()
        self._peers.clear()

    def pause(self) -> None:
        """Stop the thread, after the answer that it is giving."""
        if self._thread is not None:
            self._is_stopping = True
            with suppress(OSError):  # it is awake, and has very much to do
                connect(self.address).close()
            self._thread.join(PATIENCE)
            self._thread = None

    def resume(self) -> None:
        """Go on."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._serve, name="pytest-lmcache children", daemon=True)
        self._thread.start()

    def _bound(self) -> tuple[Socket, str]:
        if hasattr(socket, "AF_UNIX"):
            self._folder = tempfile.mkdtemp(prefix="lmcache-")  # for this user alone
            path = str(Path(self._folder) / "s")
            listener = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(path)
            except OSError:  # such as a path that is too long for a socket
                listener.close()
            else:
                return listener, f"unix:{path}"
        listener = Socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        return listener, f"tcp:{listener.getsockname()[1]}"

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for descriptor in self._peers:
                selector.register(descriptor, selectors.EVENT_READ)
            while not self._is_stopping:
                for key, _ in selector.select():
                    if key.fd == self._listener.fileno():
                        self._accept(selector)
                    elif not self._peers[key.fd].answer(self.lock):
                        selector.unregister(key.fd)
                        self._peers.pop(key.fd).end()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - as socket.accept does
        except OSError:
            return  # it has gone already
        os.set_inheritable(descriptor, False)
        connection = Socket(fileno=descriptor)
        connection.settimeout(LONGEST_PAUSE)
        self._peers[descriptor] = Peer(Lines(connection), self._token, self._find, self._live_call)
        selector.register(descriptor, selectors.EVENT_READ)


class Peer:
    """One process that a test has started."""

    def __init__(self, lines: Lines, token: str, find: Find, live_call: LiveCall) -> None:
        self.lines = lines
        self._token = token
        self._find = find
        self._live_call = live_call
        self._scope = ""
        self._who = ""
        self._secrets: list[list[tuple[str, str]]] = [[], []]
        self._count = count(1)
        self._calls: dict[int, tuple[Recorder, CallRecord, Call]] = {}
        self._replayed: deque[int] = deque()

    def answer(self, lock: AbstractContextManager[Any]) -> bool:
        """Answer what it asks now; False when it has gone."""
        try:
            questions = self.lines.receive()
            if questions is None:
                return False
            for question in questions:
                with lock:
                    got = self._answered(question)
                self.lines.send(got)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # nobody that we know
            return False
        return True

    def end(self) -> None:
        """It has gone: nobody waits for its answers any more."""
        for _, record, _ in self._calls.values():
            record.lock.release()
        self.lines.close()

    def _answered(self, question: dict[str, Any]) -> dict[str, Any]:
        what = question.pop("do")
        if what == "hello":
            return self._hello(**question)
        if not self._scope:
            raise PermissionError
        number, self._secrets = question.pop("number"), question.pop("secrets", self._secrets)
        recorder: Recorder | None = None
        try:
            # A call that has begun is its recorder's, also when the test has ended meanwhile.
            if number is None:
                recorder = self._find(self._scope, self._who)
                if recorder is not None:
                    recorder.redact.learn_secrets(*self._secrets)
            act = getattr(self, f"_{what}")
            result: dict[str, Any] = act(recorder if number is None else number, **question)
        except BaseException as fault:  # noqa: BLE001 - the process that asked gets it
            if isinstance(fault, CassetteMiss):
                fault.add_line(f"Asked by   {self._who}")
            # Who raises a miss remembers it.
            is_known = isinstance(fault, CassetteMiss) or (recorder is not None and fault in recorder.faults)
            return {"raised": [type(fault).__name__, str(fault)], "is_known": is_known}
        return result

    def _hello(self, scope: str, token: str, pid: int, name: str) -> dict[str, Any]:
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            raise PermissionError
        self._scope, self._who = scope, f"process {pid}, {name}"
        return {}

    def _settings(self, recorder: Recorder | None) -> dict[str, Any]:
        if recorder is None:
            return {"mode": Mode.LIVE, "may_ask": False}
        settings = recorder.settings
        return {
            "mode": recorder.mode,
            "may_ask": recorder.may_ask,
            "is_offline": recorder.is_offline,
            "usage": settings.usage,
            "record_errors": settings.record_errors,
            "keep_headers": [*settings.keep_headers],
        }

    def _begin(
        self, recorder: Recorder | None, *, name: str, request: Any, fast_path: bool, address: str
    ) -> dict[str, Any]:
        if recorder is None:
            self._live_call(self._scope, self._who, name)
            return {"number": None, "key": "", "nth": 0, "streamed": False, "answer": None}
        call = Call(name, recorder.redact.request(unpacked_request(request)))
        record, answer = recorder.begin(recorder.number(), call, fast_path=fast_path, address=address)
        record.model = str(call.request.get("model", ""))
        given = next(self._count)
        is_begun = answer is not None or not fast_path
        if is_begun:
            self._calls[given] = recorder, record, call
        if answer is not None:
            self._replayed.append(given)
            if len(self._replayed) > KEPT:
                self._calls.pop(self._replayed.popleft(), None)
        return {
            "number": given if is_begun else None,
            "key": record.key,
            "nth": record.nth,
            "streamed": record.streamed,
            **_sent(record, answer),
        }

    def _claim(self, number: int, *, waited: bool, can_wait: bool) -> dict[str, Any]:
        recorder, record, call = self._calls[number]
        is_claimed, answer = recorder.claim(record, call, waited=waited, can_wait=can_wait)
        return {"is_claimed": is_claimed, **_sent(record, answer)}

    def _finish(self, number: int, *, answer: Any) -> dict[str, Any]:
        recorder, record, call = self._calls.pop(number)
        recorder.finish(record, call, unpacked(answer))
        return {}

    def _discard(self, number: int, *, answer: Any, reason: str, text: str) -> dict[str, Any]:
        recorder, record, call = self._calls.pop(number)
        recorder.discard(record, call, unpacked(answer), NotRecorded(Reason(reason), text))
        return {}

    def _refuse(self, recorder: Recorder | None, *, name: str) -> dict[str, Any]:
        if recorder is None:
            self._live_call(self._scope, self._who, name)
        else:
            recorder.refuse(name)
        return {}

    def _cut_off(self, number: int, *, answer: Any, waited: float) -> NoReturn:
        recorder, record, _ = self._calls[number]
        recorder.cut_off(record, unpacked(answer), waited=waited)

    def _broken(self, number: int, *, problem: str) -> dict[str, Any]:
        entry = self._calls[number][1].entry
        return {"text": problem if entry is None else str(entry.broken(problem))}

    def _fault(self, recorder: Recorder | None, *, kind: str, text: str) -> dict[str, Any]:
        if recorder is not None:
            recorder.faults.append(error_named(kind, text))
        return {}


def _sent(record: CallRecord, answer: Answer | None) -> dict[str, Any]:
    """An answer that the test's recorder had, as it is sent."""
    return {"answer": None} if answer is None else {"answer": packed(answer), "source": record.source}
