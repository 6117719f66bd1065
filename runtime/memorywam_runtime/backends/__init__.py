"""Backend and Engine protocols; choose one by name."""
