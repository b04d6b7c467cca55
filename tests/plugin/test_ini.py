"""The ini keys, in native TOML and in a classic pytest.ini; a value that cannot be ends the run early."""

import tempfile

import pytest

AUTO = """
def test_one():
    assert ask("one") == "You said: one"
"""


def toml(value):
    return {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)


def classic(value):
    return "\n    ".join(["", *value]) if isinstance(value, list) else value


def configure(suite, kind, **keys):
    """Write the suite's configuration file."""
    if kind == "toml":
        lines = [f"{name} = {toml(value)}" for name, value in keys.items()]
        suite.file("pyproject.toml", "\n".join(["[tool.pytest]", *lines]))
    else:
        lines = [f"{name} = {classic(value)}" for name, value in keys.items()]
        suite.file("pytest.ini", "\n".join(["[pytest]", *lines]))


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


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_another_spelling(suite, kind):
    """``lm_normalise`` and ``normalise=`` of a mark and of ``use_cassette`` are ``normalize``."""
    configure(suite, kind, lm_normalise=["uuid"])
    suite.test("""
        from pytest_lmcache import use_cassette

        @pytest.mark.lm_cache
        def test_configured(lm_cache):
            assert lm_cache.settings.normalize == ("uuid",)

        @pytest.mark.lm_cache(normalise=["date"])
        def test_marked(lm_cache):
            assert lm_cache.settings.normalize == ("date",)
            with use_cassette("x.yaml", normalise="epoch") as tape:
                assert tape.settings.normalize == ("epoch",)
    """)
    suite.run().assert_outcomes(passed=2)


def test_both_spellings_are_a_usage_error(suite):
    """A configuration with ``lm_normalise`` and ``lm_normalize`` does not say which of them holds."""
    configure(suite, "ini", lm_normalise=["uuid"], lm_normalize=["date"])
    suite.test("def test_one():\n    pass\n")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*ini: lm_normalise and lm_normalize are one setting. Give lm_normalize only.*"]
    )


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_auto_records_unmarked_tests(suite, kind):
    """With ``lm_auto`` a test needs no mark."""
    configure(suite, kind, lm_auto=True if kind == "toml" else "true")
    suite.test(AUTO)
    suite.record()
    assert suite.cassettes() == ["test_it/test_one.yaml"]
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_temporary_folders_and_the_checkout(suite, monkeypatch, tmp_path_factory):
    """Folders that ``--basetemp``, TMPDIR and rootdir name are known to the normalizers."""
    suite.test("""
        import tempfile

        @pytest.mark.lm_cache(normalize="tmp_path", cassette="temporary")
        def test_temporary(tmp_path):
            ask(f"read {tmp_path}/a.txt and {tempfile.mkdtemp()}/b.txt")

        @pytest.mark.lm_cache(normalize="rootdir", cassette="rootdir")
        def test_rootdir(pytestconfig):
            ask(f"read {pytestconfig.rootpath}/src/c.txt")
    """)
    cassettes = ("-o", f"lm_cassette_dir={suite.folder}/cassettes")
    suite.record(*cassettes, f"--basetemp={tmp_path_factory.mktemp('one')}/own")
    other = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    result = suite.run(*cassettes, f"--rootdir={other}", f"--basetemp={other}/tmp")
    result.assert_outcomes(passed=2)
    assert suite.asked() == 2


def test_the_temporary_folder_of_the_next_run(suite, monkeypatch):
    """A path in pytest's default folder, which is numbered anew in each run, misses with the normalizer that mends it."""
    prompt = "f'read {tempfile.gettempdir()}/pytest-of-ann/pytest-{os.environ[\"RUN\"]}/test_one0/a.txt'"
    suite.test(f"""
        import os, tempfile

        @pytest.mark.lm_cache
        def test_one():
            ask({prompt})
    """)
    monkeypatch.setenv("RUN", "7")
    suite.record()
    monkeypatch.setenv("RUN", "8")
    suite.run().stdout.fnmatch_lines(['*all tests   lm_normalize = [[]"tmp_path"]*'])
    suite.run("-o", "lm_normalize=tmp_path").assert_outcomes(passed=1)
    assert suite.asked() == 1


BAD = [
    (
        "lm_mode",
        "reply",
        "*ini: lm_mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live.",
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


def test_own_key_function(suite):
    """``lm_key`` takes the dotted path of a function of the suite's own."""
    configure(suite, "toml", lm_key="app:last_word", pythonpath=["."])
    suite.file(
        "app.py",
        (suite.folder / "app.py").read_text()
        + "\ndef last_word(request):\n    return request['messages'][-1]['content'].split()[-1]\n",
    )
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask('say yes')\n")
    suite.record()
    suite.test(
        "@pytest.mark.lm_cache\ndef test_one():\n    assert ask('always answer yes') == 'You said: say yes'\n"
    )
    suite.run().assert_outcomes(passed=1)
