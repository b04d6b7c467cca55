"""Work on cassettes between runs, without pytest: check, scan, compare, prune, move, recompute keys."""
