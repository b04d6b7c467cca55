"""What the run says at its end: a tally of facts, merged over worker processes, and its lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_lmcache.answer_sources import from_layers
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.not_recorded import HEADINGS, NotRecorded, Reason
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.call_record import CallRecord
    from pytest_lmcache.layers.stack import Stats
    from pytest_lmcache.recorder import Recorder

SHOWN = 10
TEN_CENTS = 0.1


SEVERAL = ""  # in the place of a test's name


@dataclass(slots=True)
class Sum:
    """Calls with their tokens and USD; ``unpriced`` are calls of models for which LiteLLM knows no price."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0

    def add(self, tokens: int, usd: float | None) -> None:
        """Count one call."""
        self.calls += 1
        self.tokens += tokens
        self.usd += usd or 0.0
        self.unpriced += usd is None and tokens > 0

    def merge(self, other: Sum) -> None:
        """Add another sum."""
        self.calls += other.calls
        self.tokens += other.tokens
        self.usd += other.usd
        self.unpriced += other.unpriced


@dataclass(slots=True)
class PromptCache:
    """Input tokens that the provider read from its own prompt cache and wrote there, and the USD that it saved."""

    read: int = 0
    written: int = 0
    usd: float = 0.0

    def add(self, read: int, written: int, usd: float) -> None:
        """Count one call, or another process."""
        self.read += read
        self.written += written
        self.usd += usd


@dataclass(slots=True)
class Cost:
    """What recording one test takes from the provider: seconds, tokens and USD."""

    seconds: float = 0.0
    tokens: int = 0
    usd: float = 0.0

    def add(self, seconds: float, tokens: int, usd: float) -> None:
        """Count what one more call, or another process, took."""
        self.seconds += seconds
        self.tokens += tokens
        self.usd += usd


