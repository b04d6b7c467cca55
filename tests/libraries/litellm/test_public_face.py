"""Each function of LiteLLM's public face is recorded, asks nobody, calls others, or is refused for a reason."""

import inspect
import subprocess
import sys

import litellm
import pytest

from pytest_lmcache import UnsupportedCall, use_cassette
from pytest_lmcache.libraries.litellm import public_face
from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION, UNDECORATED
from pytest_lmcache.libraries.litellm.intercept import function_of, wrapper_chain

pytestmark = pytest.mark.usefixtures("nobody_records")
TABLES = (public_face.COMPOSED, public_face.OF_ONE_PROVIDER, public_face.AROUND, public_face.LOCAL)


def public():
    """The functions in the package `litellm`, and of each whether LiteLLM's decorator made it.

    Their names come from a process of its own: the package gets more of them as its parts are imported.
    """
    command = [sys.executable, "-c", "import litellm; print(*dir(litellm))"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        value = getattr(litellm, name)
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__.startswith("litellm"):
            yield name, [cell.cell_contents for _, cell in wrapper_chain(value)]


def test_every_public_function_is_known():
    """The walk finds a function that a new LiteLLM has and no table: look whether it asks a provider."""
    unknown = [
        name
        for name, originals in public()
        if not any(map(function_of, originals))
        and name not in BY_FUNCTION
        and name not in public_face.REASONS
        and (originals or (name not in UNDECORATED and not any(name in table for table in TABLES)))
    ]
    assert not unknown


def test_no_function_is_in_two_tables():
    """What is recorded is not refused, and what asks nobody neither."""
    names = [*BY_FUNCTION, *public_face.REASONS, *(name for table in TABLES for name in table)]
    assert len(names) == len({*names})


def test_what_is_refused_says_why(tmp_path):
    """The error has the reason from the table."""
    with (
        pytest.raises(UnsupportedCall, match="OpenAI has ended the Assistants API"),
        use_cassette(tmp_path / "x.yaml"),
    ):
        litellm.create_thread(custom_llm_provider="openai", api_key="sk-local")
