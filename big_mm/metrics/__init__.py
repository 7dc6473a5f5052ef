"""Metrics: pure functions of scores and ranks, in NumPy."""

from big_mm.metrics import classification, retrieval

__all__ = ["classification", "retrieval"]
