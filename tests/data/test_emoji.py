import hashlib
import io
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from big_mm.data import emoji
from big_mm.data.emoji import pack
from big_mm.text import languages, tokenizers

HELD_OUT = [name for name in emoji.SPLITS if name.startswith("held_out")]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which the dataset has been prepared."""
    home = tmp_path_factory.mktemp("data")
    emoji.prepare(home)
    return home


@pytest.fixture(scope="module")
def items(home):
    """Every split's items, in English."""
    return {
        split: [*emoji.load(split, data_dir=home, languages=["en"])]
        for split in emoji.SPLITS
    }


# The committed pack


def test_pack_and_tokenizer_are_small():
    paths = [*pack.PACK.iterdir(), tokenizers.NAMED["emoji"]]
    assert sum(path.stat().st_size for path in paths) <= 8_000_000


def test_every_concept_has_its_group_and_number():
    concepts = pack.concepts()
    assert 1_900 <= len(concepts) <= 2_000
    assert [concept.emoji for concept in concepts[:2]] == ["😀", "😃"]
    assert {concept.group for concept in concepts} == set(emoji.GROUPS)
    assert len({concept.hexcode for concept in concepts}) == len(concepts)
    for concept in concepts:
        points = "-".join(f"{ord(character):04X}" for character in concept.emoji)
        assert points.replace("-FE0F", "") == concept.hexcode.replace("-FE0F", "")


@pytest.mark.parametrize("vendor", pack.VENDORS)
def test_vendors_draw_nearly_all_on_white(vendor):
    drawn = dict(pack.drawings(vendor))
    assert len(drawn) >= 1_800
    apple = next(n for n, c in enumerate(pack.concepts()) if c.emoji == "🍎")
    image = np.asarray(Image.open(io.BytesIO(drawn[apple])).convert("RGB"), np.float32)
    assert image.shape == (pack.SIZE_PX, pack.SIZE_PX, 3)
    assert image[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 240  # white corners
    red, green, blue = image[20:30, 16:32].mean((0, 1))
    assert red > 150 > max(green, blue)


def test_languages_are_xm3600s_and_strangers():
    sets = pack.texts()["languages"]
    assert tuple(sets["train"]) == languages.XM3600
    assert tuple(sets) == emoji.LANGUAGE_SETS
    assert (
        len(set(pack.languages()))
        == len(pack.languages())
        == sum(map(len, sets.values()))
    )
    script = lambda code: languages.LANGUAGES[code].script
    seen = {script(code) for code in sets["train"]}
    assert not seen & {script(code) for code in sets["held_out_script"]}
    strange = {script(code) for code in sets["held_out_related"]} - seen
    assert strange == {"Hant"}  # traditional characters beside simplified


@pytest.mark.parametrize("code", pack.languages())
def test_each_language_names_nearly_all_and_each_once(code):
    names = [name for name in pack.texts()["names"][code] if name]
    assert len(names) >= {"mi": 1_550, "qu": 1_600, "da": 1_600}.get(code, 1_890)
    assert len(set(names)) == len(names)
    assert all(emoji._labels(code))


def test_held_out_concepts_are_the_smallest_hashes_of_each_group():
    held_out = pack.texts()["held_out"]
    assert held_out == sorted(set(held_out))
    assert len(held_out) == 300
    draw = lambda n: hashlib.sha256(
        f"held out: {pack.concepts()[n].hexcode}".encode()
    ).hexdigest()
    drawn = [dict(pack.drawings(vendor)) for vendor in pack.VENDORS]
    alike = [Counter(images.values()) for images in drawn]
    fit = [
        n
        for n in range(len(pack.concepts()))
        if all(
            n in images and of[images[n]] == 1
            for images, of in zip(drawn, alike, strict=True)
        )
    ]
    for group in emoji.GROUPS:
        of_group = [n for n in fit if pack.concepts()[n].group == group]
        out = [n for n in held_out if pack.concepts()[n].group == group]
        assert sorted(of_group, key=draw)[: len(out)] == sorted(out, key=draw)
        assert abs(len(out) - 300 * len(of_group) / len(fit)) < 1


# Splits


def test_no_held_out_concept_and_no_unseen_vendor_is_trained_on(items):
    trained = {item["concept"] for item in items["train"]}
    assert {item["vendor"] for item in items["train"]} == {"noto", "fluent"}
    for split in HELD_OUT:
        assert not trained & {item["concept"] for item in items[split]}
        assert len(items[split]) == 300
    for split in emoji.SPLITS:
        if "unseen_vendor" in split:
            assert {item["vendor"] for item in items[split]} == {"twemoji"}


def test_no_held_out_drawing_is_trained_on(items):
    trained = {item["image"] for item in items["train"]}
    for split in HELD_OUT:
        assert not trained & {item["image"] for item in items[split]}


def test_splits_hold_each_drawing_once(items):
    drawn = {vendor: dict(pack.drawings(vendor)) for vendor in pack.VENDORS}
    total = sum(map(len, items.values()))
    fluent_held_out = sum(n in drawn["fluent"] for n in pack.texts()["held_out"])
    assert total == sum(map(len, drawn.values())) - fluent_held_out
    keys = {(i["concept"], i["vendor"]) for of in items.values() for i in of}
    assert len(keys) == total


def test_record_is_what_the_pack_holds(items):
    drawn = {vendor: dict(pack.drawings(vendor)) for vendor in pack.VENDORS}
    for item in items["train"][::500]:
        assert item["image"].startswith(b"\x89PNG")
        number = item["concept"]
        packed = Image.open(io.BytesIO(drawn[item["vendor"]][number])).convert("RGB")
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(item["image"]))), np.asarray(packed)
        )
        concept = pack.concepts()[number]
        assert (item["emoji"], item["group"], item["subgroup"]) == (
            concept.emoji,
            concept.group,
            concept.subgroup,
        )
        assert item["texts"] == {"en": [pack.texts()["names"]["en"][number]]}


