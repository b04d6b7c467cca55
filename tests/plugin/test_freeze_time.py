"""``freeze_time``: a test runs at the moment of its recording, so that prompts with the date replay."""

import asyncio
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import litellm
import pydantic
import pytest
from freezegun import freeze_time
from helpers import configure

from pytest_lmcache import CassetteError, CassetteMiss, use_cassette
from pytest_lmcache.clock import RealTime

NOW = """
    import time
    from datetime import date, datetime, timezone

    @pytest.mark.lm_cache(freeze_time=True)
    def test_now():
        now = datetime.now(timezone.utc)
        assert ask(f"Today is {date.today()}, {datetime.now()}, {now}, {time.time()}, {time.strftime('%c %z')}")
        print("moment:", now.isoformat())
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.yaml"


def aged(path, days=400):
    """Make a cassette look as if it had been recorded long ago, its prompts too."""
    then = datetime.now(UTC) - timedelta(days=days)
    text = path.read_text()
    for found in set(re.findall(r"20\d\d-\d\d-\d\d", text)):
        text = text.replace(found, str(then.date()))
    path.write_text(text)
    return then.date()


def say(text, url, **more):
    messages = [{"role": "user", "content": text}]
    given = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "sk-local", "max_retries": 0, **more}
    return litellm.completion(messages=messages, **given)


def moment(result):
    return next(line for line in result.outlines if "moment:" in line).split()[-1]


# ---- replay ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_prompts_with_the_date_and_the_seconds_replay(suite, monkeypatch):
    """What the recorded prompts say of the time is said again on replay, also in another time zone."""
    suite.test(NOW)
    first = suite.record("-s")
    text = (suite.folder / "cassettes/test_it/test_now.yaml").read_text()
    head = text[: text.index("\n--- #")]
    assert re.search(
        r"^lmcache: 1\nkey: exact/1\nfrozen_at: 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$", head, re.MULTILINE
    )
    time.sleep(1)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    result = suite.run("-s")
    monkeypatch.undo()
    time.tzset()
    result.assert_outcomes(passed=1)
    assert moment(result) == moment(first)


def test_a_recording_without_a_moment(suite):
    """A cassette that was recorded before the setting replays at the time of its first answer."""
    suite.test(
        """
        from datetime import date

        @pytest.mark.lm_cache
        def test_today():
            assert ask(f"Today is {date.today()}.")
        """
    )
    suite.record()
    path = suite.folder / "cassettes/test_it/test_today.yaml"
    then = aged(path, 30)
    text = path.read_text().replace(f"Today is {date.today()}", f"Today is {then}")
    path.write_text(
        re.sub(r"^key: k.*$", "key: gone", text, flags=re.MULTILINE).replace("exact/1", "exact/0")
    )
    assert suite.run().ret == 1
    configure(suite, "toml", lm_freeze_time=True)
    suite.run().assert_outcomes(passed=1)


def test_only_while_the_test_runs(suite):
    """Fixtures of the test see its moment; shared fixtures, other tests, durations and time-outs the real time."""
    suite.file(
        "conftest.py",
        """
        import time
        import pytest
        from datetime import datetime

        def pytest_runtest_logreport(report):
            assert 0 <= report.stop - report.start < 60

        @pytest.fixture(scope="module")
        def shared():
            yield datetime.now()
            print("shared ends", datetime.now().year)

        @pytest.fixture
        def own():
            yield datetime.now()
            print("own ends", datetime.now().year)
        """,
    )
    suite.test(
        """
        import time
        from datetime import datetime
        from time import monotonic

        @pytest.mark.lm_cache(freeze_time=True)
        def test_frozen(shared, own):
            ask("hello")
            assert (shared.year, own.year, datetime.now().year) == YEARS
            before = monotonic(), time.perf_counter()
            time.sleep(0.05)
            assert monotonic() > before[0] and time.perf_counter() > before[1]
            with pytest.raises(asyncio.TimeoutError):
                asyncio.run(asyncio.wait_for(asyncio.sleep(5), 0.05))

        def test_other(shared):
            assert datetime.now().year == NOW
            assert datetime.__name__ == "datetime"
        """.replace("YEARS", f"({date.today().year},) * 3").replace("NOW", str(date.today().year))
    )
    suite.record()
    path = suite.folder / "cassettes/test_it/test_frozen.yaml"
    path.write_text(re.sub(r"frozen_at: \d+-", "frozen_at: 2001-", path.read_text()))
    it = (suite.folder / "test_it.py").read_text()
    (suite.folder / "test_it.py").write_text(
        it.replace(f"({date.today().year},) * 3", f"({date.today().year}, 2001, 2001)")
    )
    result = suite.run("-s", "--durations=0", "-vv")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*own ends 2001*", f"*shared ends {date.today().year}*", "*s call*test_frozen*"]
    )
    assert all(
        float(found) < 5 for found in re.findall(r"([\d.]+)s (?:setup|call|teardown)", result.stdout.str())
    )


def test_time_is_back_after_a_test(path, provider):
    """After a block, time, its zone and the types of dates are as they were, also if it fails."""
    zone = os.environ.get("TZ"), time.timezone
    with pytest.raises(ZeroDivisionError), use_cassette(path, mode="record", freeze_time=True):
        assert datetime.now() == datetime.now(UTC).replace(tzinfo=None)
        raise ZeroDivisionError
    assert type(datetime.now()).__name__ == "datetime"
    assert abs(time.time() - RealTime.since_1970()) < 1
    assert (os.environ.get("TZ"), time.timezone) == zone


# ---- recording -------------------------------------------------------------------------------------------


def test_recording_one_changed_call_keeps_the_moment(path, provider):
    """Mode record runs at the cassette's moment, so that all other calls replay; a rewrite runs at the present."""
    for mode, extra in (("record", 0), ("record", 1)):
        with use_cassette(path, mode=mode, freeze_time=True) as tape:
            for number in range(2 + extra):
                say(f"{number}: {datetime.now():%Y-%m-%d}", provider.url)
        if not extra:
            then = aged(path)
            path.write_text(path.read_text().replace("exact/1", "exact/0"))
    assert (tape.replayed, tape.recorded) == (2, 1)
    assert f"2: {then}" in path.read_text()
    assert path.read_text().count("frozen_at") == 1
    with use_cassette(path, mode="rewrite", freeze_time=True):
        say(f"0: {date.today()}", provider.url)
    assert f"frozen_at: {RealTime.now(UTC):%Y-%m-%d}" in path.read_text()
    assert f"0: {RealTime.now(UTC):%Y-%m-%d}" in path.read_text()


