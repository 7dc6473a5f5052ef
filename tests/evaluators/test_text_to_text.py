"""Translations that meet, and some that do not."""

import numpy as np
import pytest

from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.evaluators.text_to_text import TextToText

WORDS = {
    "cat": [1.0, 0.0],
    "dog": [0.0, 1.0],
    "Katze": [0.8, 0.6],
    "Hund": [1.0, 0.0],  # nearer to cat than to dog
    "chat": [0.6, 0.8],  # nearer to dog
    "oiseau": [1.0, 0.0],
}


def animals():
    return RetrievalSet(
        images=[0, 1, 2],
        texts={"en": ["cat", "dog"], "de": ["Hund", "Katze"], "fr": ["oiseau", "chat"]},
        owners={
            "en": np.array([0, 1]),
            "de": np.array([1, 0]),
            "fr": np.array([2, 0]),  # no English caption of image 2
        },
    )


def test_by_hand(by_hand):
    encode = by_hand([], WORDS)
    found = dict(TextToText(encode=encode, data=animals(), ks=(1, 2)).run(None))
    assert found["de/to_en/recall_at_1"] == 0.5
    assert found["fr/to_en/recall_at_1"] == 0  # of the one caption with a translation
    assert found["fr/to_en/recall_at_2"] == 1
    assert found["mean/to_en/recall_at_1"] == 0.25
    assert found["family/Germanic/to_en/recall_at_1"] == 0.5
    assert "en/to_en/recall_at_1" not in found
    assert "image" not in encode.calls


def test_all_pairs(by_hand):
    evaluator = TextToText(
        encode=by_hand([], WORDS), data=animals(), targets=("en", "de", "fr")
    )
    found = dict(evaluator.run(None))
    # cat and Hund, dog and Katze are nearer than they should be; chat finds Katze.
    assert found["en/to_de/recall_at_1"] == 0
    assert found["fr/to_de/recall_at_1"] == 1
    assert found["mean/to_de/recall_at_1"] == 0.5
    assert len([name for name in found if name[2:6] == "/to_"]) == 6


def test_nothing_to_ask(by_hand):
    evaluator = TextToText(
        encode=by_hand([], WORDS), data=animals(), languages=("en",), targets=("en",)
    )
    with pytest.raises(ValueError, match="no caption in en has a translation in en"):
        list(evaluator.run(None))
