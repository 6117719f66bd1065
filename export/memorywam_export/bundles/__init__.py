"""Bundles: graphs, weights, prompts and manifest in one directory."""
