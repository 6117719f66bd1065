"""The recipe that trains the checkpoint which ships: `python -m tests.demo_training`."""
