"""Bisection: the first operator of a graph that is wrong."""
