"""Retrieval on embeddings small enough to rank by eye."""

import numpy as np
import pytest

from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.evaluators.core import Encode, Evaluator
from big_mm.evaluators.retrieval import Retrieval

IMAGES = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
WORDS = {
    "cat": [1.0, 0.0, 0.0],  # its own image first
    "dog": [0.8, 0.6, 0.0],  # its own image (1) second, after image 0
    "sun": [0.0, 0.6, 0.8],  # its own image (2) first
    "Katze": [0.6, 0.8, 0.0],  # image 0 is second
    "Hund": [0.0, 1.0, 0.0],  # first
    "Sonne": [0.8, 0.6, 0.0],  # image 2 is third
}


def german_and_english(**kwargs):
    return RetrievalSet(
        images=[0, 1, 2],
        texts={"en": ["cat", "dog", "sun"], "de": ["Katze", "Hund", "Sonne"]},
        owners={"en": np.array([0, 1, 2]), "de": np.array([0, 1, 2])},
        **kwargs,
    )


def test_by_hand(by_hand):
    evaluator = Retrieval(
        encode=by_hand(IMAGES, WORDS), data=german_and_english(), ks=(1, 2)
    )
    found = dict(evaluator.run(None))
    # Ranks of the right image: en 1, 2, 1; de 2, 1, 3.
    assert found["en/text_to_image/recall_at_1"] == pytest.approx(2 / 3)
    assert found["en/text_to_image/recall_at_2"] == 1
    assert found["en/text_to_image/median_rank"] == 1
    assert found["de/text_to_image/recall_at_1"] == pytest.approx(1 / 3)
    assert found["de/text_to_image/recall_at_2"] == pytest.approx(2 / 3)
    assert found["de/text_to_image/median_rank"] == 2
    assert found["mean/text_to_image/recall_at_1"] == pytest.approx(1 / 2)
    assert found["mean/text_to_image/median_rank"] == 1.5
    # Scores of English cat, dog, sun for image 0: 1, .8, 0; for image 1: 0, .6, .6, a
    # tie that counts against dog; for image 2: 0, 0, .8. Ranks 1, 2, 1.
    assert found["en/image_to_text/recall_at_1"] == pytest.approx(2 / 3)
    # German: image 0: .6, 0, .8 -> 2; image 1: .8, 1, .6 -> 1; image 2: all 0 -> 3.
    assert found["de/image_to_text/recall_at_1"] == pytest.approx(1 / 3)
    # Population standard deviation of (1, 2), (2, 1), (1, 3): .5, .5, 1.
    assert found["mean/text_to_image/mean_rank_variance"] == pytest.approx(2 / 3)


def test_families_have_their_own_means(by_hand):
    evaluator = Retrieval(encode=by_hand(IMAGES, WORDS), data=german_and_english())
    found = dict(evaluator.run(None))
    name = "text_to_image/recall_at_1"
    assert found[f"family/Germanic/{name}"] == found[f"mean/{name}"]
    without = Retrieval(
        encode=by_hand(IMAGES, WORDS), data=german_and_english(), families=False
    )
    assert not any(name.startswith("family/") for name, _ in without.run(None))


def test_subsets_ask_among_all_images(by_hand):
    data = german_and_english(subsets={"pets": np.array([True, True, False])})
    found = dict(Retrieval(encode=by_hand(IMAGES, WORDS), data=data).run(None))
    # English ranks 1, 2 and German ranks 2, 1 of the first two captions. Among the two
    # pets alone they would be the same here; Sonne, which is none, must not count.
    assert found["pets/mean/text_to_image/recall_at_1"] == pytest.approx(1 / 2)
    assert found["pets/mean/text_to_image/median_rank"] == 1.5
    # German: image 0 is asked among all three captions, and Sonne comes first.
    assert found["pets/mean/image_to_text/recall_at_1"] == pytest.approx(1 / 2)


