"""Where a test's cassette lies: beside no other test's, inside the folder, whatever the test is called."""

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


@pytest.mark.slow
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
