"""Engines: graphs compiled for one device, and audited."""
