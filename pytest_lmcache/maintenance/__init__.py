"""What keeps cassettes in order between runs: check, scan, compare, prune, move, change keys; without pytest."""
