"""The libraries whose calls are recorded, and what is common to them."""

LIBRARIES = ("litellm", "dspy")
"""The packages that are intercepted when they are imported; each may be there without the other."""
