"""Quantize a bundle from recorded episodes."""
