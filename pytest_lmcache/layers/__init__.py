"""The cache behind the cassettes: memory, disk and Redis layers."""
