"""The cassette: its file, its documents, their YAML text, and what a test adds to it."""
