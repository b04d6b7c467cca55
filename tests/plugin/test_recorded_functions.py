"""``lm_cache.record`` and ``@recorded``: a tool's results replay beside the model's answers."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from helpers import summary_lines

from pytest_lmcache import (
    CassetteMiss,
    SettingsError,
    UnkeyableCallError,
    UnrecordableError,
    recorded,
    use_cassette,
)

WEATHER = """
    import asyncio

    calls = []

    def lookup(city, units="C"):
        calls.append(city)
        if city == "Atlantis":
            raise LookupError("no such city", city)
        return {"city": city, "degrees": len(calls)}

    async def forecast(city, *, days=1):
        await asyncio.sleep(0)
        calls.append(city)
        return [f"{city} {day}" for day in range(days)]
"""
AGENT = """
    import weather

    def test_agent(lm_cache):
        lm_cache.record(weather, "lookup")
        lm_cache.record(weather, "forecast")
        said = ask(f"It is {weather.lookup('Paris')['degrees']} degrees.")
        assert said == "You said: It is 1 degrees."
        assert weather.lookup(city="Paris") == {"city": "Paris", "degrees": 2}
        assert asyncio.run(weather.forecast("Rome", days=2)) == ["Rome 0", "Rome 1"]
        with pytest.raises(LookupError) as caught:
            weather.lookup("Atlantis")
        assert caught.value.args == ("no such city", "Atlantis")
        assert [each.name for each in lm_cache.values] == ["function weather.lookup"] * 2 + [
            "function weather.forecast", "function weather.lookup"
        ]
        print("called:", len(weather.calls))

    def test_after():
        assert weather.lookup.__module__ == "weather" and not hasattr(weather.lookup, "__wrapped__")
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.yaml"


# ---- record --------------------------------------------------------------------------------------------


def test_a_tool_replays_without_being_called(suite):
    """Sync and async results and exceptions replay by their arguments; after the test the function is back."""
    suite.file("weather.py", WEATHER)
    suite.test(AGENT)
    result = suite.record("-s")
    result.stdout.fnmatch_lines(["*called: 4*"])
    assert summary_lines(result)[:2] == ["0 replayed, 1 recorded", "values: 4 recorded"]
    text = (suite.folder / "cassettes/test_it/test_agent.yaml").read_text()
    calls = [line for line in text.splitlines() if line.startswith("call: ")]
    lookup = "call: function weather.lookup"
    assert calls == [lookup, "call: completion", lookup, "call: function weather.forecast", lookup]
    result = suite.run("-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*called: 0*"])
    assert summary_lines(result)[:2] == ["1 replayed", "values: 4 replayed"]


