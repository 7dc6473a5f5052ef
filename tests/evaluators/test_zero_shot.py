"""Classes named by several texts, in two languages."""

import numpy as np
import pytest

from big_mm.data.evaluation_sets import ClassificationSet
from big_mm.evaluators.zero_shot import ZeroShot

IMAGES = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]]
WORDS = {
    "animal": [1.0, 0.0],
    "beast": [0.6, 0.8],
    "plant": [0.0, 1.0],
    "Tier": [0.0, 1.0],
    "Pflanze": [1.0, 0.0],
}


def kingdoms():
    return ClassificationSet(
        images=[0, 1, 2, 3],
        labels=np.array([0, 0, 1, 0]),
        class_names=["animals", "plants"],
        class_texts={
            "en": [["animal", "beast"], ["plant"]],
            "de": [["Tier"], ["Pflanze"]],
        },
    )


def test_by_hand(by_hand):
    encode = by_hand(IMAGES, WORDS)
    found = dict(ZeroShot(encode=encode, data=kingdoms()).run(None))
    # The English class animals is (.8, .4) / |.| = (.894, .447): scores of the images
    # .894, .984, .447, .894 against plants' 0, .6, 1, .8: all right. "animal" alone
    # would lose image 3 (.6 against .8).
    assert found["en/accuracy"] == 1
    assert found["en/mean_per_class_recall"] == 1
    # German has them the wrong way round: images 0, 1, 2 are wrong, image 3 is right.
    assert found["de/accuracy"] == 0.25
    assert found["de/mean_per_class_recall"] == pytest.approx(1 / 6)
    assert found["mean/accuracy"] == 0.625
    assert found["family/Germanic/accuracy"] == 0.625
    assert found["majority"] == 0.75
    assert encode.calls.count("image") == 1


def test_a_language_that_is_not_there(by_hand):
    evaluator = ZeroShot(
        encode=by_hand(IMAGES, WORDS), data=kingdoms(), languages=("fr",)
    )
    with pytest.raises(ValueError, match="no texts in 'fr'"):
        list(evaluator.run(None))
