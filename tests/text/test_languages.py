import pytest

from big_mm.text import languages


def test_xm3600_has_36_known_languages():
    assert len(languages.XM3600) == 36
    assert set(languages.XM3600) <= set(languages.LANGUAGES)
    assert {"mi", "qu", "sw", "te", "fil"} <= set(languages.XM3600)


def test_codes_are_unique_and_stay_in_place():
    assert len(set(languages.CODES)) == len(languages.CODES)
    # Indices are in checkpoints and recorded batches: a change here breaks them.
    assert languages.CODES[:3] == ("ar", "bn", "cs")
    assert [languages.index(code) for code in ("en", "zh", "af", "ta")] == [
        6,
        35,
        36,
        55,
    ]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("quz", "qu"),
        ("iw", "he"),
        ("nb", "no"),
        ("zh_TW", "zh-Hant"),
        ("ZH-hant", "zh-Hant"),
        ("jp", "ja"),
        (" EN ", "en"),
    ],
)
def test_spellings_of_one_language(given, code):
    assert languages.canonical(given) == code


def test_scripts_tell_the_direction():
    rtl = {
        code
        for code in languages.XM3600
        if languages.LANGUAGES[code].direction == "rtl"
    }
    assert rtl == {"ar", "fa", "he"}
    assert languages.LANGUAGES["zh-Hant"].name == "Traditional Chinese"


def test_choice_keeps_order_and_drops_repeats():
    assert languages.choose(["de", "jp", "ja", "en"], languages.CODES) == (
        "de",
        "ja",
        "en",
    )
    assert languages.choose("de", languages.CODES) == ("de",)


def test_unknown_languages_offer_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'fil'"):
        languages.canonical("file")
    with pytest.raises(ValueError, match="no texts in Welsh"):
        languages.choose(["cy"], ["de", "en"])
    with pytest.raises(ValueError, match="at least one"):
        languages.choose([], ["de", "en"])
