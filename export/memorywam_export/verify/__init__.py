"""Verification: a bundle against its checkpoint, judged."""
