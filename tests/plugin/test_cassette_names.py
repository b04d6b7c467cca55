"""Where a test's cassette lies: beside no other test's, inside the folder, whatever the test is called."""

import shutil
from pathlib import Path

import pytest

ODD = [
    "a/b",
    "../../up",
    "..",
    "/etc/x",
    "a:b",
    "[x]",
    "a::b",
    "ümlaut",
    "雪",
    "a\\b",
    "con",
    "x.",
    " x ",
    "%2F",
    "a b",
    'q"',
    "*?<>|",
    "\n",
    "\x00",
    "\ud800",
    "",
    "x" * 300,
    "x" * 299 + "y",
]


def test_odd_parameters(suite):
    """Each odd parameter has a file of its own, inside the folder, and finds it again."""
    suite.test(f"""
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("x", {ODD!r}, ids=lambda x: x)
        def test_it(x):
            ask(repr(x))
    """)
    suite.record()
    cassettes = suite.cassettes()
    assert len(cassettes) == len(ODD)
    assert all(Path(name).parent == Path("test_it") for name in cassettes)
    assert all(len(Path(name).name.encode()) <= 255 for name in cassettes)
    known = {"app.py", "test_it.py", "cassettes", "__pycache__"}
    assert not [path for path in suite.folder.iterdir() if path.name not in known]
    suite.asked()
    suite.run().assert_outcomes(passed=len(ODD))
    assert suite.asked() == 0


def test_tests_of_the_same_name(suite):
    """Tests of one name in several classes, files and folders have a file each."""
    suite.file(
        "pytest.ini", "[pytest]\npythonpath = .\naddopts = --import-mode=importlib --doctest-modules\n"
    )
    text = """
        pytestmark = pytest.mark.lm_cache

        def test_it():
            ask()

        class TestA:
            def test_it(self):
                ask()

            class TestIt:
                def test_it(self):
                    ask()

        class TestIt:
            def test_it(self):
                ask()
    """
    names = ["test_a.py", "test_it.py", "a/test_a.py", "a/b/test_a.py", "a b/test_a.py"]
    for name in names:
        suite.test(text, name=name)
    suite.record()
    assert suite.asked() == len(suite.cassettes()) == 4 * len(names)


def test_doctest_named_like_a_method(suite):
    """A docstring's examples never share a file with a test method of the same dotted name."""
    suite.file(
        "pytest.ini", "[pytest]\nlm_auto = true\naddopts = --doctest-modules\npython_files = TestIt.py\n"
    )
    suite.test(
        "class TestIt:\n    def test_it(self):\n        ask('method')\n"
        "def test_it():\n    '''\n    >>> ask('docstring')\n    'You said: docstring'\n    '''\n",
        name="TestIt.py",
    )
    suite.record()
    assert suite.cassettes() == [
        "TestIt/DoctestItem TestIt.test_it.yaml",
        "TestIt/TestIt.test_it.yaml",
    ]


