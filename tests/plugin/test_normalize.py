"""``lm_normalize``: keys leave out what changes from run to run, and a miss names what would do so."""

import tempfile

import pytest
from helpers import configure


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


CHANGING = {
    "uuid": ["f'run {uuid.uuid4()}'", ["uuid"]],
    "date": ["f'It is {moment:%A, %d %B %Y}.'", ["date"]],
    "iso": ["f'It is {moment.isoformat()}.'", ["date"]],
    "epoch": ["f'now={moment.timestamp():.0f}'", ["epoch"]],
    "made folder": ["f'read {tempfile.mkdtemp()}/a.txt'", ["tmp_path"]],
    "two": ["f'run {uuid.uuid4()} at {moment.isoformat()}'", ["uuid", "date"]],
    "run id": ["f'run {moment.timestamp():.0f}x'", ["re:run (?=[A-Za-z]*[0-9])[0-9a-z]+"]],
    "number": ["f'take {moment.timestamp() % 977:.0f} steps'", []],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CHANGING)
@pytest.mark.parametrize("place", ["this test", "all tests"])
def test_a_normalizer_mends_what_changes_from_run_to_run(suite, monkeypatch, case, place):
    """A miss over an id, a date or a folder ends in the line to paste, with which the recording answers."""
    text, normalizers = CHANGING[case]
    body = f"""
        import os, tempfile, uuid
        from datetime import datetime

        {{mark}}
        def test_one(lm_cache):
            moment = datetime.fromtimestamp(int(os.environ["MOMENT"]))
            ask({text})
    """
    suite.test(body.replace("{mark}", ""))
    monkeypatch.setenv("MOMENT", "1764460800")
    suite.record()
    monkeypatch.setenv("MOMENT", "1764633661")
    result = suite.run()
    lines = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E  ")]
    if not normalizers:
        assert lines[-1].startswith("Record it:  pytest --lm-record ")
        return
    assert "If it changes from run to run, normalize it. Nothing needs to be recorded again:" in lines[-3:]
    pasted = next(line.removeprefix(place).strip() for line in lines[-2:] if line.startswith(place))
    if place == "this test":
        suite.test(body.replace("{mark}", pasted))
    else:
        suite.file("pyproject.toml", f"[tool.pytest]\n{pasted}\n")
    [told] = [line for line in result.outlines if line.startswith("Normalize:  lm_normalize = ")]
    assert all(name in told for name in normalizers)
    assert not [line for line in result.outlines if line.startswith("Record:")]
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_the_normalizers_of_an_ini_file(suite, monkeypatch):
    """What to paste has the form of the file that pytest reads, which is not always pyproject.toml."""
    suite.file("pytest.ini", "[pytest]\n")
    suite.test("""
        import os

        @pytest.mark.lm_cache
        def test_one():
            ask(os.environ["SAID"])
    """)
    monkeypatch.setenv("SAID", "5b3f5b6e-8b7a-4c43-9d68-1d1ad9e3a0f1 of 2026-11-29")
    suite.record()
    monkeypatch.setenv("SAID", "0c7f0f0e-1b9a-4f0e-8a0c-5d0a6f0b7c11 of 2026-11-30")
    lines = [line.removeprefix("E").strip() for line in suite.run().outlines if line.startswith("E  ")]
    assert lines[-4] == "all tests   in pytest.ini:"
    suite.file("pytest.ini", "\n  ".join(["[pytest]", *lines[-3:]]).replace("\n  lm_", "\nlm_"))
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("setting", ["", 'lm_normalize = ["uuid"]'])
def test_a_normalizer_mends_a_block(suite, monkeypatch, setting):
    """A block has settings of its own, so what to paste is its call; the configuration does not hold for it."""
    suite.file("pyproject.toml", f"[tool.pytest]\n{setting}\n")
    body = """
        import os
        from pytest_lmcache import use_cassette

        def test_one():
            with {call}:
                ask(os.environ["SAID"])
    """
    suite.test(body.replace("{call}", 'use_cassette("x.yaml", mode="record")'))
    monkeypatch.setenv("SAID", "5b3f5b6e-8b7a-4c43-9d68-1d1ad9e3a0f1")
    suite.run().assert_outcomes(passed=1)
    monkeypatch.setenv("SAID", "0c7f0f0e-1b9a-4f0e-8a0c-5d0a6f0b7c11")
    suite.test(body.replace("{call}", 'use_cassette("x.yaml")'))
    result = suite.run()
    pasted = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E  ")][-1]
    assert pasted == 'use_cassette("x.yaml", normalize=["uuid"])'
    assert f"Normalize:  {pasted}" in result.outlines
    suite.test(body.replace("{call}", pasted))
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 1


def test_ids_that_an_agent_makes_itself_are_normalized(suite):
    """A tool's result with a new id each time: the turn that a normalizer lets answer is shown, not the one before."""
    suite.test(
        """
        import uuid

        def test_one(lm_cache):
            asked = said("Weather?")
            ask(messages=asked)
            called = {"name": "weather", "arguments": "{}"}
            named = uuid.uuid4().hex[:9]
            calls = [{"id": named, "type": "function", "function": called}]
            asked += [{"role": "assistant", "tool_calls": calls}]
            ask(messages=[*asked, {"role": "tool", "tool_call_id": named, "content": "sunny"}])
    """.replace("ask(messages=", "litellm.completion(**SETTINGS, messages=")
    )
    suite.record()
    output = suite.run().stdout.str()
    assert '@pytest.mark.lm_cache(normalize=["tool_call_id"])' in output
    assert "only in the call" not in output
    suite.file("pytest.ini", "[pytest]\nlm_normalize = tool_call_id\n")
    suite.run().assert_outcomes(passed=1)


def test_normalizers_add_to_those_that_are_set(suite, monkeypatch):
    """The line to paste keeps the normalizers that the test has, own patterns too."""
    suite.test(r"""
        import os

        @pytest.mark.lm_cache(normalize=["re:run-\\d+", "epoch"])
        def test_one():
            ask(os.environ["SAID"])
    """)
    monkeypatch.setenv("SAID", "run-1 of 2026-11-29")
    suite.record()
    monkeypatch.setenv("SAID", "run-2 of 2026-11-30")
    mark = r'@pytest.mark.lm_cache(normalize=["re:run-\\d+", "epoch", "date"])'
    assert mark in suite.run().stdout.str()


@pytest.mark.parametrize("elsewhere", ["/home/bob/shop", "C:\\work\\shop"])
def test_a_folder_of_this_machine_is_named(suite, monkeypatch, elsewhere):
    """What another machine recorded with its own checkout's folder misses; the miss says how to record it for both."""
    suite.test("""
        import os

        @pytest.mark.lm_cache
        def test_one(pytestconfig):
            ask(f"read {os.environ.get('ELSEWHERE') or pytestconfig.rootpath}/a.py")
    """)
    monkeypatch.setenv("ELSEWHERE", elsewhere)
    suite.record()
    monkeypatch.delenv("ELSEWHERE")
    suite.run().stdout.fnmatch_lines(
        [
            "E*The call names a folder of this machine. Before you record it, set lm_normalize = *rootdir*",
            "E*Record it:  pytest --lm-record *",
        ]
    )
