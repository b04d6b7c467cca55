"""Settings: their values, who gave them, and what an error says."""

import math
from pathlib import Path

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.layers.stack import Cache
from pytest_lmcache.plugin.options import MODE_FLAGS
from pytest_lmcache.settings import (
    SETTINGS,
    CacheSettings,
    Mode,
    OnExpired,
    RecordErrors,
    Repeat,
    Settings,
    Usage,
)

CACHE = Cache(enable_disk_cache=False)


def test_defaults():
    """Nothing is recorded unasked, keys are exact, only lasting errors are kept."""
    settings = Settings()
    assert (settings.mode, settings.key) == (None, None)  # replay and exact, unless a cache says otherwise
    assert settings.repeat is Repeat.LAST
    assert settings.record_errors is RecordErrors.LASTING
    assert (settings.cassette, settings.cassette_dir) == ("", "cassettes")
    assert settings.usage is Usage.RECORDED


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        *[("mode", mode, Mode(mode)) for mode in ("replay", "once", "record", "rewrite", "live", "verify")],
        pytest.param("mode", Mode.ONCE, Mode.ONCE, id="mode-itself"),
        *[("repeat", repeat, Repeat(repeat)) for repeat in ("last", "cycle", "error")],
        *[("record_errors", which, RecordErrors(which)) for which in ("lasting", "all")],
        ("cassette", "x.yaml", "x.yaml"),
        ("cassette", None, None),
        *[("usage", usage, Usage(usage)) for usage in ("recorded", "empty")],
        *[
            ("max_age", text, 7_776_000)
            for text in ("90d", " 90 days ", 7_776_000, "7776000 s", "2160h", "129600m")
        ],
        ("max_age", "1.5w", 907_200),
        *[
            ("max_age", f"2{blank}{unit}", 2 * seconds)
            for units, seconds in {
                " s sec second seconds": 1,
                "m min minute minutes": 60,
                "h hour hours": 3600,
                "d day days": 86_400,
                "w week weeks": 604_800,
            }.items()
            for unit in units.split(" ")
            for blank in ("", " ")
        ],
        ("max_age", 0.5, 0.5),
        *[("on_expired", what, OnExpired(what)) for what in ("warn", "fail", "record")],
        *[
            ("compare", rule, rule)
            for rule in (None, repr, "similarity:0.8", "embedding:ollama/m:latest:0.9", "judge:same")
        ],
        ("model", "openai/a=openai/b", ("openai/a=openai/b",)),
        ("model", ["a = b", "c=d=e"], ("a=b", "c=d=e")),
        ("cache", CACHE, CACHE),
        ("cassette_dir", "tapes", "tapes"),
        ("key", "messages", "messages"),
        ("key", repr, repr),
        ("normalize", "uuid", ("uuid",)),
        ("normalize", ["uuid", "date"], ("uuid", "date")),
        ("redact", "a+", ("a+",)),
        ("redact", iter(["a", "b"]), ("a", "b")),
        ("redact_with", str.lower, (str.lower,)),
        ("redact_with", "pack.mod:fun", ("pack.mod:fun",)),
        ("redact_with", None, ()),
    ],
)
def test_values(name, value, becomes):
    """Each setting takes its names, functions and lists, and comes out as one type."""
    assert getattr(Settings().updated({name: value}, "here"), name) == becomes


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "mode",
            "reply",
            "mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live, verify.",
        ),
        ("mode", None, "mode cannot be None; it takes one of: "),
        ("mode", ["replay"], "mode cannot be ['replay']; it takes one of: "),
        ("repeat", "first", "repeat cannot be 'first'; it takes one of: last, cycle, error."),
        ("record_errors", True, "record_errors cannot be True; it takes one of: lasting, all."),
        ("cassette", "", "cassette cannot be ''; it takes the path of a file, or None for no cassette."),
        ("cassette", 3, "cassette cannot be 3; it takes the path of a file, or None for no cassette."),
        ("usage", "none", "usage cannot be 'none'; it takes one of: recorded, empty."),
        (
            "max_age",
            "soon",
            "max_age cannot be 'soon'; it takes seconds, or a number with a unit such as 90d",
        ),
        ("max_age", "0d", "max_age cannot be '0d'; it takes seconds"),
        ("max_age", True, "max_age cannot be True; it takes seconds"),
        *[
            ("max_age", age, f"max_age cannot be {age!r}; it takes seconds")
            for age in (
                "1y",
                "6 months",
                "10 ms",
                "1d12h",
                "90D",
                "1 dayz",
                "2mins",
                "-1d",
                "1e3",
                "d",
                "",
                math.nan,
            )
        ],
        (
            "cache",
            Cache,
            "cache cannot be <class 'pytest_lmcache.layers.stack.Cache'>; it takes a pytest_lmcache.Cache.",
        ),
        ("cache", {}, "cache cannot be {}; it takes a pytest_lmcache.Cache."),
        ("cassette_dir", 3, "cassette_dir cannot be 3; it takes a path."),
        ("key", "", "key cannot be ''; it takes a name, a dotted path or a function."),
        ("key", 3, "key cannot be 3; it takes a name, a dotted path or a function."),
        ("ttl", -1, "ttl cannot be -1; it takes "),
        ("url", "http://cache", "url cannot be "),
        ("normalize", 3, "normalize cannot be 3; it takes a string or a list of strings."),
        ("redact", [3], "redact cannot be [3]; it takes a string or a list of strings."),
        ("redact_with", 3, "redact_with cannot be 3; it takes a name, a dotted path or a function."),
        ("cassete", "x", "there is no setting 'cassete'. Did you mean 'cassette'? The settings are: mode, "),
        ("zzz", "x", "there is no setting 'zzz'. The settings are: mode, "),
    ],
)
def test_errors_name_source_and_valid_values(name, value, said):
    """A value that cannot be is told with where it was given and what is valid there."""
    with pytest.raises(SettingsError) as caught:
        Settings().updated({name: value}, "the source")
    assert str(caught.value).startswith(f"the source: {said}")