@pytest.mark.parametrize("where", ["sub", ".", "elsewhere"])
def test_place_does_not_depend_on_where_pytest_starts(suite, monkeypatch, where):
    """Cassettes lie under rootdir, wherever pytest is started and however the test is named to it."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n", name="sub/test_it.py")
    (suite.folder / "elsewhere").mkdir()
    monkeypatch.chdir(suite.folder / where)
    suite.record(
        f"--rootdir={suite.folder}",
        "-c",
        str(suite.folder / "pytest.ini"),
        str(suite.folder / "sub/test_it.py"),
    )
    assert suite.cassettes() == ["sub/test_it/test_one.yaml"]


def test_file_outside_of_rootdir(suite):
    """A test file outside of rootdir has its cassette in the folder that holds both."""
    suite.file("inner/pytest.ini", "[pytest]\npythonpath = ..\n")
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    suite.record("-c", "inner/pytest.ini", "--rootdir=inner", "test_it.py")
    assert suite.cassettes() == ["test_it/test_one.yaml"]
    assert not (suite.folder / "inner/cassettes").exists()


def test_other_folder(suite):
    """``lm_cassette_dir`` moves all cassettes, and a mark's ``cassette_dir`` those of a test."""
    suite.file("pytest.ini", "[pytest]\nlm_cassette_dir = tests/tapes\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()

        @pytest.mark.lm_cache(cassette_dir="mine")
        def test_two():
            ask()
    """)
    suite.record()
    assert (suite.folder / "tests/tapes/test_it/test_one.yaml").is_file()
    assert (suite.folder / "mine/test_it/test_two.yaml").is_file()
    assert suite.cassettes() == []


@pytest.mark.parametrize("folder", ["../out", "{out}", "tapes/../../out"])
def test_a_folder_outside_of_rootdir_is_refused(suite, folder):
    """The configuration of a checkout cannot have files written elsewhere on the machine."""
    out = suite.folder.parent / "out"
    folder = folder.format(out=out)
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    suite.file("pytest.ini", f"[pytest]\nlm_cassette_dir = {folder}\n")
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = (
        f"ERROR: ini: lm_cassette_dir: the cassette folder {folder!r} lies outside rootdir, {suite.folder}."
    )
    result.stderr.fnmatch_lines([f"{said}*-o lm_cassette_dir={out}"])
    suite.file("pytest.ini", "[pytest]\n")
    suite.test(f"@pytest.mark.lm_cache(cassette_dir={folder!r})\ndef test_one():\n    ask()\n")
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: test_it.py::test_one: the cassette folder {folder!r} lies outside*"]
    )
    assert suite.run("--lm-record", "-o", "lm_cassette_dir=../out").ret == pytest.ExitCode.USAGE_ERROR
    assert not out.exists()
    assert suite.asked() == 0


def test_a_folder_that_the_command_line_names_may_lie_anywhere(suite, tmp_path_factory):
    """Who types an absolute path means it, and so does code that gives one to ``use_cassette``."""
    out = tmp_path_factory.mktemp("out of the way")
    suite.test(f"""
        from pytest_lmcache import use_cassette

        @pytest.mark.lm_cache
        def test_one():
            ask()

        def test_two():
            with use_cassette({str(out / "two.yaml")!r}, mode="once"):
                ask("two")
    """)
    suite.record("-o", f"lm_cassette_dir={out}")
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.yaml")} == {
        "two.yaml",
        "test_it/test_one.yaml",
    }
    suite.run("-o", f"lm_cassette_dir={out}").assert_outcomes(passed=2)
    assert suite.cassettes() == []


@pytest.mark.parametrize("linked", ["file", "folder", "cassettes", "dangling"])
def test_nothing_is_written_through_a_link_that_leads_out(suite, tmp_path_factory, linked):
    """A link in a checkout cannot have a file elsewhere on the machine overwritten."""
    out = tmp_path_factory.mktemp("out")
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    suite.record()
    kept = (suite.folder / "cassettes/test_it/test_one.yaml").read_bytes()
    (out / "test_it").mkdir()
    for name in ("one.yaml", "test_one.yaml", "test_it/test_one.yaml"):
        (out / name).write_bytes(kept)
    place, target = {
        "file": ("cassettes/test_it/test_one.yaml", out / "one.yaml"),
        "folder": ("cassettes/test_it", out),
        "cassettes": ("cassettes", out),
        "dangling": ("cassettes/test_it/test_one.yaml", out / "new.yaml"),
    }[linked]
    place = suite.folder / place
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(target)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask('other')\n")
    for mode in ("record", "rewrite", "once"):
        result = suite.run(f"--lm-mode={mode}")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["**test_one.yaml is not recorded: a link leads from there to *"])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if linked != "dangling":
        suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
        suite.run().assert_outcomes(passed=1)


def test_links_within_the_folder_are_followed(suite):
    """A cassette may be a link to another one beside it, and stays one."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    place = suite.folder / "cassettes/test_it/test_one.yaml"
    place.parent.mkdir(parents=True)
    place.symlink_to("../real.yaml")
    suite.record()
    assert place.is_symlink()
    assert (suite.folder / "cassettes/real.yaml").is_file()
    suite.run().assert_outcomes(passed=1)
