"""Scales: from statistics to a scale table."""
