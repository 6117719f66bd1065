"""Parity: one episode through two rungs, compared tensor by tensor."""
