"""DSPy's own engine: interception, and its responses and streams as plain data."""