def test_another_spelling_is_the_same_setting():
    """``normalise`` is ``normalize``, at every level; one place that gives both is refused."""
    far = Settings().updated({"normalise": "uuid"}, "far")
    assert far.normalize == ("uuid",)
    assert far.updated({"normalize": "date"}, "near").normalize == ("date",)
    with pytest.raises(
        SettingsError, match=r"^here: normalise and normalize are one setting\. Give normalize only"
    ):
        far.updated({"normalise": "uuid", "normalize": "uuid"}, "here")


@pytest.mark.parametrize("given", [{"mode": "reply"}, {"cassete": "x"}, {"normalise": 3}])
def test_settings_errors_are_value_errors(given):
    """Code that expects a ValueError of a wrong argument gets one."""
    with pytest.raises(ValueError, match="the source: "):
        Settings().updated(given, "the source")


def test_later_ones_win_the_rest_stays():
    """A nearer source changes what it names and nothing else."""
    far = Settings().updated({"mode": "live", "key": "content", "normalize": ["uuid"]}, "far")
    near = far.updated({"mode": "once", "normalize": ["date"]}, "near")
    assert (near.mode, near.key, near.normalize) == (Mode.ONCE, "content", ("date",))
    assert far.mode is Mode.LIVE


def test_secrets_add_up():
    """What a farther source calls a secret stays one, named once however often it is given."""
    far = Settings().updated({"redact": ["a", "b"]}, "far")
    assert far.updated({"redact": ["b", "c"]}, "near").redact == ("a", "b", "c")
    assert far.updated({"mode": "live"}, "near").redact == ("a", "b")


def test_layers_add_up():
    """What a nearer source says of the cache's layers goes with what a farther one says."""
    far = Settings().updated({"ttl": 60, "enable_disk_cache": False}, "far")
    assert dict(far.updated({"ttl": 5}, "near").layers) == {"ttl": 5, "enable_disk_cache": False}


