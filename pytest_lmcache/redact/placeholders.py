"""The placeholders that redaction puts in the place of secrets."""

from __future__ import annotations

import hashlib
import re

PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}(?::[0-9a-f]{6}(?:-[0-9]+)?)?>")
HASHLESS_PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}>")
"""A placeholder for a secret of the machine. Before placeholders had hashes, it stood for any secret."""


def placeholder_for(name: str, hashed: str = "") -> str:
    """Return the placeholder of a secret; ``hashed`` is the part of it that is not known to be the machine's."""
    suffix = f":{_short_hash(hashed)}" if hashed else ""
    return f"<redacted:{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:64]}{suffix}>"


def _short_hash(secret: str) -> str:
    """24 bits, the same for a text and for that text within JSON, such as a tool call's arguments."""
    text = re.sub(r"\\+[nr]", "\n", secret)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
