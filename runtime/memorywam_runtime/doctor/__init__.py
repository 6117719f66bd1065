"""The doctor: what this machine lacks."""
