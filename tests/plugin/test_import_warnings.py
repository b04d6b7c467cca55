"""The warnings that LiteLLM's own models raise are kept off, wherever it is imported, and no others."""

import re

import pytest

pytestmark = pytest.mark.slow

CALL = 'litellm.completion(model="openai/x", messages=[{"role": "user", "content": "x"}], mock_response="m")'
OWN = """
from pydantic import BaseModel
from typing_extensions import ReadOnly, TypedDict

class Own(TypedDict):
    name: ReadOnly[str]

class Model(BaseModel):
    own: Own
"""


@pytest.mark.parametrize("where", ["conftest.py", "test_it.py"])
def test_litellm_raises_no_warning(suite, where):
    """LiteLLM imported by a conftest or at collection, and first called in a test, passes where warnings are errors."""
    suite.file("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    suite.file("conftest.py", "import litellm\n" if where == "conftest.py" else "")
    head = "import litellm\n" if where == "test_it.py" else ""
    suite.file("test_it.py", f"{head}\ndef test_one():\n    import litellm\n    {CALL}\n")
    done = suite.spawn("-W", "error")
    assert "1 passed" in done.stdout, done.stdout
    assert "warnings summary" not in done.stdout


def test_the_users_own_warning_stays(suite):
    """A model of the suite's that raises the same warning is told of, and fails where warnings are errors."""
    suite.file(
        "test_it.py", "def test_one():\n    " + OWN.replace("\n", "\n    ") + f"import litellm\n    {CALL}\n"
    )
    told = suite.run("-W", "default").stdout.str()
    assert re.findall(r"Items? .* on TypedDict class '(\w+)'", told) == ["Own"]
    suite.run("-W", "error").assert_outcomes(failed=1)
