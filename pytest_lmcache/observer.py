"""What a session reports to its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_lmcache.errors import CassetteMiss
    from pytest_lmcache.recorder import Recorder


class Observer:
    """Ignores every report; override what matters. Any thread may call these methods.

    ``has_summary`` says whether the run lists its misses at its end; if not, each block says what missed in it.
    """

    has_summary = False

    def block_ended(self, recorder: Recorder, *, passed: bool, written: bool, in_test: bool) -> None:
        """A ``use_cassette`` block has ended; ``written``: its file changed.

        ``in_test``: a recorded test is open, which fails with the block's misses and counts them.
        """

    def call_missed(self, miss: CassetteMiss) -> None:
        """A call has missed; the miss is about to be raised."""

    def live_call(self, name: str) -> None:
        """A call that no recorder has is about to reach its provider; an error raised here refuses it."""

    def late_call(self, test: str, name: str = "", *, refused: bool) -> None:
        """A call was made after the test or block that started it had ended; ``name`` is empty if it was refused."""
