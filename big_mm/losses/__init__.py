"""Losses: pure functions of arrays, in nats of each example."""

from big_mm.losses import contrastive

__all__ = ["contrastive"]
