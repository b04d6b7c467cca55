"""What a run did: facts per test that add up over processes, and the summary rendered from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from pytest_lmcache.answer_sources import from_layers
from pytest_lmcache.errors import BudgetExceeded, UnsupportedCall
from pytest_lmcache.not_recorded import HEADINGS, past_calls
from pytest_lmcache.settings import Mode
from pytest_lmcache.wording import counted, dollars

if TYPE_CHECKING:
    from pytest_lmcache.call_record import CallRecord
    from pytest_lmcache.layers.stack import Stats
    from pytest_lmcache.miss_causes import Miss
    from pytest_lmcache.recorder import Recorder

SHOWN = 10  # tests of a list
SHARED = ""  # in place of a test's name: the file is used by several tests
REPLAYED, RECORDED, CACHED, LIVE = "replayed", "recorded", "cached", "live"
BY_TEST = {"fault": "given a fault by the test", "reply": "given a reply by the test"}
ASKED_AGAIN = "asked again"
SPENT = (RECORDED, CACHED, LIVE, ASKED_AGAIN)


# ---------------------------------------------------------------- facts


@dataclass(slots=True)
class Additive:
    """Facts that add field by field: numbers are added, lists joined, mappings added key by key."""

    def __add__(self, other: Self) -> Self:
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return type(self)(*(_add(*pair) for pair in pairs))


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        both = one.keys() & other.keys()
        return {**one, **other, **{key: _add(one[key], other[key]) for key in both}}
    return one + other


@dataclass(slots=True)
class Usage(Additive):
    """Calls with what they took: tokens, USD, and the provider's seconds.

    ``unpriced`` counts calls of models without a known price. ``cache_read_tokens`` and ``cache_written_tokens``
    are the input tokens that the provider read from its own prompt cache and wrote to it, ``cache_saved_usd`` what
    that saved.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0
    cache_read_tokens: int = 0
    cache_written_tokens: int = 0
    cache_saved_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(slots=True)
class Facts(Additive):
    """What one test, or one shared fixture, did.

    ``usage`` is by outcome and model; an outcome is ``replayed``, ``recorded``, ``cached`` (answered by the provider
    and only cached), ``live`` (not stored at all), ``fault`` and ``reply`` (of the test), or the name of the cache
    layer that answered. ``misses`` has the misses as data, see `pytest_lmcache.miss_causes.Miss`. ``not_recorded`` is
    by reason.
    """

    usage: dict[str, dict[str, Usage]] = field(default_factory=dict)
    missed: int = 0
    misses: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0  # calls that no recording can answer
    refused_late: int = 0  # calls made after the test had ended
    over_budget: int = 0  # calls that were not sent because the budget was spent
    unmarked: int = 0  # live calls of a test that is not marked
    refused_unmarked: int = 0  # calls of a test that is not marked, under lm_unmarked = error
    past_calls: dict[str, int] = field(default_factory=dict)  # that went past LiteLLM, by package
    sent_twice: int = 0  # calls that another process sent too
    left_early: int = 0  # recorded streams that were not read to their end
    old: int = 0  # replayed recordings older than lm_max_age
    errors: list[str] = field(default_factory=list)  # recorded because the test passed with them
    not_recorded: dict[str, list[str]] = field(default_factory=dict)
    caches_in_the_way: list[str] = field(default_factory=list)
    moved_models: list[str] = field(default_factory=list)  # that answered under other names than recorded
    changes: dict[str, int] = field(default_factory=dict)  # recordings of its file, by what happened to them
    from_layers: list[str] = field(default_factory=list)  # where the layers' answers are from
    values: dict[str, int] = field(default_factory=dict)  # remembered, and of recorded functions, by outcome

    @property
    def total(self) -> Usage:
        """The usage of all outcomes and models."""
        return _sum(part for by_model in self.usage.values() for part in by_model.values())

    def add_call(self, call: CallRecord, *, passed: bool) -> None:
        """Count a call."""
        if call.source:
            usage = Usage(1, *call.tokens, call.usd or 0.0, 0, call.seconds, *call.cached, call.cached_usd)
            usage.unpriced = int(call.usd is None and usage.tokens > 0)
            by_model = self.usage.setdefault(outcome_of(call, passed=passed), {})
            by_model[call.model] = by_model.get(call.model, Usage()) + usage
        self.sent_twice += call.asked_twice
        if call.is_new and passed:
            self.left_early += call.left_early
            if call.failure is not None and call.failure.replays:
                self.errors.append(call.failure.why.what)

    def add_fault(self, fault: BaseException) -> None:
        """Count a miss, a refused call, or one that the budget did not allow."""
        if isinstance(fault, BudgetExceeded):
            self.over_budget += 1
            return
        # No miss is an Exception; no recording answers an unsupported call.
        is_miss = not isinstance(fault, Exception | UnsupportedCall)
        self.missed += is_miss
        self.refused += not is_miss


