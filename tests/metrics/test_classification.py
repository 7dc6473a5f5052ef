import json
from pathlib import Path

import numpy as np
import pytest

from big_mm.metrics import classification

GOLDEN = Path(__file__).parents[1] / "golden"


def test_class_embeddings_by_hand():
    # Class 0 is named along x and along y, whatever their norms; class 1 by one text.
    text = np.array([[2.0, 0.0], [0.0, 0.5], [0.0, -3.0]])
    value = classification.class_embeddings(text, np.array([0, 0, 1]))
    np.testing.assert_allclose(value, [[0.5**0.5, 0.5**0.5], [0, -1]], rtol=1e-15)


def test_order_of_texts_does_not_matter():
    rng = np.random.default_rng(0)
    text, owner = rng.normal(size=(9, 4)).astype(np.float32), np.arange(9) % 4
    order = rng.permutation(9)
    value = classification.class_embeddings(text, owner)
    assert value.dtype == np.float32
    again = classification.class_embeddings(text[order], owner[order])
    np.testing.assert_allclose(again, value, rtol=1e-6)


def test_bad_texts_are_refused():
    text = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"classes \[1\] have none"):
        classification.class_embeddings(text, np.array([0, 2, 2]))
    with pytest.raises(ValueError, match="from 0"):
        classification.class_embeddings(text, np.array([0, -1, 0]))
    text[2] = 0
    with pytest.raises(ValueError, match=r"texts \[2\] have no direction"):
        classification.class_embeddings(text, np.array([0, 0, 0]))
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    with pytest.raises(ValueError, match=r"classes \[0\] have no direction"):
        classification.class_embeddings(opposite, np.array([0, 0]))


SCORES = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
LABELS = np.array([0, 1, 1, 1])


def test_accuracy_by_hand():
    # Labels come first, first, second and third.
    values = [classification.accuracy(SCORES, LABELS, k) for k in (1, 2, 3)]
    assert values == [0.5, 0.75, 1.0]


def test_mean_per_class_recall_by_hand():
    # Class 0: 1 of 1. Class 1: 1 of 3. Class 2 has no example and counts nowhere.
    value = classification.mean_per_class_recall(SCORES, LABELS)
    np.testing.assert_allclose(value, (1 + 1 / 3) / 2)


def test_tie_goes_to_the_lower_class():
    scores, labels = np.zeros((3, 3)), np.arange(3)
    assert classification.accuracy(scores, labels) == 1 / 3
    assert classification.accuracy(scores, labels, 2) == 2 / 3
    assert classification.mean_per_class_recall(scores, labels) == 1 / 3


def test_bad_scores_and_labels_are_refused():
    for measure in (classification.accuracy, classification.mean_per_class_recall):
        with pytest.raises(ValueError, match="got none"):
            measure(SCORES[:0], LABELS[:0])
        with pytest.raises(ValueError, match="classes 0 to 2: got 0 to 3"):
            measure(SCORES, LABELS + np.array([0, 0, 0, 2]))
        with pytest.raises(ValueError, match="classes 0 to 2: got -1 to 0"):
            measure(SCORES, LABELS - 1)
        with pytest.raises(ValueError, match="12 of 12 scores are NaN"):
            measure(SCORES * np.nan, LABELS)
    with pytest.raises(ValueError, match="from 1"):
        classification.accuracy(SCORES, LABELS, 0)


def test_babel_imagenet_accuracy():
    golden = np.load(GOLDEN / "babel_eval.npz")
    text, image = (
        golden["acc/text_embeddings_class_major_CxP"],
        golden["acc/image_embeddings"],
    )
    prompts = int(golden["acc/num_prompts"])
    owner = np.repeat(np.arange(len(text) // prompts), prompts)
    labels = np.repeat(np.arange(len(text) // prompts), golden["acc/images_per_class"])
    classes = classification.class_embeddings(text, owner)
    value = classification.accuracy(image @ classes.T, labels)
    assert value == golden["acc/accuracy_ensemble"]
    first = classification.class_embeddings(text[::prompts], owner[::prompts])
    value = classification.accuracy(image @ first.T, labels)
    assert value == golden["acc/accuracy_single_prompt0"]


def test_clip_benchmark_accuracy():
    golden = np.load(GOLDEN / "clip_benchmark_metrics" / "inputs.npz")
    text = (GOLDEN / "clip_benchmark_metrics" / "metrics.json").read_text()
    expected = json.loads(text)
    pair = golden["logits"], golden["target"]
    assert classification.accuracy(*pair) == expected["acc1"]
    assert classification.accuracy(*pair, 5) == expected["acc5"]
    value = classification.mean_per_class_recall(*pair)
    np.testing.assert_allclose(value, expected["mean_per_class_recall"], rtol=1e-12)
