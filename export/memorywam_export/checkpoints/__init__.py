"""Checkpoints: what a file is, whose names it uses, and its weights, read or refused."""
