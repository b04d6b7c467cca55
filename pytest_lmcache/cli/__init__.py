"""The command ``pytest-lmcache``."""
