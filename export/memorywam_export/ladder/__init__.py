"""The ladder: the rungs, what breaks memories, and planted faults."""