def test_a_changed_argument_is_a_miss(suite):
    """The miss shows the call, the nearest recording, the difference and the command."""
    suite.file("weather.py", WEATHER)
    text = """
        import weather

        def test_agent(lm_cache):
            lm_cache.record(weather, "lookup")
            weather.lookup("Paris", units="F")
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace("Paris", "Lyon"))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*No recording answers this call of function weather.lookup(city='Lyon', units='F')*",
            '*city: recorded "Paris", asked "Lyon"*',
            "*pytest --lm-record*test_it.py::test_agent*",
        ]
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)


class Client:
    """What a test records methods of."""

    def __init__(self, name="a"):
        self.name = name
        self.calls = 0

    def fetch(self, item):
        self.calls += 1
        return f"{self.name}{item}{self.calls}"

    @staticmethod
    def double(number):
        return number * 2

    @classmethod
    def kind(cls, suffix):
        return cls.__name__ + suffix


def test_methods(path):
    """Methods of a class, of an object, static and class methods are recorded, without ``self`` among the arguments."""
    for mode in ("record", "replay"):
        client, other = Client(), Client("b")
        with use_cassette(path, mode=mode) as tape:
            for name in ("fetch", "double", "kind"):
                tape.record(Client, name)
            tape.record(other, "fetch", name="other.fetch")
            assert [client.fetch(1), client.fetch(1), other.fetch(1)] == ["a11", "a12", "b11"]
            assert (Client.double(2), client.double(2), Client.kind("!"), Client.kind("!")) == (
                4,
                4,
                "Client!",
                "Client!",
            )
        assert client.calls == (2 if mode == "record" else 0)
        assert "fetch" not in vars(other)
        assert isinstance(vars(Client)["double"], staticmethod)
        assert isinstance(vars(Client)["kind"], classmethod)
    assert len(vars(Client)["fetch"].__closure__ or ()) == 0


def test_undone_beside_other_patches(path, monkeypatch):
    """A patch that is made before or after ours, and undone in any order, leaves nothing of ours in place."""
    target = SimpleNamespace(f=lambda: "real")
    real = target.f
    with monkeypatch.context() as patch:
        patch.setattr(target, "f", lambda: "fake")
        with use_cassette(path, mode="record") as tape:
            tape.record(target, "f", name="f")
            assert target.f() == "fake"
            patch.undo()
            assert target.f is real
        assert target.f is real
    with monkeypatch.context() as patch:
        with use_cassette(path) as tape:
            tape.record(target, "f", name="f")
            patch.setattr(target, "f", lambda: "other")
        patch.undo()
        with use_cassette(path):
            assert target.f() == "real"


# ---- @recorded -----------------------------------------------------------------------------------------

runs = []


@recorded
def search(query, *, limit=10, **more):
    runs.append(query)
    return f"{query} {limit} {len(runs)}"


@recorded(name="fetch", ignore=["session"], dump=lambda found: found.name, load=Client)
async def fetch(session, name):
    runs.append(name)
    return Client(name)


class Tool:
    @recorded
    def run(self, text):
        runs.append(text)
        return text * 2


def test_the_decorator_records_in_blocks_only(path):
    """A decorated function runs as it is outside, and is recorded and replayed within a block or a test."""
    runs.clear()
    assert search("a") == "a 10 1"
    with use_cassette(path, mode="record"):
        assert search("a", site="x") == "a 10 2"
        assert Tool().run("b") == "bb"
    runs.clear()
    with use_cassette(path):
        assert search(query="a", site="x") == "a 10 2"
        assert Tool().run("b") == "bb"
    assert not runs
    assert "call: function tests.plugin.test_recorded_functions.Tool.run\n" in path.read_text()


def test_options(path):
    """Arguments can be left out of the key, and results converted."""
    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode):
            assert asyncio.run(fetch(object(), "Ada")).name == "Ada"
    text = path.read_text()
    assert "call: function fetch\n" in text
    assert "session" not in text


def test_in_a_test(suite):
    """The decorator records within a marked test, and within another one it does nothing."""
    suite.file(
        "tools.py",
        """
        from itertools import count
        from pytest_lmcache import recorded

        numbers = count()

        @recorded
        def next_number():
            return next(numbers)
        """,
    )
    suite.test(
        """
        from tools import next_number

        @pytest.mark.lm_cache
        def test_marked():
            assert ask(f"number {next_number()}") == "You said: number 0"
            print("marked", next_number())

        def test_unmarked():
            print("unmarked", next_number())
        """
    )
    suite.record("-s").stdout.fnmatch_lines(["*marked 1", "*unmarked 2"])
    suite.run("-s").stdout.fnmatch_lines(["*marked 1", "*unmarked 0"])


def test_threads_and_tasks(path):
    """Calls of threads and tasks are recorded in the order in which they started, each with its own result."""
    ready = threading.Event()

    @recorded(name="slow")
    def slow(number):
        if number == 0:
            ready.wait(5)
        else:
            ready.set()
        return number

    @recorded(name="task")
    async def task(number):
        await asyncio.sleep(0.01 * (3 - number))
        return number

    async def tasks():
        return await asyncio.gather(*map(task, range(3)))

    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode) as tape, ThreadPoolExecutor(2) as pool:
            assert [*pool.map(slow, range(2))] == [0, 1]
            assert asyncio.run(tasks()) == [0, 1, 2]
        assert [each.answer.data["value"] for each in tape.values] == [0, 1, 0, 1, 2]
    assert path.read_text().index("number: 0") < path.read_text().index("number: 1")


def test_what_a_recorded_function_calls_is_not_recorded(path):
    """Replay does not call the outer function, so an inner one leaves no recording that nothing asks for."""

    @recorded(name="inner")
    def inner():
        return 1

    @recorded(name="outer")
    def outer():
        return inner() + 1

    with use_cassette(path, mode="record") as tape:
        assert outer() == 2
    assert [each.name for each in tape.values] == ["function outer"]


# ---- arguments, results and exceptions -------------------------------------------------------------------


def test_a_cancelled_tool(path):
    """A tool that was cancelled by a timeout is cancelled by it again on replay."""

    @recorded(name="slow")
    async def slow():
        await asyncio.sleep(30)

    async def run():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.05)

    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode):
            asyncio.run(run())
    assert "cancelled: true" in path.read_text()


class OwnError(Exception):
    """One that can be made again of its arguments."""


class KeywordError(Exception):
    def __init__(self, *, code):
        super().__init__(code)


@pytest.mark.parametrize(
    "error", [KeyError("x"), OwnError("a", 1), OSError(2, "gone")], ids=lambda e: type(e).__name__
)
def test_exceptions(path, error):
    """Built-in and importable exceptions replay with their class and arguments."""

    @recorded(name="tool")
    def tool():
        raise error

    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode), pytest.raises(type(error)) as caught:
            tool()
        assert caught.value.args == error.args


@pytest.mark.parametrize(
    "error",
    [KeywordError(code=1), ValueError(object()), type("Local", (Exception,), {})()],
    ids=["keyword", "object", "local"],
)
def test_exceptions_that_cannot_be_made_again(path, error):
    """Other exceptions are refused while recording, although the code under test catches them."""

    @recorded(name="tool")
    def tool():
        raise error

    with (
        pytest.raises(UnrecordableError, match="stored as its class and arguments"),
        use_cassette(path, mode="record"),
    ):
        try:
            tool()
        except Exception:
            pass
    assert not path.exists()


def test_a_wrong_call_is_the_functions_own_error(path):
    """A call that the function does not take raises its own TypeError, recorded or not."""
    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode), pytest.raises(TypeError, match=r"search\(\) missing 1 required"):
            search()


def test_an_argument_without_content(path):
    """An argument that cannot be compared is an error that names it."""
    with pytest.raises(UnkeyableCallError, match="`query`"), use_cassette(path, mode="record"):
        search(object())


def test_secrets_in_arguments_and_results(path):
    """A credential in an argument is neither written nor needed again, and what repeats it is redacted."""

    @recorded(name="tool")
    def tool(api_key, text):
        return {"said": f"{text} with {api_key}"}

    with use_cassette(path, mode="record"):
        assert tool("my-own-credential-77", "hello") == {"said": "hello with my-own-credential-77"}
    assert "my-own" not in path.read_text()
    with use_cassette(path):
        assert tool("another", "hello")["said"].startswith("hello with <redacted:")


def test_normalizers_and_key_functions(path):
    """Normalizers act on arguments; ``key`` is for models' calls, and a tool's arguments all count."""

    @recorded(name="tool")
    def tool(run, query):
        return query

    settings = {"normalize": ["uuid"], "key": lambda request: request["messages"]}
    with use_cassette(path, mode="record", **settings):
        tool("123e4567-e89b-42d3-a456-426614174000", "a")
    with pytest.raises(CassetteMiss), use_cassette(path, **settings):
        assert tool("923e4567-e89b-42d3-a456-426614174009", "a") == "a"
        tool("923e4567-e89b-42d3-a456-426614174009", "b")


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize(
    "function",
    [generator, async_generator, Client, 7],
    ids=["generator", "async generator", "class", "number"],
)
def test_what_is_no_function_is_refused(path, function):
    """Generators, classes and other objects are refused when they are to be recorded."""
    with pytest.raises(SettingsError, match="cannot be recorded"):
        recorded(function)
    target = SimpleNamespace(it=function)
    with use_cassette(path) as tape, pytest.raises(SettingsError, match="cannot be recorded"):
        tape.record(target, "it")
    assert target.it is function


def test_an_ignored_argument_has_to_exist():
    """A misspelt name in ``ignore`` is an error at once."""
    with pytest.raises(SettingsError, match="no argument 'sesion'"):
        recorded(ignore=["sesion"])(search.__wrapped__)


@pytest.mark.slow
def test_in_a_child_process(suite):
    """A decorated function that a test's child process calls is recorded in the test's cassette."""
    suite.file(
        "tools.py",
        """
        import sys
        from pytest_lmcache import recorded

        @recorded
        def double(number):
            print("called", file=sys.stderr)
            return number * 2

        if __name__ == "__main__":
            import tools
            print(tools.double(21))
        """,
    )
    suite.test(
        """
        import subprocess, sys

        @pytest.mark.lm_cache
        def test_child():
            found = subprocess.run([sys.executable, "tools.py"], capture_output=True, text=True, check=True)
            assert found.stdout == "42\\n", found
            print("child:", found.stderr)
        """
    )
    suite.record("-s").stdout.fnmatch_lines(["*child: called*"])
    result = suite.run("-s")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*child: called*")
    assert sys.executable