def test_the_provider_is_asked_at_the_real_time(path, provider):
    """While recording at an old moment, what sends the request sees the real time, and so do stored times."""
    with use_cassette(path, mode="record", freeze_time=True):
        say("first", provider.url)
    then = aged(path)
    seen = []

    class Client(litellm.CustomLLM):
        def completion(self, *_, **__):
            seen.append((datetime.now(), time.time(), time.strftime("%Y")))
            return litellm.ModelResponse(choices=[{"message": {"content": "x"}}])

    litellm.custom_provider_map = [{"provider": "own", "custom_handler": Client()}]
    try:
        with use_cassette(path, mode="record", freeze_time=True) as tape:
            assert date.today() == then
            say("second", provider.url, model="own/x")
            assert date.today() == then
    finally:
        litellm.custom_provider_map = []
    assert abs(seen[0][1] - RealTime.since_1970()) < 60
    assert abs((seen[0][0] - RealTime.now(UTC).replace(tzinfo=None)).total_seconds()) < 60
    assert 0 <= tape.calls[-1].seconds < 60
    assert path.read_text().rstrip().splitlines()[-2].startswith(f"recorded: {RealTime.now(UTC):%Y-%m}")


@pytest.mark.parametrize("stream", [False, True])
def test_real_calls_at_an_old_moment(path, provider, stream):
    """Sync and async calls over HTTP, streamed and not, of a Router too, with callbacks, work at an old moment."""
    with use_cassette(path, mode="record", freeze_time=True):
        say("first", provider.url)
    aged(path)
    told = []
    given = {"model": "openai/gpt-4o-mini", "api_base": provider.url, "api_key": "sk-local"}
    router = litellm.Router([{"model_name": "m", "litellm_params": given}], num_retries=0)

    async def run():
        answer = await router.acompletion(
            "m", [{"role": "user", "content": f"async {date.today()}"}], stream=stream
        )
        if stream:
            return [chunk async for chunk in answer]
        return answer

    litellm.success_callback = [lambda *args: told.append(args[3] - args[2])]
    try:
        for mode in ("record", "replay"):
            with use_cassette(path, mode=mode, freeze_time=True) as tape:
                answer = say(f"sync {date.today()}", provider.url, stream=stream)
                assert [*answer]
                assert asyncio.run(run())
            assert len(tape.calls) == 2
    finally:
        litellm.success_callback = []
    assert tape.replayed == 2