def test_several_captions_of_an_image_and_images_without_any(by_hand):
    data = RetrievalSet(
        images=[0, 1, 2],
        texts={"en": ["cat", "Katze", "Hund"]},
        owners={"en": np.array([0, 0, 1])},
    )
    found = dict(Retrieval(encode=by_hand(IMAGES, WORDS), data=data).run(None))
    # Ranks 1, 2, 1 of three captions; image 2 has no caption and does not ask. Image 0
    # finds "cat" first, image 1 "Hund".
    assert found["en/text_to_image/recall_at_1"] == pytest.approx(2 / 3)
    assert found["en/image_to_text/recall_at_1"] == 1
    assert "mean/text_to_image/mean_rank_variance" not in found


def test_rank_variance_is_over_images_that_all_languages_describe(by_hand):
    data = RetrievalSet(
        images=[0, 1, 2],
        texts={"en": ["cat", "dog", "Sonne"], "de": ["Hund", "Katze"]},
        owners={"en": np.array([0, 1, 2]), "de": np.array([1, 0])},
    )
    found = dict(Retrieval(encode=by_hand(IMAGES, WORDS), data=data).run(None))
    # Images 0 and 1: English ranks 1, 2; German 2, 1. Image 2, third in English, is
    # not asked for in German.
    assert found["mean/text_to_image/mean_rank_variance"] == pytest.approx(0.5)


def test_the_order_of_captions_and_images_changes_nothing(by_hand):
    rng = np.random.default_rng(0)
    unit = lambda n: (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(
        rng.normal(size=(n, 5))
    )
    vectors, words = unit(9).tolist(), {}
    texts, owners = {}, {}
    for language in ("fr", "hi", "sw"):
        texts[language] = [f"{language}{n}" for n in range(14)]
        owners[language] = np.concatenate([np.arange(9), rng.integers(0, 9, 5)])
        words |= dict(zip(texts[language], unit(14).tolist(), strict=True))
    some = rng.random(9) < 0.5
    data = RetrievalSet(list(range(9)), texts, owners, {"some": some})
    images = rng.permutation(9)
    place = np.argsort(images)
    shuffled_texts, shuffled_owners = {}, {}
    for language in ("sw", "fr", "hi"):
        order = rng.permutation(14)
        shuffled_texts[language] = [texts[language][row] for row in order]
        shuffled_owners[language] = place[owners[language][order]]
    shuffled = RetrievalSet(
        [int(i) for i in images],
        shuffled_texts,
        shuffled_owners,
        {"some": some[images]},
    )
    encode = by_hand(vectors, words)
    one = dict(Retrieval(encode=encode, data=data).run(None))
    two = dict(Retrieval(encode=encode, data=shuffled).run(None))
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == pytest.approx(two[name], abs=1e-12), name


def test_images_are_encoded_once(by_hand):
    encode = by_hand(IMAGES, WORDS)
    list(Retrieval(encode=encode, data=german_and_english()).run(None))
    assert encode.calls == ["image", "text", "text"]


def test_what_it_is_made_of(by_hand):
    encode = by_hand(IMAGES, WORDS)
    assert isinstance(encode, Encode)
    assert isinstance(Retrieval(encode=encode, data=german_and_english()), Evaluator)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (["dee"], "no texts in 'dee'. Did you mean 'de'"),
        ([], "at least one language"),
        (["en", "fr"], "'fr' has no text"),
    ],
)
def test_missing_languages_are_refused(by_hand, languages, message):
    data = RetrievalSet(
        images=[0, 1, 2],
        texts={"en": ["cat"], "de": ["Hund"], "fr": []},
        owners={"en": np.array([0]), "de": np.array([1]), "fr": np.array([], int)},
    )
    evaluator = Retrieval(encode=by_hand(IMAGES, WORDS), data=data, languages=languages)
    with pytest.raises(ValueError, match=message):
        list(evaluator.run(None))


def test_weights_that_broke_are_refused(by_hand):
    broken = by_hand([[np.nan] * 3, *IMAGES[1:]], WORDS)
    with pytest.raises(ValueError, match="unit norm: 1 of 3 images"):
        list(Retrieval(encode=broken, data=german_and_english()).run(None))
    large = by_hand(IMAGES, {**WORDS, "dog": [2.0, 0.0, 0.0]})
    with pytest.raises(ValueError, match="unit norm: 1 of 3 texts"):
        list(Retrieval(encode=large, data=german_and_english()).run(None))
