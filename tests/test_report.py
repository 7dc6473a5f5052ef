"""The page of a run: complete, partial, hostile; the same each time."""

import base64
import html.parser
import io
import json
import re
import zipfile

import numpy as np
import pytest
import uharfbuzz as hb
from PIL import Image

from big_mm import report
from big_mm.report import figures, fonts, page, reading, sections


def rows(languages):
    training = [
        {"step": step, "loss": 5 / step, "sigmoid/loss": 5 / step, "norm/grads": 1.0}
        for step in (1, 50, 100)
    ]
    training[1]["loss"] = None  # was not finite
    figures = {}
    for name, factor in (("unseen_vendor", 1.0), ("held_out", 0.5)):
        for number, language in enumerate([*languages, "mean", "family/Romance"]):
            for k in (1, 5):
                key = f"{name}/{language}/text_to_image/recall_at_{k}"
                figures[key] = factor * k / (number + 10)
        figures[f"{name}/flags/mean/text_to_image/recall_at_1"] = 0.125
        figures[f"{name}/evaluation_s"] = 3.0
    figures["groups/majority"] = 0.2
    for language in (*languages, "mean"):
        figures[f"groups/{language}/accuracy"] = 0.45
    return [*training, {"step": 50, **figures}, {"step": 100, **figures}]


CONFIG = {
    "seed": 0,
    "evals": {
        "unseen_vendor": {"data": {"split": "seen_concepts_unseen_vendor"}},
        "held_out": {"data": {"split": "held_out_concepts_seen_vendor"}},
        "groups": {"data": {"split": "held_out_concepts_unseen_vendor"}},
    },
}


def showcase(languages, texts, top=3):
    count = len(texts)
    rng = np.random.default_rng(0)
    return dict(
        query_text=np.array(texts),
        query_language=np.array([languages[n % len(languages)] for n in range(count)]),
        query_gloss=np.array(["a thing"] * count),
        query_rank=np.arange(1, count + 1),
        top_images=rng.integers(0, 255, (count, top, 8, 8, 3), dtype=np.uint8),
        top_scores=np.zeros((count, top), np.float32),
        top_right=np.eye(count, top, dtype=bool),
        candidates=np.array(1497),
        languages=np.array(languages),
        cosine=np.eye(len(languages)),
        recall_at_1=np.full((len(languages),) * 2, np.nan),
    )


def make(folder, *, languages=("de", "fr"), config=CONFIG, texts=("Katze", "soleil")):
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows(languages))
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "config.json").write_text(json.dumps(config))
    np.savez(folder / "showcase.npz", **showcase(list(languages), list(texts)))
    return folder


class Tags(html.parser.HTMLParser):
    """Which elements a page has, what its text says, and what is left open."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The folder of a complete run with its report; not to be changed."""
    folder = make(tmp_path_factory.mktemp("runs") / "complete")
    assert report.write(folder) == folder / "report.html"
    return folder


