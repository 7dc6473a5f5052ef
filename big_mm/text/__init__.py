"""Texts: languages, canonical forms and tokenizers."""

from big_mm.text import canonical, languages, tokenizers

__all__ = ["canonical", "languages", "tokenizers"]
