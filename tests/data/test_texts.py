"""Which texts are drawn, how often, and what is done to them."""

import numpy as np
import pytest

from big_mm.data import texts

TEXTS = {"en": ["a", "b", "c"], "de": ["d"], "fr": [], "ja": ["e", "f"]}


def draws(n, *, k, **settings):
    rng = np.random.default_rng(0)
    return [texts.choose(TEXTS, k=k, rng=rng, **settings) for _ in range(n)]


def many_draws(n=4000, *, k, weights=None, replace=False):
    """The same as `draws` in one go: see `test_a_batch_is_picked_as_its_rows_are`."""
    names = list(TEXTS)
    counts = np.tile([[len(x) for x in TEXTS.values()]], (n, 1))
    noise = np.random.default_rng(0).random((n, len(names) + 2 * k))
    odds = texts.weigh(names, weights)
    picked = texts.pick(counts, noise, k=k, weights=odds, replace=replace)
    return [
        [(names[i], TEXTS[names[i]][j]) for i, j, ok in zip(*row, strict=True) if ok]
        for row in zip(*picked, strict=True)
    ]


def test_one_draw_is_a_row_of_many():
    assert draws(3, k=2)[0] == many_draws(3, k=2)[0]


def test_languages_are_distinct_and_texts_their_own():
    for drawn in draws(200, k=2):
        assert len({language for language, _ in drawn}) == 2
        assert all(text in TEXTS[language] for language, text in drawn)


def test_what_is_missing_is_left_out():
    assert all(len(drawn) == 3 for drawn in draws(20, k=5))
    assert all(drawn == [] for drawn in draws(5, k=2, languages=["fr", "ko"]))
    assert texts.choose({}, k=2, rng=np.random.default_rng(0)) == []


def test_languages_are_uniform_and_so_are_the_texts_of_each():
    # 3 languages with texts: every ordered pair 1/6; three standard deviations at
    # n = 4000 are 0.018. "a" of "en" comes first with 1/3 * 1/3, three of them 0.015.
    drawn = many_draws(k=2)
    for pair in [("en", "de"), ("de", "en"), ("ja", "en"), ("de", "ja")]:
        share = np.mean([(x[0][0], x[1][0]) == pair for x in drawn])
        assert share == pytest.approx(1 / 6, abs=0.018)
    share = np.mean([x[0] == ("en", "a") for x in drawn])
    assert share == pytest.approx(1 / 9, abs=0.015)


@pytest.mark.parametrize("replace", [True, False])
def test_weights_are_the_odds_of_the_first_draw(replace):
    drawn = many_draws(k=2, weights={"en": 6.0, "de": 3.0}, replace=replace)
    for language, odds in {"en": 0.6, "de": 0.3, "ja": 0.1}.items():
        share = np.mean([x[0][0] == language for x in drawn])
        assert share == pytest.approx(odds, abs=0.024)


def test_with_replacement_every_slot_is_filled_and_independent():
    drawn = many_draws(k=4, replace=True)
    assert all(len(x) == 4 for x in drawn)
    same = np.mean([x[0][0] == x[3][0] for x in drawn])
    assert same == pytest.approx(1 / 3, abs=0.023)
    both = np.mean([x[0] == x[1] == ("en", "a") for x in drawn])
    assert both == pytest.approx(1 / 81, abs=0.006)


def test_a_batch_is_picked_as_its_rows_are():
    rng = np.random.default_rng(1)
    counts, noise = rng.integers(0, 3, (50, 6)), rng.random((50, 6 + 8))
    for replace in (True, False):
        settings = dict(k=4, weights=np.arange(1.0, 7.0), replace=replace)
        whole = texts.pick(counts, noise, **settings)
        for row in range(50):
            one = texts.pick(counts[row : row + 1], noise[row : row + 1], **settings)
            for a, b in zip(one, whole, strict=True):
                np.testing.assert_array_equal(a[0], b[row])
        number = np.take_along_axis(counts, whole.language, 1)
        assert (whole.text < number)[whole.present].all()
        some = (counts > 0).sum(1)
        expected = np.where(some > 0, 4, 0) if replace else np.minimum(some, 4)
        np.testing.assert_array_equal(whole.present.sum(1), expected)


def test_more_slots_than_languages_stay_empty():
    picked = texts.pick(
        np.array([[1, 2]]), np.full((1, 12), 0.5), k=5, weights=np.ones(2)
    )
    np.testing.assert_array_equal(picked.present, [[True, True, False, False, False]])
    assert sorted(picked.language[0, :2]) == [0, 1]


def test_wrong_weights_are_refused():
    with pytest.raises(ValueError, match="'xx'"):
        draws(1, k=1, weights={"xx": 1.0})
    with pytest.raises(ValueError, match="above 0"):
        draws(1, k=1, weights={"en": 0.0})


def test_strings():
    assert texts.lower("Ein ÄPFEL") == "ein äpfel"
    assert texts.collapse_spaces("  a \n\tb ") == "a b"
    assert texts.template("{x}", format="a photo of {}.") == "a photo of {x}."
    with pytest.raises(ValueError, match="where the text goes"):
        texts.template("x", format="no place")
