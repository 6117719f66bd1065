"""Judgement: a quantized bundle beside the float one, checked and told."""
