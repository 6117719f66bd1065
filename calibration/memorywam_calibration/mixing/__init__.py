"""Mixing: a recipe for each product."""
