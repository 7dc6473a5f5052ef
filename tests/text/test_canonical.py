from pathlib import Path

import numpy as np
import pytest

from big_mm.text.canonical import canonicalize

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "bv_pp_tiny.npz")


@pytest.mark.parametrize("keep_braces", [False, True])
def test_equals_big_vision(keep_braces):
    expected = GOLDEN["canon/out_keep_braces" if keep_braces else "canon/out"]
    for text, want in zip(GOLDEN["canon/in"].tolist(), expected.tolist(), strict=True):
        assert canonicalize(text, keep_braces=keep_braces) == want


def test_by_hand():
    assert canonicalize("A photo_of\ta  {Dog}, {}!", keep_braces=True) == (
        "a photo of a dog {}"
    )
    assert canonicalize("Élan vital — 100%") == "élan vital — 100"
    assert canonicalize("") == ""


def test_twice_is_once():
    for text in GOLDEN["canon/in"].tolist():
        once = canonicalize(text)
        assert canonicalize(once) == once
