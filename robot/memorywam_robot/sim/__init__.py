"""A simulated two-arm robot with tasks that need memory."""
