"""Measuring: stages, memory fill, arms in turns."""
