"""``lm_cassette_dir``: the folder of the cassettes, and what may not lie outside of it."""

import shutil

import pytest


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
    said = f"ERROR: ini: lm_cassette_dir: the cassette folder {folder!r} is outside rootdir, {suite.folder}."
    result.stderr.fnmatch_lines([f"{said}*-o lm_cassette_dir={out}"])
    suite.file("pytest.ini", "[pytest]\n")
    suite.test(f"@pytest.mark.lm_cache(cassette_dir={folder!r})\ndef test_one():\n    ask()\n")
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: test_it.py::test_one: the cassette folder {folder!r} is outside*"])
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


@pytest.mark.slow
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


TEST = """
import sys; sys.path.insert(0, {folder!r})
import pytest
from app import ask

@pytest.fixture(scope="module")
def shared():
    return ask("shared")

@pytest.mark.lm_cache
def test_one(shared):
    ask("one")
"""


def files(suite):
    """Where all cassettes of a suite lie."""
    return sorted(path.relative_to(suite.folder).as_posix() for path in suite.folder.rglob("*.yaml"))


def test_beside_the_test_file(suite):
    """``{test_dir}`` in ``lm_cassette_dir`` is the folder of the test file, whatever rootdir is."""
    suite.file("pytest.ini", "[pytest]\nlm_cassette_dir = {test_dir}/tapes\n")
    suite.file("sub/test_it.py", TEST.format(folder=str(suite.folder)))
    suite.file(
        "sub/conftest.py",
        "import pytest\n\n@pytest.fixture(scope='session')\ndef far():\n    from app import ask\n    ask('far')\n",
    )
    suite.file(
        "sub/test_named.py",
        "import pytest\nfrom app import ask\n\n@pytest.mark.lm_cache(cassette='poems')\ndef test_two(far):\n    ask('two')\n",
    )
    suite.record()
    recorded = files(suite)
    assert recorded == [
        "sub/tapes/@session.far.yaml",
        "sub/tapes/poems.yaml",
        "sub/tapes/test_it/@module.shared.yaml",
        "sub/tapes/test_it/test_one.yaml",
    ]
    suite.asked()
    suite.run(f"--rootdir={suite.folder / 'sub'}", "-c", "pytest.ini", "sub").assert_outcomes(passed=2)
    assert suite.asked() == 0