def test_texts_are_of_the_languages_asked_for(home):
    source = emoji.load(
        data_dir=home, languages=["zh-Hant", "de"], texts="names_and_keywords"
    )
    item = next(item for item in source if item["emoji"] == "🍏")
    assert list(item["texts"]) == ["zh-Hant", "de"]
    assert item["texts"]["de"][0] == "grüner Apfel"
    assert {"Apfel", "Frucht"} <= set(item["texts"]["de"])
    assert item["texts"]["zh-Hant"][0] == "青蘋果"
    for number in range(0, len(source), 300):  # a language without a name is left out
        everything = emoji.load(data_dir=home)[number]
        names = pack.texts()["names"]
        named = [c for c in languages.XM3600 if names[c][everything["concept"]]]
        assert list(everything["texts"]) == named


def test_source_survives_pickling_and_counts_from_the_end(home):
    source = emoji.load("held_out_concepts_seen_vendor", data_dir=home)
    again = pickle.loads(pickle.dumps(source))
    assert again[7] == source[7]
    assert source[-1] == source[len(source) - 1]
    assert len(pickle.dumps(source)) < 20_000
    with pytest.raises(IndexError, match="300 examples"):
        source[300]


# Preparing


def test_second_call_prepares_nothing(home, monkeypatch):
    monkeypatch.setattr(emoji, "_build", lambda folder: pytest.fail("built again"))
    folder = emoji.prepare(home)
    monkeypatch.setenv("BIG_MM_DATA", str(home))
    assert emoji.prepare() == folder
    assert folder.is_relative_to(home)


def fake_build(folder):
    (folder / "emoji" / pack.VERSION).mkdir(parents=True)
    (folder / "emoji" / pack.VERSION / "records").write_text(folder.name)


def test_two_at_once_agree_on_the_first(tmp_path, monkeypatch):
    def build(folder):
        fake_build(folder)
        if monkeypatch.undo() is None:  # the other process, which is faster
            monkeypatch.setattr(emoji, "_build", fake_build)
            build.first = (emoji.prepare(tmp_path) / "records").read_text()

    monkeypatch.setattr(emoji, "_build", build)
    assert (emoji.prepare(tmp_path) / "records").read_text() == build.first
    assert len([*tmp_path.iterdir()]) == 1