@pytest.mark.slow
def test_tests_that_share_a_cassette(suite):
    """Tests that record one file together do it at one moment, and replay at it."""
    suite.test(
        """
        import time
        from datetime import datetime
        pytestmark = pytest.mark.lm_cache(cassette="shared", freeze_time=True)

        @pytest.mark.parametrize("number", range(2))
        def test_one(number):
            ask(f"{number} at {datetime.now()}")
            time.sleep(1.1 if number == 0 else 0)
        """
    )
    suite.record()
    suite.run().assert_outcomes(passed=2)
    suite.run("--lm-rewrite").assert_outcomes(passed=2)
    suite.run().assert_outcomes(passed=2)


# ---- the rest --------------------------------------------------------------------------------------------


def test_all_tests_by_configuration(suite):
    """Under ``lm_auto`` the ini key freezes every test; without calls there is no cassette and no failure."""
    configure(suite, "toml", lm_auto=True, lm_freeze_time=True)
    suite.test(
        """
        from datetime import datetime

        def test_call():
            ask(f"It is {datetime.now()}.")

        def test_none():
            assert datetime.now() == datetime.now()
        """
    )
    suite.record().assert_outcomes(passed=2)
    assert suite.cassettes() == ["test_it/test_call.yaml"]
    suite.run().assert_outcomes(passed=2)


def test_without_a_cassette(path, provider):
    """Without a cassette a test runs at the present, and its calls miss as ever."""
    with pytest.raises(CassetteMiss, match="no such file"), use_cassette(path, freeze_time=True):
        assert date.today() == RealTime.now(UTC).date()
        say("x", provider.url)


def test_a_moment_that_is_none(path, provider):
    """A moment that was edited by hand into none is an error with file and line."""
    with use_cassette(path, mode="record", freeze_time=True):
        say("x", provider.url)
    path.write_text(re.sub("frozen_at: .*", "frozen_at: yesterday", path.read_text()))
    with (
        pytest.raises(CassetteError, match=r"x\.yaml:\d+: yesterday is no time"),
        use_cassette(path, freeze_time=True),
    ):
        pass


def test_threads_and_nested_freezing(path, provider):
    """Threads see the moment, and freezegun within the test moves the time as it does elsewhere."""
    with use_cassette(path, mode="record", freeze_time=True), ThreadPoolExecutor(1) as pool:
        now = datetime.now(), time.time()
        assert pool.submit(lambda: (datetime.now(), time.time())).result(5) == now
        with freeze_time("2012-01-14"):
            assert date.today().year == 2012
        assert (datetime.now(), time.time()) == now


def test_freezegun_around(path):
    """A suite that has stopped the clock itself gets its own time back."""
    with freeze_time("2012-01-14"):
        with use_cassette(path, mode="record", freeze_time=True):
            assert date.today().year == RealTime.now(UTC).year
        assert date.today().year == 2012


def test_pydantic_models_made_meanwhile(path):
    """A model with dates can be defined and used while the clock is stopped, as providers' SDKs do at their first call."""
    with use_cassette(path, freeze_time=True):

        class Event(pydantic.BaseModel):
            at: datetime
            day: date

        made = Event(at=datetime.now(), day=date.today())
    assert Event.model_validate_json(made.model_dump_json()) == made
    assert Event(at=datetime.now(), day=date.today()).day == date.today()


def test_blocks_that_overlap(path):
    """Of two blocks that are open at once, the last one decides, in whatever order they end."""
    for name, moment in (("a", "2001-01-01T00:00:00Z"), ("b", "2002-01-01T00:00:00Z")):
        with use_cassette(path.with_name(name), mode="record", freeze_time=True) as tape:
            tape.remember("x", lambda: 1)
        file = path.with_name(name)
        file.write_text(re.sub("frozen_at: .*", f"frozen_at: {moment}", file.read_text()))
    one, two = (use_cassette(path.with_name(name), freeze_time=True) for name in "ab")
    one.__enter__()
    two.__enter__()
    assert date.today().year == 2002
    one.__exit__(None, None, None)
    assert date.today().year == 2002
    two.__exit__(None, None, None)
    assert date.today() == RealTime.now(UTC).date()
