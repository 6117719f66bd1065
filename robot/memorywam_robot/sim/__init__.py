"""A simulated two-arm robot with tasks that need memory."""

import os

# MuJoCo chooses how to render when it is first imported; EGL is the way that needs no display.
os.environ.setdefault("MUJOCO_GL", "egl")