def test_killed_half_way_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def killed(folder):
        fake_build(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(emoji, "_build", killed)
    with pytest.raises(KeyboardInterrupt):
        emoji.prepare(tmp_path)
    assert not [*tmp_path.iterdir()]
    left = tmp_path / ".emoji-partial-of-a-dead-process"
    left.mkdir()
    monkeypatch.setattr(emoji, "_STALE_SECONDS", -1)
    monkeypatch.setattr(emoji, "_build", fake_build)
    emoji.prepare(tmp_path)
    assert not left.exists()


def test_new_pack_gets_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "_build", fake_build)
    old = emoji.prepare(tmp_path)
    monkeypatch.setattr(pack, "fingerprint", lambda: "another")
    assert emoji.prepare(tmp_path) != old
    assert old.exists()


def test_tensorflow_is_never_imported(home):
    code = (
        "import sys; from big_mm.data import emoji; "
        "assert 'tensorflow_datasets' not in sys.modules; "
        f"emoji.load(data_dir={str(home)!r})[0]; "
        "assert 'tensorflow' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


# Evaluation sets


def test_each_caption_belongs_to_its_drawing(home, items):
    split = "held_out_concepts_unseen_vendor"
    found = emoji.retrieval(split, languages=["en", "mi"], data_dir=home)
    by_image = {item["image"]: item["concept"] for item in items[split]}
    concepts = [by_image[image] for image in found.images]
    assert len(set(concepts)) == 300
    names = pack.texts()["names"]
    for code in ("en", "mi"):
        owners = found.owners[code].tolist()
        told = [names[code][concepts[owner]] for owner in owners]
        assert told == list(found.texts[code])
    assert len(found.texts["mi"]) < len(found.texts["en"]) == 300


def test_subsets_part_the_drawings(home, items):
    split = "seen_concepts_unseen_vendor"
    found = emoji.retrieval(split, languages="held_out_script", data_dir=home)
    parts = found.subsets
    np.testing.assert_array_equal(sum(part.astype(int) for part in parts.values()), 1)
    flags = sum(item["group"] == "flags" for item in items[split])
    assert parts["flags"].sum() == flags > 200
    held_out = emoji.retrieval(HELD_OUT[0], languages=["en"], data_dir=home)
    assert parts["clocks"].sum() + held_out.subsets["clocks"].sum() == 24  # the dials


def test_retrieval_over_two_vendors_needs_a_choice(home):
    with pytest.raises(ValueError, match="Choose a vendor"):
        emoji.retrieval("train", data_dir=home)
    noto = emoji.retrieval("train", vendor="noto", languages=["en"], data_dir=home)
    assert len(noto.images) == len(noto.texts["en"])
    with pytest.raises(ValueError, match="Known: fluent, noto"):
        emoji.retrieval("train", vendor="twemoji", data_dir=home)


@pytest.mark.parametrize("languages", emoji.LANGUAGE_SETS)
def test_groups_are_described_by_training_concepts_alone(home, languages):
    split = HELD_OUT[0]
    found = emoji.groups(split, languages=languages, data_dir=home)
    assert len(found.class_texts) == len(pack.texts()["languages"][languages])
    for code, texts in found.class_texts.items():
        told = {text for of_group in texts for text in of_group}
        held_out = {pack.texts()["names"][code][n] for n in pack.texts()["held_out"]}
        assert not told & held_out


def test_labels_name_the_groups(home, items):
    found = emoji.groups(HELD_OUT[0], languages=["en"], texts="labels", data_dir=home)
    labels = dict(zip(found.class_names, found.class_texts["en"], strict=True))
    assert labels["food-drink"] == ["food & drink"]
    assert labels["people-body"] == ["person", "body"]
    groups = {item["image"]: item["group"] for item in items[HELD_OUT[0]]}
    assert [groups[image] for image in found.images] == [
        found.class_names[label] for label in found.labels
    ]


@pytest.mark.parametrize(
    ("wrong", "offered"),
    [
        (dict(split="trian"), "Did you mean 'train'"),
        (dict(languages=["dee"]), "Did you mean 'de'"),
        (dict(languages="held_out_scripts"), "Did you mean 'held_out_script'"),
        (dict(languages=["yo"]), "no texts in Yoruba"),
        (dict(languages=[]), "at least one"),
    ],
)
def test_unknown_names_offer_the_nearest(home, wrong, offered):
    with pytest.raises(ValueError, match=offered):
        emoji.load(data_dir=home, **wrong)