@dataclass(slots=True)
class Tally:
    """The facts of a run; plain data goes between processes."""

    replayed: Sum = field(default_factory=Sum)
    recorded: Sum = field(default_factory=Sum)
    cached: Sum = field(default_factory=Sum)
    live: Sum = field(default_factory=Sum)
    hits: dict[str, Sum] = field(default_factory=dict)
    saved_by: dict[str, Sum] = field(default_factory=dict)
    spent_by: dict[str, Sum] = field(default_factory=dict)
    prompt_cache: PromptCache = field(default_factory=PromptCache)
    asked_twice: int = 0
    layers: dict[str, list[int]] = field(default_factory=dict)
    old: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    in_tests: bool = False  # a miss that pytest's command records
    in_blocks: bool = False  # one of a `use_cassette`, whose mode is in the code
    normalizers: dict[str, list[str]] = field(default_factory=dict)  # that mend a test's misses
    refused: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)  # by file
    users: dict[str, str] = field(
        default_factory=dict
    )  # of each file its test; empty where there are several
    unmarked: dict[str, int] = field(default_factory=dict)
    unstored: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by reason, by test
    left_early: dict[str, int] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)  # by test, those that were recorded with it
    caches_in_the_way: dict[str, list[str]] = field(default_factory=dict)
    from_layers: dict[str, list[str]] = field(default_factory=dict)  # by test, where layers' answers are from
    costs: dict[str, Cost] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unseen: str = ""
    late: dict[str, int] = field(default_factory=dict)  # refused calls, by the test that left them running
    outside: dict[str, int] = field(default_factory=dict)  # refused calls of no test, by file

    def add(
        self, test: str, recorder: Recorder, *, passed: bool, written: bool, is_told: bool = False
    ) -> None:
        """Count what one test, or one block of it, did; ``is_told``: the test counts the block's misses."""
        calls = recorder.calls
        cost = self.costs.setdefault(test, Cost()) if calls else Cost()
        for call in calls:
            tokens = sum(call.tokens)
            self.asked_twice += call.asked_twice
            if call.is_new and passed:
                self.left_early[test] = self.left_early.get(test, 0) + call.left_early
            if call.source:
                by = self.spent_by if call.source == "provider" else self.saved_by
                by.setdefault(call.model, Sum()).add(tokens, call.usd)
                self._of(call, passed=passed).add(tokens, call.usd)
            self.prompt_cache.add(*call.cached, call.cached_usd)
            cost.add(call.seconds, tokens, call.usd or 0.0)
        self._add_normalizers(test, [] if is_told else recorder.faults)
        for fault in recorder.faults:
            # No miss is an ordinary exception; a call without a key, or a broken file, is recorded by nothing.
            is_miss = not isinstance(fault, Exception | UnsupportedCall)
            is_of_test = not recorder.commands.block
            self.in_tests |= is_miss and is_of_test
            self.in_blocks |= is_miss and not is_of_test
            if not is_told:
                counts = self.missed if is_miss else self.refused
                counts[test] = counts.get(test, 0) + 1
        self._add_errors(test, calls if passed else [])
        self._add_unstored(test, [] if recorder.mode is Mode.LIVE else recorder.not_recorded)
        for name, found in {
            "caches_in_the_way": recorder.caches_in_the_way,
            "from_layers": from_layers(calls),
        }.items():
            if found:
                getattr(self, name).setdefault(test, []).extend(found)
        file = recorder.shown_path
        self._used(file, SEVERAL if recorder.is_shared else test)
        self.unused[file] = recorder.unused() if passed else 0
        if old := recorder.old:
            self.old[test] = self.old.get(test, 0) + old
        if written:
            is_there = recorder.path is not None and recorder.path.exists()
            (self.written if is_there else self.removed).append(file)

    def _add_normalizers(self, test: str, faults: Sequence[BaseException]) -> None:
        """Note what lets the recordings answer, if that helps with all that missed."""
        found = [getattr(fault, "normalizers", ()) for fault in faults]
        if found and all(found):
            self.normalizers[test] = [*dict.fromkeys(name for names in found for name in names)]

    def _add_errors(self, test: str, calls: Iterable[CallRecord]) -> None:
        for call in calls:
            if call.failure is not None and call.failure.replays and call.is_new:
                self.errors.setdefault(test, []).append(call.failure.why.what)

    def _add_unstored(self, test: str, calls: Iterable[NotRecorded]) -> None:
        for reason, what in calls:
            self.unstored.setdefault(reason.value, {}).setdefault(test, []).append(what)

    def _used(self, file: str, test: str) -> None:
        if self.users.setdefault(file, test) != test:
            self.users[file] = SEVERAL

    @property
    def _unused(self) -> dict[str, int]:
        """By test, the recordings that nobody asked for; what others than their test may ask for is not known."""
        total: Counter[str] = Counter()
        for file, number in self.unused.items():
            if number and self.users[file] != SEVERAL:
                total[self.users[file]] += number
        return total

    def _of(self, call: CallRecord, *, passed: bool) -> Sum:
        if call.source == "cassette":
            return self.replayed
        if call.source != "provider":
            return self.hits.setdefault(call.source, Sum())
        if call.is_new and passed:
            return self.recorded
        return self.cached if call.is_cached else self.live

    def count_layers(self, stats: Mapping[str, Stats]) -> None:
        """Take over what the layers of this process were asked."""
        for name, layer in stats.items():
            counts = [layer.hits, layer.misses, layer.puts]
            if any(counts):
                self._add_layer(name, counts)

    def _add_layer(self, name: str, counts: list[int]) -> None:
        known = self.layers.get(name, [0, 0, 0])
        self.layers[name] = [sum(pair) for pair in zip(known, counts, strict=True)]

    def refuse_outside(self, file: str) -> None:
        """Count a call that was refused since it belongs to no test."""
        self.outside[file] = self.outside.get(file, 0) + 1

    def count_late(self, refused: Mapping[str, int], passed: Iterable[tuple[str, list[NotRecorded]]]) -> None:
        """Take over the calls that came after their tests had ended."""
        for test, number in refused.items():
            self.late[test] = self.late.get(test, 0) + number
        for test, calls in passed:
            self._add_unstored(test, calls)

    def watched(self, where: str, calls: int) -> None:
        """Count live calls that no test recorded."""
        self.unmarked[where] = self.unmarked.get(where, 0) + calls

    def plain(self) -> dict[str, Any]:
        """The tally as data that any process can be sent."""
        return asdict(self)

    def _merge_names(self, data: dict[str, Any]) -> None:
        for file, test in data["users"].items():
            self._used(file, test)
            self.unused[file] = min(self.unused.get(file, data["unused"][file]), data["unused"][file])
        self.normalizers.update(data["normalizers"])
        for name in ("caches_in_the_way", "from_layers", "errors"):
            for test, what in data[name].items():
                getattr(self, name).setdefault(test, []).extend(what)
        for reason, by_test in data["unstored"].items():
            for test, what in by_test.items():
                self._add_unstored(test, [NotRecorded(Reason(reason), each) for each in what])

    def merge(self, data: dict[str, Any]) -> None:
        """Add another process's tally."""
        for name in ("replayed", "recorded", "cached", "live"):
            getattr(self, name).merge(Sum(**data[name]))
        for name in ("hits", "saved_by", "spent_by"):
            for key, part in data[name].items():
                getattr(self, name).setdefault(key, Sum()).merge(Sum(**part))
        for name, counts in data["layers"].items():
            self._add_layer(name, counts)
        self.prompt_cache.add(**data["prompt_cache"])
        self.asked_twice += data["asked_twice"]
        for name in ("missed", "refused", "unmarked", "left_early", "old", "late", "outside"):
            for test, number in data[name].items():
                counts = getattr(self, name)
                counts[test] = counts.get(test, 0) + number
        self._merge_names(data)
        for test, cost in data["costs"].items():
            self.costs.setdefault(test, Cost()).add(**cost)
        self.written.extend(data["written"])
        self.removed.extend(data["removed"])
        self.unseen = self.unseen or data["unseen"]
        self.in_tests |= data["in_tests"]
        self.in_blocks |= data["in_blocks"]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        sums = (self.replayed, self.recorded, self.cached, self.live, *self.hits.values())
        told = (
            self.missed,
            self.refused,
            self._unused,
            self.unmarked,
            self.unseen,
            self.caches_in_the_way,
            self.removed,
            self.unstored,
            self.late,
            self.outside,
        )
        return not any(each.calls for each in sums) and not any(told)

    def lines(self, *, durations: int | None = None, verbose: bool = False) -> Iterator[str]:
        """The summary; ``durations``: how many of the tests that cost most to record, 0 for all.

        ``verbose`` adds what each layer was asked.
        """
        yield ", ".join(self._counts())
        for word, by in (("saved", self.saved_by), ("spent", self.spent_by)):
            total = _total(by)
            if total.tokens or total.usd:
                yield f"{word} {_money(total)}"
                if sum(part.tokens > 0 for part in by.values()) > 1 or verbose:
                    told = sorted((model, part) for model, part in by.items() if part.tokens or part.usd)
                    yield from (f"  {model}: {_money(part)}" for model, part in told)
        if self.prompt_cache.read or self.prompt_cache.written:
            read, written, usd = self.prompt_cache.read, self.prompt_cache.written, self.prompt_cache.usd
            price = f", {'saved' if usd > 0 else 'cost'} {_dollars(abs(usd))}" if usd else ""
            yield f"the providers' prompt caches: {read:,} tokens read, {written:,} written{price}"
        if self.asked_twice:
            yield (
                f"{_number(self.asked_twice, 'call')} {'was' if self.asked_twice == 1 else 'were'} sent by more than one process: "
                "none waits for another's stream, or longer than a minute"
            )
        if verbose:
            for name, (hits, misses, puts) in self.layers.items():
                yield f"layer {name}: {hits:,} hits, {misses:,} misses, {puts:,} kept"
        yield from self._files()
        yield from self._listed()
        if durations is not None and self.costs:
            yield from self._most_expensive(durations)

    def _files(self) -> Iterator[str]:
        if self.from_layers:
            title = "answers that the cache kept, with the test that asked first"
            yield from _list(title, {test: "; ".join(each) for test, each in self.from_layers.items()})
        if self.written:
            files = len(set(self.written))
            yield f"{_number(files, 'cassette')} written: review and commit {'them' if files > 1 else 'it'}"
        if self.removed:
            yield f"{_number(len(self.removed), 'cassette')} removed, for its test made no call:"
            yield from (f"  {file}" for file in sorted(self.removed)[:SHOWN])
            if len(self.removed) > SHOWN:
                yield f"  … and {len(self.removed) - SHOWN} more"

    def _counts(self) -> Iterator[str]:
        yield f"{self.replayed.calls} replayed"
        for layer, part in self.hits.items():
            yield f"{part.calls} from {layer}"
        if self.recorded.calls:
            yield f"{self.recorded.calls} recorded"
        if self.cached.calls:
            yield f"{self.cached.calls} asked and kept in the cache only"
        if self.live.calls:
            yield f"{self.live.calls} live and not recorded"
        if self.missed:
            yield f"{sum(self.missed.values())} missed"
        if self.refused:
            yield f"{sum(self.refused.values())} refused"

    def _of_no_test(self) -> Iterator[str]:
        if self.late:
            yield from _list(
                f"{_number(sum(self.late.values()), 'call')} refused, made after the test had ended; "
                "join its threads and await its tasks, or start them in a fixture of scope module or session",
                self.late,
            )
        if self.outside:
            yield from _list(
                f"{_number(sum(self.outside.values()), 'call')} refused outside of the tests (lm_auto); "
                "make them in a test or a fixture, or in use_cassette",
                self.outside,
            )

    def _listed(self) -> Iterator[str]:
        yield from self._misses()
        if self.refused:
            yield from _list(
                f"refused in {_number(len(self.refused), 'test')}, for reasons that recording cannot mend; "
                "see their messages",
                self.refused,
            )
        yield from self._of_no_test()
        if unused := self._unused:
            yield from _list(
                f"{_number(sum(unused.values()), 'unused recording')} (pytest --lm-rewrite drops what no call asks for)",
                unused,
            )
        if self.old:
            yield from _list(
                f"{_number(sum(self.old.values()), 'recording')} older than lm_max_age (pytest --lm-record asks again)",
                self.old,
            )
        early = {test: number for test, number in self.left_early.items() if number}
        if early:
            yield from _list("streams recorded only as far as the test read them", early)
        if self.errors:
            title = "errors recorded because the test passed with them (pytest --lm-rewrite asks again)"
            yield from _list(title, {test: _each(what) for test, what in self.errors.items()})
        if self.caches_in_the_way:
            title = "caches that answer before a call can be recorded; switch them off in tests"
            yield from _list(title, {test: _each(what) for test, what in self.caches_in_the_way.items()})
        if self.unmarked:
            yield from _list(
                f"{_number(sum(self.unmarked.values()), 'live call')} in tests without a mark "
                "(add @pytest.mark.lm_cache, or set lm_auto = true)",
                self.unmarked,
            )

        if self.unseen:
            yield f"live calls in tests without a mark were not counted: {self.unseen}"
        yield from self._not_recorded()

    def _misses(self) -> Iterator[str]:
        missed = {test: number for test, number in self.missed.items() if test not in self.normalizers}
        if missed:
            block = 'use_cassette(…, mode="record")'
            record = block if self.in_blocks and not self.in_tests else "pytest --lm-record"
            record += f", or {block}," * (self.in_blocks and self.in_tests)
            title = f"missed in {_number(len(missed), 'test')} ({record} records what is missing)"
            yield from _list(title, missed)
        if self.normalizers:
            names = json.dumps(sorted(set().union(*self.normalizers.values())))
            title = f"missed in {_number(len(self.normalizers), 'test')} ({'' if self.in_blocks else 'lm_'}normalize = {names} lets them replay)"
            yield from _list(title, {test: ", ".join(names) for test, names in self.normalizers.items()})

    def _not_recorded(self) -> Iterator[str]:
        for reason, heading in HEADINGS.items():
            if by_test := self.unstored.get(reason):
                yield from _list(heading, {test: _each(what) for test, what in by_test.items()})

    def _most_expensive(self, most: int) -> Iterator[str]:
        ranked = sorted(self.costs.items(), key=lambda item: (item[1].seconds, item[1].usd), reverse=True)
        yield "slowest to record:"
        for test, cost in ranked[: most or None]:
            price = _dollars(cost.usd) if cost.usd else ""
            yield f"  {cost.seconds:8.2f} s  {cost.tokens:8,} tokens  {price:>10}  {test}"


def _each(what: Iterable[str]) -> str:
    return ", ".join(sorted(set(what)))


def _list(title: str, tests: dict[str, Any]) -> Iterator[str]:
    yield f"{title}:"
    for test, what in sorted(tests.items())[:SHOWN]:
        yield f"  {test} ({what})"
    if len(tests) > SHOWN:
        yield f"  … and {len(tests) - SHOWN} more tests"


def _total(by: Mapping[str, Sum]) -> Sum:
    total = Sum()
    for part in by.values():
        total.merge(part)
    return total


def _money(total: Sum) -> str:
    text = f"{total.tokens:,} tokens"
    if total.usd:
        text += f", {_dollars(total.usd)}"
        if total.unpriced:
            text += f" (the price of {_number(total.unpriced, 'call')} is not known)"
    return text


def _dollars(amount: float) -> str:
    """An amount in cents, or its first two digits if it is less than ten cents."""
    return f"${amount:,.2f}" if amount >= TEN_CENTS else f"${Decimal(f'{amount:.2g}'):f}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
