"""A manifest gives back what was written, and says which line is wrong."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from big_mm.data import jsonl, loader

LINES = [
    {"image": "a.png", "texts": {"en": ["a cat", "one cat"], "de": "eine Katze"}},
    {"image": "deep/b.png", "texts": {"iw": ["כלב"], "en": []}, "concept": 7},
]


def write(folder, lines, ending="\n"):
    path = folder / "set.jsonl"
    texts = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    path.write_text("".join(text + ending for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_records_are_what_was_written(tmp_path, ending):
    source = jsonl.Manifest(write(tmp_path, LINES, ending))
    assert len(source) == 2
    assert source.languages == ("en", "de", "he")
    for index in (1, 0, 1):  # any order
        path = tmp_path / LINES[index]["image"]
        assert source[index]["image"] == source[index]["path"] == path
    assert source[0]["texts"] == {"en": ["a cat", "one cat"], "de": ["eine Katze"]}
    assert source[1]["texts"] == {"he": ["כלב"], "en": []}
    assert source[1]["concept"] == 7
    assert "concept" not in source[0]
    assert pickle.loads(pickle.dumps(source))[1] == source[1]
    for index in (-1, 2):
        with pytest.raises(IndexError, match="2 records"):
            source[index]


def test_a_root_may_lie_elsewhere(tmp_path):
    source = jsonl.Manifest(write(tmp_path, LINES), root="/data/images")
    assert str(source[0]["image"]) == "/data/images/a.png"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "one JSON object: got list"),
        ({"texts": {"en": "x"}}, "'image' is the path"),
        ({"image": "a.png"}, "'texts' names languages"),
        ({"image": "a.png", "text": {}}, "Did you mean 'texts'"),
        ({"image": "../a.png", "texts": {"en": "x"}}, "below the root"),
        ({"image": "b/../../a.png", "texts": {"en": "x"}}, "below the root"),
        ({"image": "..\\a.png", "texts": {"en": "x"}}, "below the root"),
        ({"image": "/etc/a.png", "texts": {"en": "x"}}, "below the root"),
        ({"image": "a.png", "texts": {"en": 3}}, "'en' are strings"),
        ({"image": "a.png", "texts": {"english": "x"}}, "english"),
        ({"image": "a.png", "texts": {"en": "x"}, "concept": "c"}, "whole number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = write(tmp_path, [LINES[0], line])
    with pytest.raises(ValueError, match=rf"set\.jsonl:2: .*{message}"):
        jsonl.Manifest(path)


def test_missing_and_empty_manifests_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be read.*nowhere"):
        jsonl.Manifest(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="has no lines"):
        jsonl.Manifest(write(tmp_path, [""]))


def test_batches_come_from_it_and_errors_name_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((9, 7, 3), 255, np.uint8)).save(tmp_path / "a.png")
    ops = [
        dict(name="data.images:decode"),
        dict(name="data.images:resize", size_px=4),
        dict(name="data.images:value_range"),
    ]
    source = jsonl.Manifest(write(tmp_path, LINES[:1]))
    batch = loader.Batches(source, batch_examples=2, seed=0, image_ops=ops).batch_at(0)
    np.testing.assert_array_equal(batch["image"], np.ones((2, 4, 4, 3), np.float32))
    source = jsonl.Manifest(write(tmp_path, LINES[1:]))
    batches = loader.Batches(source, batch_examples=1, seed=0, image_ops=ops)
    with pytest.raises(ValueError, match=r"record 0 .*deep/b\.png"):
        next(batches)