def test_a_complete_run(complete):
    text = (complete / "report.html").read_text()
    parsed = Tags(text)
    assert parsed.open == []
    said = " ".join(parsed.text)
    for words in ("German", "French", "Katze", "soleil", "flags", "0.125", "0.450"):
        assert words in said
    assert "class=missing" not in text
    pictures = {file.name for file in complete.glob("*.png")}
    assert pictures == {
        "curves.png",
        "languages_unseen_vendor.png",
        "languages_held_out.png",
        "languages_groups.png",
        "queries.png",
        "similarity.png",
        "translations.png",
    }
    for name in pictures:
        with Image.open(complete / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 100
            assert len(image.convert("RGB").getcolors(2**24)) > 8
    assert not list(complete.glob(".*.partial"))


def test_it_asks_no_other_machine(complete):
    text = (complete / "report.html").read_text()
    assert not re.search(
        r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    )
    for tag, attributes in Tags(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:", "#"))
    assert "default-src 'none'" in text


def test_the_same_files_give_the_same_report(complete, tmp_path):
    again = make(tmp_path / "complete")
    report.write(again)
    assert {file.name: file.read_bytes() for file in complete.iterdir()} == {
        file.name: file.read_bytes() for file in again.iterdir()
    }


def test_hostile_names_and_texts_stay_text(tmp_path):
    folder = tmp_path / "<b>run"
    name = "<script>alert('x')<b>&\"$body $x^{$"
    config = {"evals": {name: {"split": "<u>"}}, "<script>": "</pre><script>"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    row = {
        f"{name}/{whose}/text_to_image/recall_at_1": 0.3
        for whose in ("<i>", "$x^{$", "mean")
    }
    row |= {f"{name}/<u>/mean/text_to_image/recall_at_1": 0.3, "norm/<u>$x^{$": 1.0}
    lines = [json.dumps({"step": step, **row}) + "\n" for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    arrays = showcase(["de", "<i>"], [name, "$x^{$"])
    np.savez(folder / "showcase.npz", **arrays)
    text = report.write(folder).read_text()
    parsed = Tags(text)
    # Bars and tiles are plain <i> and <b> of our own; no name of the run became a tag.
    assert not {"script", "u"} & {tag for tag, _ in parsed.tags}
    for hostile in ("<script", "<b>run", "<i>:", "$body\n"):
        assert hostile not in text
    assert name in " ".join(parsed.text)
    assert {file.parent for file in tmp_path.rglob("*.png")} == {folder}


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("config.json", "No curves"),
        ("metrics.jsonl", "No pictures yet"),
        ("showcase.npz", "No retrieval was measured"),
        ("metrics.json", "No curves"),
    ],
)
def test_a_run_with_one_file_says_what_is_missing(tmp_path, kept, words):
    make(tmp_path)
    (tmp_path / "metrics.json").write_text(
        json.dumps({"unseen_vendor/de/text_to_image/recall_at_1": 0.75})
    )
    for file in tmp_path.iterdir():
        if file.name != kept:
            file.unlink()
    text = report.write(tmp_path).read_text()
    assert words in text
    assert Tags(text).open == []
    if kept == "metrics.json":
        assert "0.750" in text


def test_what_evaluate_measured_counts_over_what_training_did(tmp_path):
    make(tmp_path)
    key = "unseen_vendor/de/text_to_image/recall_at_1"
    (tmp_path / "metrics.json").write_text(json.dumps({key: 0.875, "text": "words"}))
    evaluation = reading.read(tmp_path).evaluations["unseen_vendor"]
    assert evaluation.get("de", "text_to_image/recall_at_1") == 0.875
    assert evaluation.get("fr", "text_to_image/recall_at_1") == 1 / 11


def test_a_hundred_languages(tmp_path):
    codes = [f"q{n:02d}" for n in range(97)] + ["de", "fr", "ar"]
    text = page.render(reading.read(make(tmp_path, languages=codes)), {})
    assert text.count("class=bar") == 300  # two retrievals, one zero-shot
    assert "q96" in text
    assert "Arabic" in text


def test_what_a_run_says_is_read_in_parts():
    assert reading.split_name("a/de/text_to_image/recall_at_5") == (
        "a",
        "de",
        "text_to_image/recall_at_5",
    )
    assert reading.split_name("evals/a/family/Romance/accuracy") == (
        "a",
        "family/Romance",
        "accuracy",
    )
    assert reading.split_name("a/fr/to_en/recall_at_1") == (
        "a",
        "fr",
        "to_en/recall_at_1",
    )
    assert reading.split_name("a/majority") == ("a", "", "majority")
    for other in ("loss", "sigmoid/loss", "norm/grads", "a/evaluation_s", "accuracy"):
        assert reading.split_name(other) is None


def test_conditions_are_read_from_the_split(tmp_path):
    evaluations = reading.read(make(tmp_path)).evaluations
    assert list(evaluations) == ["unseen_vendor", "held_out", "groups"]
    words = [sections.condition(evaluation) for evaluation in evaluations.values()]
    assert words == [
        "seen concepts · unseen vendor",
        "held-out concepts · seen vendor",
        "held-out concepts · unseen vendor",
    ]
    run = reading.read(tmp_path)
    assert sections.primary(run) is run.evaluations["unseen_vendor"]
    assert sections.by_family(run).rows[1] == ["Romance", 1 / 13, 0.5 / 13]


def test_conditions_of_the_quickstart():
    make = lambda name, **data: reading.Evaluation(
        name, None, {}, reading._traits(name, {"data": data})
    )
    of = lambda *args, **data: sections.condition(make(*args, **data))
    unseen = "seen_concepts_unseen_vendor"
    trained = of("seen_vendor", split="train", vendor="noto", languages="train")
    assert trained == "seen concepts · seen vendor"
    scripts = of("new_scripts", split=unseen, languages="held_out_script")
    assert scripts == "seen concepts · unseen vendor · held-out languages, new scripts"
    assert of("xm3600", path="somewhere") == "xm3600"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[1]", "must hold one JSON object"),
        ("metrics.jsonl", "no\n{}\n", "line 1 of .* is damaged"),
        ("showcase.npz", "PK", "showcase.npz is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, words):
    make(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=words):
        report.write(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        report.write(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        report.write(tmp_path / "none")


def test_a_last_line_cut_short_is_left_out(tmp_path):
    make(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "lo')
    assert reading.read(tmp_path).series["loss"] == ([1, 100], [5.0, 0.05])


def test_letters_join_and_reorder():
    # Four Arabic letters joined are narrower than the same letters apart.
    joined = fonts.outline("بببب", "ar").width
    apart = fonts.outline("ب\u200cب\u200cب\u200cب", "ar").width
    assert joined < 0.8 * apart
    # Devanagari: ksha is one conjunct, narrower than its two consonants.
    assert fonts.outline("क्ष", "hi").width < fonts.outline("कष", "hi").width


def test_runs_go_from_left_to_right():
    # In a right-to-left line the number stands at the left of the word before it.
    assert [run.text for run in fonts.runs("שלום 12", "he")] == ["12", " ", "שלום"]
    assert [run.right_to_left for run in fonts.runs("שלום 12", "he")] == [
        False,
        True,
        True,
    ]
    assert fonts.runs("", "en") == []


def test_han_has_the_shape_of_its_language():
    runs = {code: fonts.runs("直", code)[0].font for code in ("ja", "zh", "zh-Hant")}
    assert runs == {
        "ja": "japanese",
        "zh": "chinese",
        "zh-Hant": "chinese_traditional",
    }
    drawn = {code: tuple(fonts.outline("直", code).vertices) for code in runs}
    assert drawn["ja"] != drawn["zh"]


def test_a_letter_without_a_font_is_a_box_and_left_to_the_reader():
    assert fonts.runs("\ue000", "en")[0].font is None
    assert fonts.outline("\ue000", "en").codes
    assert fonts.families("\ue000", "en") == []


def test_the_page_carries_only_letters_it_shows():
    small, large = fonts.css([("क", "hi")]), fonts.css([("मुस्कुराता हुआ चेहरा", "hi")])
    assert 1000 < len(small) < len(large) < 60_000
    assert small.count("@font-face") == 1


def test_letters_still_join_in_the_font_of_the_page():
    rule = fonts.css([("क्षत्रिय", "hi")])
    data = base64.b64decode(re.search("base64,([^)]+)", rule)[1])
    glyphs = []
    for face in (hb.Face(data), fonts._fonts()["devanagari"].face):
        buffer = hb.Buffer()
        buffer.add_str("क्षत्रिय")
        buffer.guess_segment_properties()
        hb.shape(hb.Font(face), buffer)
        glyphs.append([place.x_advance for place in buffer.glyph_positions])
    assert glyphs[0] == glyphs[1]


def test_long_queries_take_two_lines():
    assert figures._halves("one two three") == ["one two", "three"]
    assert figures._halves("onetwothree") == ["onetwothree"]


def test_the_font_archive_stays_small_and_carries_its_licence():
    assert fonts._ARCHIVE.stat().st_size <= 1_500_000
    with zipfile.ZipFile(fonts._ARCHIVE) as archive:
        assert b"SIL OPEN FONT LICENSE" in archive.read("OFL.txt")


def test_pictures_are_the_same_bytes():
    chart = figures.BarChart("t", [figures.Bar("a", 0.5, None, "g")], {"g": "#123456"})
    first = figures.bars(chart).png()
    assert first == figures.bars(chart).png()
    assert Image.open(io.BytesIO(first)).format == "PNG"
