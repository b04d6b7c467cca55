"""Takes secrets out of plain data: by name, by well-known format, by value; idempotent.

What is taken out becomes a placeholder, which no rule touches again. It is named by the first of these that
applies:

1. the name it stands under in a mapping or in a URL's query (``api_key``), if it looks like a key;
2. its format (``openai-key``);
3. the label before it in a text (``MISTRAL_API_KEY=...``);
4. the environment variable that holds it, then the argument that it was passed as; of several names the
   alphabetically first;
5. ``pattern``, where an own pattern matched it: patterns may be added and reordered.

Two different questions must stay different, so a placeholder ends in a short hash of what it stands for:
``<redacted:openai-key:3f9a1c>``. The hash is too short to confirm a guess by. Recordings are compared between
machines that hold different keys or none, so the secrets of this machine leave no hash: the values of its
environment, a call's arguments, the attributes of LiteLLM. Nor does what an own pattern matches. Under a
credential's name in a call's arguments and in headers, any value becomes the same placeholder, and so does a
missing one.

What a model reads or writes is told apart by its value alone: ``{"password": "hunter2"}`` in a message, in a
schema or in a tool call's arguments stays, and a long key beside ``"api_key"`` does not.
"""

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.names import HASHLESS_PLACEHOLDER, is_secret_name
from pytest_lmcache.redact.redactor import Redactor
from pytest_lmcache.redact.scan import shown_in_a_name

__all__ = ["DUMMY_KEY", "HASHLESS_PLACEHOLDER", "Redactor", "is_secret_name", "shown_in_a_name"]
