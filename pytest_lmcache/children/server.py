"""The server in the process of the tests: it has their recorders decide on the calls of child processes."""

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
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.children.starts import Membership
from pytest_lmcache.children.wire import Lines, Socket, connect, error_named, from_json, to_json
from pytest_lmcache.errors import CassetteMiss
from pytest_lmcache.interaction import Answer, Call
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import SETTINGS, Mode

# Gives the recorder of a scope's process, by the name of the process; raises UnsupportedCall for a late call.
Find = Callable[[str, str], Recorder | None]
# Reports a call that has no recorder, by its scope, its process and its name.
LiveCall = Callable[[str, str, str], None]
SEND_TIMEOUT = 60.0  # seconds
PAUSE_TIMEOUT = 5.0  # seconds that a fork waits for the answer that is being given
KEPT_REPLAYS = 1000  # replayed calls of a process that may still turn out to be broken


class Server:
    """A socket of this user and a thread that serves it. The thread is stopped during a fork."""

    def __init__(self, find: Find, live_call: LiveCall) -> None:
        self._find = find
        self._live_call = live_call
        self._process = os.getpid()
        self._token = secrets.token_urlsafe(24)
        self._folder: str | None = None
        self._listener, self._address = self._bind()
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._peers: dict[int, Peer] = {}
        self.lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self.resume()

    def membership(self, scope: str, mode: str, *, is_offline: bool) -> Membership:
        """The membership of a process that belongs to a scope."""
        return Membership(scope, self._token, mode, is_offline, self._address)

    def close(self) -> None:
        """Stop, and remove the socket."""
        if self._process != os.getpid():
            return
        self.pause()
        self.forget()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self) -> None:
        """Close what a fork has copied; the socket stays with the parent."""
        self._listener.close()
        for peer in self._peers.values():
            peer.lines.close()
        self._peers.clear()

    def pause(self) -> None:
        """Stop the thread, after the answer that it is giving."""
        if self._thread is not None:
            self._is_stopping = True
            with suppress(OSError):  # it is awake, and its queue is full
                connect(self._address).close()
            self._thread.join(PAUSE_TIMEOUT)
            self._thread = None

    def resume(self) -> None:
        """Start the thread."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._serve, name="pytest-lmcache children", daemon=True)
        self._thread.start()

    def _bind(self) -> tuple[Socket, str]:
        if hasattr(socket, "AF_UNIX"):
            self._folder = tempfile.mkdtemp(prefix="lmcache-")  # that only this user can open
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
                    elif not self._peers[key.fd].serve(self.lock):
                        selector.unregister(key.fd)
                        self._peers.pop(key.fd).close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # as socket.accept does
        except OSError:
            return  # it has gone already
        os.set_inheritable(descriptor, False)
        connection = Socket(fileno=descriptor)
        connection.settimeout(SEND_TIMEOUT)
        self._peers[descriptor] = Peer(Lines(connection), self._token, self._find, self._live_call)
        selector.register(descriptor, selectors.EVENT_READ)


class Peer:
    """One child process: each message of the table in `wire` has a method here."""

    def __init__(self, lines: Lines, token: str, find: Find, live_call: LiveCall) -> None:
        self.lines = lines
        self._token = token
        self._find = find
        self._live_call = live_call
        self._scope = ""
        self._process = ""
        self._secrets: list[list[tuple[str, str]]] = [[], []]
        self._count = count(1)
        self._calls: dict[int, tuple[Recorder, CallRecord, Call]] = {}
        self._replayed: deque[int] = deque()
        self._for_recorder: dict[str, Callable[..., dict[str, Any] | None]] = {
            "settings": self._settings,
            "begin": self._begin,
            "refuse": self._refuse,
            "fault": self._fault,
        }
        self._for_call: dict[str, Callable[..., dict[str, Any] | None]] = {
            "claim": self._claim,
            "finish": self._finish,
            "discard": self._discard,
            "cut_off": self._cut_off,
            "broken": self._broken,
            "asked_again": self._asked_again,
        }

    def serve(self, lock: AbstractContextManager[Any]) -> bool:
        """Reply to the messages that have come; False if the process has ended or is none of ours."""
        try:
            messages = self.lines.receive()
            for message in messages or ():
                with lock:
                    reply = self._reply(message)
                self.lines.send(reply)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        return messages is not None

    def close(self) -> None:
        """Release what the process has claimed."""
        for _, record, _ in self._calls.values():
            record.lock.release()
        self.lines.close()

    def _reply(self, message: dict[str, Any]) -> dict[str, Any]:
        do = message.pop("do")
        if do == "hello":
            return self._hello(**message)
        if not self._scope:
            raise PermissionError
        number, self._secrets = message.pop("number"), message.pop("secrets", self._secrets)
        recorder: Recorder | None = None
        try:
            # A call that has begun belongs to its recorder, also if the test has ended since.
            if number is not None:
                return self._for_call[do](number, **message) or {}
            recorder = self._find(self._scope, self._process)
            if recorder is not None:
                recorder.redact.learn_secrets(*self._secrets)
            return self._for_recorder[do](recorder, **message) or {}
        except BaseException as fault:  # noqa: BLE001 - it is raised in the child
            if isinstance(fault, CassetteMiss):
                fault.add_line(f"Asked by   {self._process}")
            # Who raises a miss has noted it.
            is_known = isinstance(fault, CassetteMiss) or (recorder is not None and fault in recorder.faults)
            return {"raised": [type(fault).__name__, str(fault)], "is_known": is_known}

    def _hello(self, scope: str, token: str, pid: int, name: str) -> dict[str, Any]:
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            raise PermissionError
        self._scope, self._process = scope, f"process {pid}, {name}"
        return {}

    def _settings(self, recorder: Recorder | None) -> dict[str, Any]:
        if recorder is None:
            return {"mode": Mode.LIVE, "may_ask": False, "is_offline": False}
        return {
            "mode": recorder.mode,
            "may_ask": recorder.may_ask,
            "is_offline": recorder.is_offline,
            **{name: getattr(recorder.settings, name) for name, row in SETTINGS.items() if row.in_children},
        }

    def _begin(
        self, recorder: Recorder | None, *, name: str, request: Any, fast_path: bool, address: str
    ) -> dict[str, Any]:
        if recorder is None:
            self._live_call(self._scope, self._process, name)
            return {"number": None, "key": "", "nth": 0, "streamed": False, "ask_again": False}
        call = Call(name, recorder.redact.request(from_json(request).data))
        begin = recorder.begin
        if recorder.staged is not None:
            from pytest_lmcache.libraries.staged import builder

            begin = partial(recorder.staged.begin, builder=builder(call))
        record, answer = begin(recorder.number(), call, fast_path=fast_path, address=address)
        record.model = str(call.request.get("model", ""))
        number = None
        if answer is not None or not fast_path:
            number = next(self._count)
            self._calls[number] = recorder, record, call
        if number is not None and answer is not None:
            self._replayed.append(number)
            if len(self._replayed) > KEPT_REPLAYS:
                self._calls.pop(self._replayed.popleft(), None)
        begun = {"number": number, "key": record.key, "nth": record.nth, "streamed": record.streamed}
        begun["ask_again"] = record.is_asked_again
        return begun | _answer(record, answer)

    def _refuse(self, recorder: Recorder | None, *, name: str, reason: str = "") -> None:
        if recorder is None:
            self._live_call(self._scope, self._process, name)
        else:
            recorder.refuse(name, reason)

    def _fault(self, recorder: Recorder | None, *, kind: str, text: str) -> None:
        if recorder is not None:
            recorder.faults.append(error_named(kind, text))

    def _claim(self, number: int, *, waited: bool, can_wait: bool) -> dict[str, Any]:
        recorder, record, call = self._calls[number]
        is_claimed, answer = recorder.claim(record, call, waited=waited, can_wait=can_wait)
        return {"is_claimed": is_claimed} | _answer(record, answer)

    def _finish(self, number: int, *, answer: Any) -> None:
        recorder, record, call = self._calls.pop(number)
        recorder.finish(record, call, from_json(answer))

    def _discard(self, number: int, *, answer: Any, reason: str, text: str) -> None:
        recorder, record, call = self._calls.pop(number)
        recorder.discard(record, call, from_json(answer), NotRecorded(Reason(reason), text))

    def _cut_off(self, number: int, *, answer: Any, waited: float) -> NoReturn:
        recorder, record, _ = self._calls[number]
        recorder.cut_off(record, from_json(answer), waited=waited)

    def _broken(self, number: int, *, problem: str) -> dict[str, Any]:
        entry = self._calls[number][1].entry
        return {"text": problem if entry is None else str(entry.broken(problem))}

    def _asked_again(self, number: int, *, model: str, answer: Any, why: str) -> None:
        recorder, record, _ = self._calls[number]
        if recorder.verification is not None:
            recorder.verification.answered(record, model, from_json(answer), why)


def _answer(record: CallRecord, answer: Answer | None) -> dict[str, Any]:
    return {} if answer is None else {"answer": to_json(answer), "source": record.source}
