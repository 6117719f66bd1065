"""The graphs run and counted by torch."""
