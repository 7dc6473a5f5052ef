"""Data: sources, operations on images and texts, and batches."""

from big_mm.data import images

__all__ = ["images"]
