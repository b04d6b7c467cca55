"""The ini keys, in native TOML and in a classic pytest.ini; a value that cannot be ends the run early."""

import pytest
from helpers import configure

AUTO = """
def test_one():
    assert ask("one") == "You said: one"
"""


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_every_key_reaches_the_test(suite, kind):
    """Each ini key is what the test's settings say, in both kinds of file."""
    configure(
        suite,
        kind,
        lm_mode="once",
        lm_cassette_dir="tapes",
        lm_key="messages",
        lm_normalize=["uuid", "re:run-[0-9]+"],
        lm_repeat="cycle",
        lm_record_errors="all",
        lm_redact=["tok_[a-z]+", "acct: [0-9]+"],
        lm_redact_with="app:clean",
    )
    suite.file("app.py", (suite.folder / "app.py").read_text() + "\ndef clean(text):\n    return text\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            settings = lm_cache.settings
            assert settings.mode == "once"
            assert settings.cassette_dir == "tapes"
            assert settings.key == "messages"
            assert settings.normalize == ("uuid", "re:run-[0-9]+")
            assert settings.repeat == "cycle"
            assert settings.record_errors == "all"
            assert settings.redact == ("tok_[a-z]+", "acct: [0-9]+")
            assert settings.redact_with == ("app:clean",)
            ask()
    """)
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lmcache: mode once"])
    assert (suite.folder / "tapes/test_it/test_one.yaml").is_file()


BAD = [
    (
        "lm_mode",
        "reply",
        "*ini: lm_mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live, verify.",
    ),
    ("lm_repeat", "first", "*ini: lm_repeat cannot be 'first'; it takes one of: last, cycle, error."),
    ("lm_record_errors", "some", "*ini: lm_record_errors cannot be 'some'; it takes one of: lasting, all."),
    ("lm_key", "exakt", "*There is no key strategy 'exakt'. Use exact, messages, content, *"),
    ("lm_normalize", ["guid"], "*There is no normalizer 'guid'. *uuid*"),
    ("lm_normalize", ["re:("], "*regular expression*"),
    ("lm_redact", ["("], "*regular expression*"),
    ("lm_auto", "perhaps", "*lm_auto*"),
]


@pytest.mark.parametrize("extra", [(), ("-n1",), ("--collect-only",)], ids=["", "xdist", "collect-only"])
@pytest.mark.parametrize(("name", "value", "said"), BAD, ids=[f"{name}={value}" for name, value, _ in BAD])
def test_bad_value_is_a_usage_error(suite, name, value, said, extra):
    """A bad ini value ends the run with exit code 4 before any test, whether tests are marked or not."""
    configure(suite, "ini", **{name: value})
    suite.test("def test_one():\n    pass\n")
    result = suite.run(*extra)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("name", "value"), [("lm_auto", "maybe"), ("lm_mode", 3), ("lm_normalize", "uuid"), ("lm_redact", [1])]
)
def test_wrong_type_in_toml_is_a_usage_error(suite, name, value):
    """TOML has types; a wrong one is told by the key's name."""
    configure(suite, "toml", **{name: value})
    suite.test("def test_one():\n    pass\n")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{name}*"])


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("lm_max_age", 90, "*expects a string*It takes: a text such as '90d', or '90' for seconds.*"),
        ("lm_disk_dir", 3, "*It takes: a path, as text."),
        ("lm_memory_max_entries", "5", "*It takes: a whole number above 0, or inf."),
        ("lm_cache_url", 6379, "*It takes: a URL such as redis://host:port/0, as text."),
    ],
)
def test_what_a_key_takes_in_toml(suite, name, value, takes):
    """Where TOML's types are in the way, the error says what to write."""
    configure(suite, "toml", **{name: value})
    suite.test("def test_one():\n    pass\n")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([takes])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lm_key", "*key strategy 'nowhere.to:go' cannot be imported*"),
        ("lm_redact_with", "*'nowhere.to:go' cannot be imported*"),
    ],
)
def test_function_that_cannot_be_imported(suite, name, said):
    """A dotted path that leads nowhere ends the run once the tests are collected, and names the path."""
    configure(suite, "ini", **{name: "nowhere.to:go"})
    suite.test("@pytest.mark.lm_cache\n" + AUTO.lstrip())
    marked = suite.run()
    suite.test(AUTO)
    suite.run("-k", "nothing").assert_outcomes(deselected=1)
    for result in (marked, suite.run("-o", "lm_auto=true")):
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([said])


INI = {
    "lm_enable_memory_cache": ("false", "enable_memory_cache=False"),
    "lm_enable_disk_cache": ("false", "enable_disk_cache=False"),
    "lm_disk_size_limit_bytes": ("5000000", "disk_size_limit_bytes=5000000"),
    "lm_memory_max_entries": ("17", "memory_max_entries=17"),
    "lm_ttl": ("2.5", "ttl=2.5"),
    "lm_cache_url": ("redis://localhost:1/0", "url='redis://localhost:1/0'"),
}


@pytest.mark.usefixtures("default_layers")
@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_every_layer_key_reaches_the_cache(suite, kind):
    """Each setting of ``configure_cache`` is an ini key too."""
    lines = [
        f"{name} = '{value}'" if kind == "toml" and name == "lm_cache_url" else f"{name} = {value}"
        for name, (value, _) in INI.items()
    ]
    name, head = ("pyproject.toml", "[tool.pytest]") if kind == "toml" else ("pytest.ini", "[pytest]")
    suite.file(name, "\n".join([head, *lines]))
    suite.test("""
        import pytest_lmcache

        @pytest.mark.lm_cache
        def test_one():
            settings = pytest_lmcache.cache._settings
            print(settings, f"url={settings.url!r}")
    """)
    output = suite.run("-s").stdout.str()
    assert all(expected in output for _, expected in INI.values())


@pytest.mark.usefixtures("default_layers")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lm_memory_max_entries = 0", "*ini: lm_memory_max_entries cannot be *0*"),
        ("lm_ttl = -1", "*ini: lm_ttl cannot be *-1*"),
        ("lm_cache_url = http://x", "*ini: lm_cache_url cannot be *redis://*"),
        ("lm_usage = none", "*ini: lm_usage cannot be 'none'; it takes one of: recorded, empty."),
        ("lm_max_age = soon", "*ini: lm_max_age cannot be 'soon'; it takes *"),
        ("lm_enable_disk_cache = maybe", "*lm_enable_disk_cache: *maybe*. It takes: true or false."),
        ("lm_memory_max_entries = many", "*'many'. It takes: a whole number above 0, or inf."),
        ("lm_memory_max_entries = nan", "*cannot be nan; it takes a whole number above 0, *"),
        ("lm_disk_size_limit_bytes = 1GB", "*'1GB'. It takes: a whole number above 0, or inf."),
        ("lm_ttl = 1h", "*'1h'. It takes: a number of seconds above 0."),
    ],
)
def test_bad_values_end_the_run_early(suite, line, said):
    """A layer's setting that cannot be is told before any test runs."""
    suite.file("pytest.ini", f"[pytest]\n{line}\n")
    suite.test("def test_one(): pass")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
