"""What a run has spent on calls, over all its processes, and whether another call may be sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_lmcache.call_record import CallRecord, described
from pytest_lmcache.errors import BudgetExceeded
from pytest_lmcache.interaction import Answer, Call
from pytest_lmcache.wording import counted, dollars

LOCK_POLL = 0.002  # seconds between two attempts to lock the file
ALONE = ""  # the name of a process that shares with no other


@dataclass(slots=True)
class Ledger:
    """What calls have cost, and what those in flight are expected to cost; plain data.

    ``usd`` was spent. ``models`` has the USD and the number of priced calls by model. ``unpriced`` has the number of
    calls whose price is not known and that count as nothing, by model. ``in_flight`` has the number of calls in
    flight and their expected USD by process.
    """

    usd: float = 0.0
    models: dict[str, tuple[float, int]] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    in_flight: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def calls_in_flight(self) -> int:
        """How many calls are in flight, in all processes."""
        return sum(number for number, _ in self.in_flight.values())

    @property
    def expected(self) -> float:
        """What the calls in flight are expected to cost, in USD."""
        return sum(usd for _, usd in self.in_flight.values())

    def average(self, model: str) -> float:
        """What a call of a model has cost on average, in USD; 0 before the first one."""
        usd, calls = self.models.get(model, (0.0, 0))
        return usd / calls if calls else 0.0


class Spending:
    """Counts what calls cost, and refuses calls once the budget is spent; any thread may use it.

    ``budget`` and ``unknown_price`` are in USD. A call without a known price counts as ``unknown_price``; if that is
    None, as nothing. ``go_on`` gives the command that a refused call ends with.
    """

    def __init__(
        self,
        budget: float | None = None,
        unknown_price: float | None = None,
        go_on: Callable[[], str] = str,
    ) -> None:
        self.budget = budget
        self._unknown_price = unknown_price
        self._go_on = go_on
        self._ledger = Ledger()
        self._expected: dict[CallRecord, float] = {}  # of the calls of this process that are in flight
        self._file: Path | None = None
        self._process = ALONE
        self._lock = threading.Lock()

    def share(self, file: Path, process: str) -> None:
        """Count in a file from here on, together with the other processes that share it, each under a name."""
        with self._lock:
            self._file, self._process = file, process

    def start(self, record: CallRecord, call: Call) -> None:
        """Count a call that is about to be sent. Raises BudgetExceeded if the budget is spent.

        The calls in flight count as what calls of their models have cost on average. Values cost nothing.
        """
        if record.is_value:
            return
        with self._changing() as ledger:
            self._check(ledger, f"{call.name}()", described(call.request))
            self._expected[record] = ledger.average(record.model)
            self._count_in_flight(ledger)

    def end(self, record: CallRecord, answer: Answer) -> None:
        """Count what a call has cost. One that failed costs nothing, one that was cut off as much as expected.

        An answer that nobody was asked for is not counted, such as one that was kept from a call before.
        """
        if record not in self._expected:
            return
        with self._changing() as ledger:
            expected = self._expected.pop(record)
            self._count_in_flight(ledger)
            if answer.usd is not None:
                usd, calls = ledger.models.get(record.model, (0.0, 0))
                ledger.models[record.model] = usd + answer.usd, calls + 1
                ledger.usd += answer.usd
            elif answer.ended is not None or not answer.complete:
                ledger.usd += expected
            elif answer.is_answered:
                self._count_unpriced(ledger, record.model)

    def let_pass(self, name: str) -> None:
        """Count a call that is sent without being observed. Raises BudgetExceeded if the budget is spent."""
        with self._changing() as ledger:
            self._check(ledger, f"{name}()")
            self._count_unpriced(ledger, f"{name}(), which was not recorded")

    def ledger(self) -> Ledger:
        """What has been spent so far, by all processes."""
        with self._changing() as ledger:
            return deepcopy(ledger)

    def _count_unpriced(self, ledger: Ledger, what: str) -> None:
        if self._unknown_price is not None:
            ledger.usd += self._unknown_price
        else:
            ledger.unpriced[what] = ledger.unpriced.get(what, 0) + 1

    def _count_in_flight(self, ledger: Ledger) -> None:
        ledger.in_flight[self._process] = len(self._expected), sum(self._expected.values())

    def _check(self, ledger: Ledger, name: str, what: str = "") -> None:
        if self.budget is None or ledger.usd + ledger.expected < self.budget:
            return
        in_flight = ""
        if ledger.expected:
            number = counted(ledger.calls_in_flight, "call")
            in_flight = f", and {dollars(ledger.expected)} expected of {number} in flight"
        raise BudgetExceeded(
            f"The budget of this run is spent, so {name} was not sent{': ' * bool(what)}{what}\n\n"
            f"Budget     {dollars(self.budget)}: spent {dollars(ledger.usd)}{in_flight}.\n"
            f"Go on:  {self._go_on()}"
        )

    @contextmanager
    def _changing(self) -> Iterator[Ledger]:
        """Give the ledger to be changed; no other thread or process changes it meanwhile."""
        with self._lock:
            if self._file is None:
                yield self._ledger
                return
            from filelock import FileLock

            with FileLock(f"{self._file}.lock", poll_interval=LOCK_POLL):
                text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
                ledger = Ledger(**json.loads(text)) if text else Ledger()
                before = asdict(ledger)
                yield ledger
                if (after := asdict(ledger)) != before:
                    self._file.write_text(json.dumps(after), encoding="utf-8")
