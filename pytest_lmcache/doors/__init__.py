"""Where calls are seen: one file a library."""
