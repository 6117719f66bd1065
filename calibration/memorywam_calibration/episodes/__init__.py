"""Episodes: recordings by hash and split, their frames, decision points, and what these cover."""