def outcome_of(call: CallRecord, *, passed: bool) -> str:
    """The outcome of an answered call, as in `Facts.usage`; ``passed``: its test passed."""
    if call.source == "cassette":
        return REPLAYED
    if call.source != "provider":
        return call.source
    if call.is_new and passed:
        return RECORDED
    return CACHED if call.is_cached else LIVE


@dataclass(slots=True)
class Summary(Additive):
    """The facts of a run, or of one of its processes.

    ``files`` has the number of unused recordings by cassette and test, one for each use. ``layers`` has the requests
    to each layer. ``outside`` has the refused calls of no test, by file. ``unseen`` says why calls of unmarked tests
    could not be counted. ``comparisons`` has the answers that modes verify and live have compared, see
    `verify.Verification.rows`; each with its test, the test's cassette, and whether the test passed.
    """

    tests: dict[str, Facts] = field(default_factory=dict)
    files: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    def add_recorder(
        self, test: str, recorder: Recorder, *, passed: bool, written: bool, counted_by_test: bool = False
    ) -> None:
        """Count what a test, or a block of it, did; ``counted_by_test``: the test counts the block's misses."""
        facts = Facts(old=recorder.old, caches_in_the_way=sorted(recorder.caches_in_the_way))
        compared = recorder.verification
        for call in (*recorder.calls, *(compared.sent if compared else ())):
            facts.add_call(call, passed=passed)
        more = {"test": test, "cassette": recorder.shown_path, "passed": passed}
        self.comparisons += compared.rows(recorder.calls, **more) if compared else ()
        for value in recorder.values:
            if value.source:
                outcome = outcome_of(value, passed=passed)
                facts.values[outcome] = facts.values.get(outcome, 0) + 1
        for fault in () if counted_by_test else recorder.faults:
            facts.add_fault(fault)
        if recorder.faults:
            from pytest_lmcache.miss_causes import misses_of

            found = misses_of(recorder, test, counted_by_test=counted_by_test)
            facts.misses = [miss.to_plain() for miss in found]
        if recorder.mode is not Mode.LIVE:
            for reason, what in recorder.not_recorded:
                facts.not_recorded.setdefault(reason.value, []).append(what)
        facts.from_layers, facts.past_calls = from_layers(recorder.calls), dict(recorder.past_calls)
        facts.moved_models = [*recorder.moved_models]
        if written and recorder.changes is not None:
            facts.changes = recorder.changes._asdict()
        file = recorder.shown_path
        self.add(test, facts)
        # The last run of a test counts; each worker process has its own.
        user = SHARED if recorder.is_shared else test
        self.files.setdefault(file, {})[user] = [recorder.unused() if passed else 0]
        if written:
            is_there = recorder.path is not None and recorder.path.exists()
            (self.written if is_there else self.removed).append(file)

    def add_layers(self, stats: Mapping[str, Stats]) -> None:
        """Count the requests to the layers of this process."""
        for name, layer in stats.items():
            counts = {"hits": layer.hits, "misses": layer.misses, "puts": layer.puts}
            if any(counts.values()):
                self.layers[name] = _add(self.layers.get(name, dict.fromkeys(counts, 0)), counts)

    def add_refused_outside(self, file: str) -> None:
        """Count a call that was refused because it belongs to no test."""
        self.outside[file] = self.outside.get(file, 0) + 1

    def add(self, test: str, facts: Facts) -> None:
        """Add facts of a test, or of a place outside of the tests."""
        if facts != Facts():
            self.tests[test] = self.tests[test] + facts if test in self.tests else facts

    def to_plain(self) -> dict[str, Any]:
        """The facts as dicts, lists, numbers and strings, to send to another process."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """The facts of another process."""
        tests = {}
        for test, facts in data["tests"].items():
            usage = {
                outcome: {model: Usage(**part) for model, part in by_model.items()}
                for outcome, by_model in facts["usage"].items()
            }
            tests[test] = Facts(**{**facts, "usage": usage})
        return cls(**{**data, "tests": tests})

    @property
    def has_refused_outside_tests(self) -> bool:
        """Whether a call was refused that belongs to no running test."""
        return bool(self.outside or self._by_test("refused_late"))

    @property
    def over_budget(self) -> dict[str, int]:
        """The number of calls by test that were not sent because the budget was spent."""
        return self._by_test("over_budget")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.tests or self.outside or self.unseen or self.removed or self.unused)

    @property
    def unused(self) -> dict[str, int]:
        """The number of unused recordings by test; unknown, so 0, for a file that several tests use."""
        unused: Counter[str] = Counter()
        for uses in self.files.values():
            if len(uses) == 1 and SHARED not in uses:
                [(test, numbers)] = uses.items()
                unused[test] += min(numbers)  # each worker process may have asked for others
        return dict(+unused)

    def by_model(self, outcomes: Sequence[str]) -> dict[str, Usage]:
        """The usage of the run by model, for some outcomes."""
        found: dict[str, Usage] = {}
        for facts in self.tests.values():
            for outcome in facts.usage.keys() & {*outcomes}:
                found = _add(found, facts.usage[outcome])
        return dict(sorted(found.items()))

    def _by_test(self, name: str) -> dict[str, Any]:
        """A fact of the tests that have it."""
        return {test: value for test, facts in self.tests.items() if (value := getattr(facts, name))}

    @property
    def misses(self) -> list[Miss]:
        """The misses of all tests."""
        from pytest_lmcache.miss_causes import Miss

        return [Miss.from_plain(miss) for facts in self.tests.values() for miss in facts.misses]

    # ------------------------------------------------------------ text

    def render(
        self, *, misses: Iterable[str] = (), durations: int | None = None, verbose: bool = False
    ) -> Iterator[str]:
        """The lines of the summary, with the lines of the misses among them.

        ``durations`` is how many of the tests are listed that are slowest to record, 0 for all. ``verbose`` adds each
        model, and the requests to each layer.
        """
        yield from self._calls(verbose=verbose)
        yield from self._files()
        yield from misses
        yield from self._tests()
        if durations is not None:
            yield from self._slowest(durations)

    def _calls(self, *, verbose: bool) -> Iterator[str]:
        outcomes = dict.fromkeys(name for facts in self.tests.values() for name in facts.usage)
        layers = [name for name in outcomes if name not in {REPLAYED, *SPENT, *BY_TEST}]
        named = (REPLAYED, *layers, *SPENT, *BY_TEST)
        calls = {name: _sum(self.by_model([name]).values()).calls for name in named}
        counts = [
            f"{calls[REPLAYED]} replayed",
            *(f"{calls[name]} from {name}" for name in layers),
            f"{calls[RECORDED]} recorded",
            f"{calls[CACHED]} asked and only cached",
            f"{calls[LIVE]} live and not recorded",
            f"{calls[ASKED_AGAIN]} asked again",
            *(f"{calls[name]} {words}" for name, words in BY_TEST.items()),
            f"{sum(self._by_test('missed').values())} missed",
            f"{sum(self._by_test('refused').values())} refused",
            f"{sum(self.over_budget.values())} not sent for lack of budget",
        ]
        yield ", ".join(text for number, text in enumerate(counts) if not (number and text.startswith("0 ")))
        values: Counter[str] = Counter()
        for counts_of_test in self._by_test("values").values():
            values.update(counts_of_test)
        if values:
            yield f"values: {', '.join(f'{count:,} {outcome}' for outcome, count in sorted(values.items()))}"
        saved = layers if calls[ASKED_AGAIN] else [REPLAYED, *layers]
        for verb, names in (("saved", saved), ("spent", SPENT)):
            by_model = self.by_model(names)
            total = _sum(by_model.values())
            if total.tokens or total.usd:
                yield f"{verb} {price_of(total)}"
            if sum(part.tokens > 0 for part in by_model.values()) > 1 or verbose:
                priced = {model: part for model, part in by_model.items() if part.tokens or part.usd}
                yield from (f"  {model}: {price_of(part)}" for model, part in priced.items())
        total = _sum(facts.total for facts in self.tests.values())
        if total.cache_read_tokens or total.cache_written_tokens:
            usd = total.cache_saved_usd
            price = f", {'saved' if usd > 0 else 'cost'} {dollars(abs(usd))}" if usd else ""
            yield (
                f"the providers' prompt caches: {total.cache_read_tokens:,} tokens read, "
                f"{total.cache_written_tokens:,} written{price}"
            )
        if twice := sum(self._by_test("sent_twice").values()):
            yield (
                f"{counted(twice, 'call')} {'was' if twice == 1 else 'were'} sent by more than one process "
                "(streams, and calls of more than a minute, are not de-duplicated)"
            )
        if verbose:
            for name, count in self.layers.items():
                yield f"layer {name}: {count['hits']:,} hits, {count['misses']:,} misses, {count['puts']:,} stored"

    def _files(self) -> Iterator[str]:
        from_layers = self._by_test("from_layers")
        title = "answers taken from the cache, with the test that first asked for them"
        yield from _list(title, {test: "; ".join(each) for test, each in from_layers.items()})
        if files := len(set(self.written)):
            yield f"{counted(files, 'cassette')} written: review and commit {'them' if files > 1 else 'it'}"
        changes: dict[str, int] = {}
        for facts in self.tests.values():
            changes = _add(changes, facts.changes)
        if found := [f"{number:,} {what}" for what, number in changes.items() if number]:
            yield f"recordings: {', '.join(found)}"
        if removed := sorted(self.removed):
            whose = "its test" if len(removed) == 1 else "their tests"
            yield f"{counted(len(removed), 'cassette')} removed because {whose} made no calls:"
            yield from _shortened([f"  {file}" for file in removed])

    def _tests(self) -> Iterator[str]:
        refused = self._by_test("refused")
        title = f"{counted(len(refused), 'test')} failed for reasons that recording cannot fix; see their messages"
        yield from _list(title, refused)
        late = self._by_test("refused_late")
        yield from _list(
            f"{counted(sum(late.values()), 'call')} refused because the test had ended; join its threads and await its "
            "tasks, or start them in a fixture of scope module or session",
            late,
        )
        yield from _list(
            f"{counted(sum(self.outside.values()), 'call')} refused outside of tests (lm_auto); "
            "make them in a test or a fixture, or in use_cassette",
            self.outside,
        )
        unused, old = self.unused, self._by_test("old")
        title = counted(sum(unused.values()), "unused recording")
        yield from _list(f"{title} (pytest --lm-rewrite removes recordings that no call asks for)", unused)
        title = counted(sum(old.values()), "recording")
        yield from _list(f"{title} older than lm_max_age (pytest --lm-record asks again)", old)
        yield from _list("streams recorded only as far as the test read them", self._by_test("left_early"))
        title = "errors recorded because the test passed with them (pytest --lm-rewrite asks again)"
        yield from _list(title, _joined(self._by_test("errors")))
        moved = Counter(move for facts in self.tests.values() for move in set(facts.moved_models))
        title = "models that answered under another name than recorded"
        yield from _list(title, {move: counted(count, "test") for move, count in moved.items()})
        title = "caches that answer before a call can be recorded; switch them off in tests"
        yield from _list(title, _joined(self._by_test("caches_in_the_way")))
        unmarked = self._by_test("unmarked")
        yield from _list(
            f"{counted(sum(unmarked.values()), 'live call')} in unmarked tests "
            "(add @pytest.mark.lm_cache, or set lm_auto = true)",
            unmarked,
        )
        for package, tests in past_calls(self._by_test("past_calls")).items():
            number = counted(sum(tests.values()), "call")
            yield from _list(
                f"{number} of the {package} package went past LiteLLM and cannot be recorded", tests
            )
        refused = self._by_test("refused_unmarked")
        yield from _list(
            f"{counted(sum(refused.values()), 'call')} refused in unmarked tests (lm_unmarked = error; "
            "add @pytest.mark.lm_cache)",
            refused,
        )
        if self.unseen:
            yield f"live calls in unmarked tests were not counted: {self.unseen[0]}"
        not_recorded = self._by_test("not_recorded")
        for reason, heading in HEADINGS.items():
            found = {test: by[reason.value] for test, by in not_recorded.items() if reason.value in by}
            yield from _list(heading, _joined(found))

    def _slowest(self, most: int) -> Iterator[str]:
        totals = [(facts.total, test) for test, facts in self.tests.items() if facts.usage]
        ranked = sorted(totals, key=lambda item: (item[0].seconds, item[0].usd), reverse=True)
        if ranked:
            yield "slowest to record:"
        for cost, test in ranked[: most or None]:
            price = dollars(cost.usd) if cost.usd else ""
            yield f"  {cost.seconds:8.2f} s  {cost.tokens:8,} tokens  {price:>10}  {test}"


def _sum(parts: Iterable[Usage]) -> Usage:
    return sum(parts, start=Usage())


def _joined(tests: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {test: ", ".join(sorted(set(texts))) for test, texts in tests.items()}


def _list(title: str, tests: Mapping[str, Any]) -> Iterator[str]:
    """A title and the first of its tests, nothing if there are none."""
    if tests:
        yield f"{title}:"
        yield from _shortened([f"  {test} ({value})" for test, value in sorted(tests.items())], " tests")


def _shortened(lines: Sequence[str], noun: str = "") -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  … and {len(lines) - SHOWN} more{noun}"


def price_of(usage: Usage) -> str:
    """Return tokens and USD for a person."""
    text = f"{usage.tokens:,} tokens"
    if usage.usd:
        text += f", {dollars(usage.usd)}"
        if usage.unpriced:
            text += f" (the price of {counted(usage.unpriced, 'call')} is not known)"
    return text
