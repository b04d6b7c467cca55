"""``lm_disk_dir``: the folder of the disk layer."""

import pytest
from helpers import ALONE

pytestmark = pytest.mark.usefixtures("default_layers")


def test_where_the_disk_layer_lies(suite):
    """What was paid for lies in pytest's own cache folder, or where ``lm_disk_dir`` says, and outlives a failure."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
            assert False
    """)
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert (suite.folder / ".pytest_cache/d/lmcache").is_dir()
    assert (suite.folder / ".pytest_cache/.gitignore").is_file()
    assert suite.asked() == 1
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert suite.asked() == 0
    suite.file("pytest.ini", "[pytest]\nlm_disk_dir = elsewhere\n")
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert (suite.folder / "elsewhere").is_dir()
    assert suite.asked() == 1


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("lm_disk_dir = ~/answers", "home/answers"),
        ("lm_disk_dir = $HOME/answers", "home/answers"),
        ("lm_disk_dir = answers", "answers"),
        ("cache_dir = ~/pytest", "home/pytest/d/lmcache"),
    ],
)
def test_folder_of_the_disk_layer(suite, monkeypatch, line, folder):
    """The folder is under rootdir, or where ``~`` or a variable say; nothing is made elsewhere."""
    monkeypatch.setenv("HOME", str(suite.folder / "home"))
    suite.file("pytest.ini", f"[pytest]\n{line}\n")
    suite.options = (*ALONE, "-p", "cacheprovider")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
    """)
    suite.record().assert_outcomes(passed=1)
    assert [path.parent.parent for path in suite.folder.rglob("cache.db")] == [suite.folder / folder]
