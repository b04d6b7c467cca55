"""Which connections the open tests and blocks may make, and what a refused one says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_lmcache import origins
from pytest_lmcache.errors import BlockedConnection, CassetteMiss, UnsupportedInChild
from pytest_lmcache.hosts import Host
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.scopes import Scopes, late_origin

if TYPE_CHECKING:
    from pytest_lmcache.network import Guard


class BlockedConnections:
    """Refuses connections of the tests and blocks whose settings say so, while they replay.

    ``on_miss`` is called with each refusal before it is raised, ``cache_url`` gives the URL of the cache's server.
    """

    def __init__(
        self, scopes: Scopes, on_miss: Callable[[CassetteMiss], None], cache_url: Callable[[], str | None]
    ) -> None:
        self._scopes = scopes
        self._on_miss = on_miss
        self._cache_url = cache_url
        self._guard: Guard | None = None

    def scopes_changed(self) -> None:
        """Begin or end, since a test or block has been opened or closed."""
        if any(scope.recorder.settings.block_network for scope in self._scopes):
            if self._guard is None:
                from pytest_lmcache.network import Guard

                self._guard = Guard(self._check)
            self._guard.open()
        elif self._guard is not None:
            self._guard.close()

    def _check(self, host: Host) -> None:
        """Raise BlockedConnection if what runs here and now may not connect to a host."""
        scope = self._scopes.current() or self._scopes.innermost()
        if scope is None or not scope.target.is_offline:
            return
        # A block in a test may do no more than the test. Not the targets: in a fork they know no settings.
        recorders = [scope.recorder, *self._scopes.tests()[-1:]]
        if not any(recorder.settings.block_network for recorder in recorders):
            return
        allowed = [each for recorder in recorders for each in recorder.settings.allow_hosts]
        urls = (self._cache_url(), *(dict(recorder.settings.layers).get("url") for recorder in recorders))
        allowed += [server for url in urls if url and (server := urlsplit(url).hostname)]
        if host.is_allowed(allowed) or self._is_address_of(allowed, host):
            return
        late = late_origin(is_inside=True)
        text = _text(host, scope.target, late.name if late is not None else None)
        # In a child process it is an ordinary exception, so that a pool returns it to its caller.
        refusal = BlockedConnection(text) if scope.remote is None else UnsupportedInChild(text)
        if late is None:  # else another test has left it running
            scope.target.faults.append(refusal)
            self._on_miss(refusal)
        raise refusal

    def _is_address_of(self, allowed: list[str], host: Host) -> bool:
        names = [entry for entry in allowed if not entry.startswith("*.")]
        return not host.names and self._guard is not None and self._guard.is_address_of(names, host)


def _text(host: Host, recorder: Recorder, late: str | None) -> str:
    origin = origins.current()
    test = late or (recorder.label if origin is None else origin.name) or "A use_cassette block"
    thread = threading.current_thread()
    where = "" if thread is threading.main_thread() else f", in the thread {thread.name}"
    what = (
        f"connects to {host}{where}"
        if late is None
        else f"has ended, and {origins.runner()} connects to {host}"
    )
    name = next(iter(host.names), host.address)
    return (
        f"{test} {what}, and lm_block_network refuses connections in mode {recorder.mode}.\n"
        "Nothing records it, since it is no call of LiteLLM or DSPy. Replace it in the test or, if the test needs "
        f'this host, allow it: lm_allow_hosts = ["{name}"].'
    )
