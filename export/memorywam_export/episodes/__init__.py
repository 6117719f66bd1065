"""What whole episodes tell: drift of memory, success in the closed loop."""
