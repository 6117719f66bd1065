"""A bundle to a quantized bundle."""
