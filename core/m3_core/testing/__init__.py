"""Small checkpoints and a fake encoder, for our tests and users'."""

from m3_core.testing.checkpoints import tiny_checkpoint

__all__ = ["tiny_checkpoint"]
