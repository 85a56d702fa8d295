"""Waiting for new images: what sensor and trigger ask, and how they decide."""
