"""The page that ``--lm-report`` and ``pytest-lmcache report`` write; imported only when it is asked for."""
