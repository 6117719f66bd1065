"""Replay: episodes through the real loop, wide or rounded, and the statistics of what is seen."""
