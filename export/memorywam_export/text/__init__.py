"""Instructions: embedded, stored, listed."""
