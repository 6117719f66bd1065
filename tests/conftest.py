"""Versions in the header, and what many tests share."""
