"""Takes secrets out of plain data: by their names, by well-known formats, by their values. Idempotent.

A secret becomes a placeholder, which no rule touches again. The first of these that applies names it:

1. the name that it stands under in a mapping or in a URL's query (``api_key``), if it looks like a key;
2. its format (``openai-key``);
3. the label before it in a text (``MISTRAL_API_KEY=...``);
4. the environment variable that holds it, then the argument that it was passed as; of several names the
   alphabetically first;
5. ``pattern``, if a custom pattern matched it: patterns may be added and reordered.

Two different questions must stay different, so a placeholder ends in a short hash of what it stands for:
``<redacted:openai-key:3f9a1c>``. The hash is too short to confirm a guess. Recordings are compared between machines
that hold different keys, or none, so the secrets of this machine have no hash: the values of its environment, a call's
arguments, the attributes of LiteLLM. What a custom pattern matches has none either. In headers, and under a
credential's name in a call's arguments, any value becomes the same placeholder, and so does a missing one.

In what a model reads or writes, only values count: ``{"password": "hunter2"}`` stays in a message, in a schema and in
a tool call's arguments, and a key beside ``"api_key"`` does not.
"""

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.names import is_secret_name
from pytest_lmcache.redact.placeholders import HASHLESS_PLACEHOLDER
from pytest_lmcache.redact.redactor import Redactor
from pytest_lmcache.redact.scan import redact_file_name

__all__ = ["DUMMY_KEY", "HASHLESS_PLACEHOLDER", "Redactor", "is_secret_name", "redact_file_name"]
