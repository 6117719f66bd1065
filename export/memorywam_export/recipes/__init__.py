"""Recipes of quantization, and the devices that can run them."""
