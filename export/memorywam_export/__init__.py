"""Split a trained MemoryWAM into graphs with explicit memory, and bundle them."""
