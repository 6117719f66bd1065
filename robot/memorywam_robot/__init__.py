"""The loop on the robot: cameras, clock, limits, arms."""