def test_frozen():
    """A test cannot change the settings of the next."""
    with pytest.raises(AttributeError):
        Settings().mode = Mode.LIVE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, flag) for name in ("enable_memory_cache", "enable_disk_cache") for flag in (True, False)],
        *[(name, n) for name in ("memory_max_entries", "disk_size_limit_bytes") for n in (1, 1e9, math.inf)],
        *[("ttl", ttl) for ttl in (None, 1, 0.5, 10**9)],
        *[("url", f"{scheme}://user:pass@host:1/2") for scheme in ("redis", "rediss", "valkey", "valkeys")],
        *[("url", url) for url in (None, "unix:///a/b?db=1", "redis://[::1]:6379")],
        ("disk_cache_dir", None),
    ],
)
def test_cache_values(name, value):
    """Each setting of a cache takes what is said of it, as it stands."""
    assert getattr(CacheSettings().updated({name: value}, "here"), name) == value


def test_cache_folder(tmp_path, monkeypatch):
    """A folder is a string or a path, from where one is or from home, and stays where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, becomes in {"a": tmp_path / "a", Path("b"): tmp_path / "b", "~/c": "/home/somebody/c"}.items():
        assert CacheSettings().updated({"disk_cache_dir": given}, "").disk_cache_dir == Path(becomes)


FLAG, SIZE = "True or False.", "a whole number above 0, or math.inf for no limit."
AGE, FOLDER = "a number of seconds above 0, or None for ever.", "a path, or None for the default one."


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        *[("enable_memory_cache", value, FLAG) for value in (None, 1, 0, "true", [])],
        ("enable_disk_cache", "", FLAG),
        *[
            ("memory_max_entries", value, SIZE)
            for value in (0, -1, 1.5, None, "5", True, math.nan, -math.inf)
        ],
        *[("disk_size_limit_bytes", value, SIZE) for value in (0, -1, 0.5, None, "1 GB", True, math.nan)],
        *[("ttl", value, AGE) for value in (0, -1, "60", True, math.inf, math.nan, [])],
        *[("disk_cache_dir", value, FOLDER) for value in ("", 3, True, b"x", "~nobody-of-that-name/x")],
    ],
)
def test_cache_errors_name_source_and_valid_values(name, value, takes):
    """A value that a cache cannot have is told with where it was given and what is valid there."""
    with pytest.raises(SettingsError) as caught:
        CacheSettings().updated({name: value}, "the source")
    assert str(caught.value) == f"the source: {name} cannot be {value!r}; it takes {takes}"


@pytest.mark.parametrize(
    "url",
    ["", "hunter2", "http://u:hunter2@host", "u:hunter2@host", "redis://", "redis://u:hunter2@", "unix://hunter2",
     "redis://:hunter2@host:x", "redis://:hunter2@host:0", "redis://:hunter2@[host", 3, b"redis://u:hunter2@host"],
)  # fmt: skip
def test_bad_cache_url(url):
    """A URL that is none is told with those that are, and without a password."""
    with pytest.raises(
        SettingsError, match=r"the source: url cannot be .*; it takes redis://host:port/0, "
    ) as caught:
        CacheSettings().updated({"url": url}, "the source")
    assert "hunter2" not in str(caught.value)


def test_cache_settings_show_no_password():
    """Printed, by a failing assertion say, the settings show no URL."""
    settings = CacheSettings().updated({"url": "redis://u:hunter2@host", "ttl": 5}, "here")
    assert "hunter2" not in repr(settings)
    assert "ttl=5" in repr(settings)


def test_unknown_cache_setting():
    """A setting that does not exist is told with the one that was meant."""
    with pytest.raises(
        SettingsError, match=r"here: there is no setting 'max_entries'.* are: enable_memory_cache, "
    ):
        CacheSettings().updated({"max_entries": 5}, "here")


WRITTEN = {row.ini or row.option.partition(" ")[0] or f"{name}=" for name, row in SETTINGS.items()}
OPTIONS = {row.option.partition(" ")[0] for row in SETTINGS.values() if row.option}


@pytest.mark.parametrize("written", sorted(WRITTEN | OPTIONS | set(MODE_FLAGS)))
def test_each_setting_has_a_test_file(written):
    """The file of ``tests/plugin/`` that has a setting's name tests it, as users write it."""
    name = written.strip("-=").replace("-", "_").removeprefix("lm_")
    assert written in (Path(__file__).parent / f"plugin/test_{name}.py").read_text(encoding="utf-8")
