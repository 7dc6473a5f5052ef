"""What the report is made from: pictures, queries and the map of languages."""

import numpy as np
import pytest

from big_mm.data.evaluation_sets import RetrievalSet
from big_mm.evaluators.showcase import FILE, Showcase

WORDS = {
    "cat": [1.0, 0.0],
    "dog": [0.0, 1.0],
    "chat": [0.8, 0.6],
    "chien": [0.6, 0.8],
    "Katze": [0.0, 1.0],
    "Hund": [1.0, 0.0],
}


class Encode:
    """Red images are (1, 0), all others (0, 1)."""

    def image(self, params, images):
        red = np.array([[image[0, 0, 0] > 200 for image in images]], np.float32).T
        return np.concatenate([red, 1 - red], axis=1)

    def text(self, params, texts):
        return np.array([WORDS[text] for text in texts], np.float32)


@pytest.fixture
def pets():
    red, blue = np.zeros((2, 8, 4, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    return RetrievalSet(
        images=[red, blue],
        texts={"en": ["cat", "dog"], "fr": ["chat", "chien"], "de": ["Hund", "Katze"]},
        owners={
            "en": np.array([0, 1]),
            "fr": np.array([0, 1]),
            "de": np.array([1, 0]),
        },
    )


def test_by_hand(pets, tmp_path):
    showcase = Showcase(
        encode=Encode(),
        data=pets,
        workdir=tmp_path,
        queries=(("fr", "dog"), ("de", "cat")),
        top=2,
        thumbnail_px=8,
    )
    found = dict(showcase.run(None))
    file = np.load(tmp_path / FILE)
    assert file["query_text"].tolist() == ["chien", "Katze"]
    assert file["query_gloss"].tolist() == ["dog", "cat"]
    assert file["query_rank"].tolist() == [1, 2]
    assert file["top_right"].tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(file["top_scores"], [[0.8, 0.6], [1, 0]], atol=1e-6)
    assert found["queries/recall_at_1"] == 0.5
    assert found["queries/recall_at_2"] == 1
    # The first image of both queries is blue; it keeps its shape, with white beside.
    first = file["top_images"][0, 0]
    assert first.shape == (8, 8, 3)
    assert first[0, 4].tolist() == [0, 0, 255]
    assert first[0, 0].tolist() == [255, 255, 255]
    # Languages are de, en, fr. en-fr: mean of .8 and .8; de-en: both 0; de-fr: .6, .6.
    assert file["languages"].tolist() == ["de", "en", "fr"]
    wanted = [[1, 0, 0.6], [0, 1, 0.8], [0.6, 0.8, 1]]
    np.testing.assert_allclose(file["cosine"], wanted, atol=1e-6)
    np.testing.assert_array_equal(
        file["recall_at_1"], [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    )
    assert found["translations/cosine"] == pytest.approx(1.4 / 3)
    assert found["translations/recall_at_1"] == pytest.approx(1 / 3)


def test_drawn_queries_spread_over_languages_and_images(pets, tmp_path):
    showcase = Showcase(encode=Encode(), data=pets, workdir=tmp_path, queries=2, top=1)
    list(showcase.run(None))
    once = (tmp_path / FILE).read_bytes()
    file = np.load(tmp_path / FILE)
    assert len(set(file["query_language"].tolist())) == 2
    assert set(file["query_gloss"].tolist()) == {"cat", "dog"}
    list(showcase.run(None))
    assert (tmp_path / FILE).read_bytes() == once


def test_more_queries_than_images(pets, tmp_path):
    showcase = Showcase(encode=Encode(), data=pets, workdir=tmp_path, queries=9)
    list(showcase.run(None))
    assert len(np.load(tmp_path / FILE)["query_text"]) == 2


def test_languages_that_share_no_image_are_left_blank(tmp_path, pets):
    data = RetrievalSet(
        images=pets.images,
        texts={"en": ["cat"], "fr": ["chien"]},
        owners={"en": np.array([0]), "fr": np.array([1])},
    )
    showcase = Showcase(encode=Encode(), data=data, workdir=tmp_path)
    found = dict(showcase.run(None))
    cosine = np.load(tmp_path / FILE)["cosine"]
    assert np.isnan(cosine[0, 1])
    assert "translations/cosine" not in found


def test_a_wanted_query_that_is_not_there(pets, tmp_path):
    showcase = Showcase(
        encode=Encode(), data=pets, workdir=tmp_path, queries=(("fr", "dogg"),)
    )
    with pytest.raises(ValueError, match=r"is 'dogg'\. Did you mean 'dog'"):
        list(showcase.run(None))
    assert not (tmp_path / FILE).exists()
