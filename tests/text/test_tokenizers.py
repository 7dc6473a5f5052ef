import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from big_mm.data.emoji import pack
from big_mm.text import languages, tokenizers

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "bv_sp_tiny.model"
CASES = {
    "siglip1": tokenizers.POLICIES["siglip"]._asdict(),
    "siglip2": tokenizers.POLICIES["siglip2"]._asdict(),
    "eos_yes": dict(eos="yes"),
    "eos_none": dict(eos="no"),
    "bos_eos_yes": dict(bos=True, eos="yes", lower=False),
}


@pytest.fixture(scope="module")
def emoji():
    return tokenizers.load("emoji")


@pytest.mark.parametrize("case", CASES)
def test_equals_big_vision(case):
    golden = np.load(GOLDEN / "bv_pp_tiny.npz")
    tokenizer = tokenizers.load(TINY)
    texts = golden["tok/texts"].tolist()
    rows = tokenizer.encode(texts, length_tokens=8, **CASES[case])
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, golden[f"tok/{case}"])


def test_siglip2_rows_are_64_wide_and_end_once(emoji):
    policy = tokenizers.POLICIES["siglip2"]._asdict()
    rows = emoji.encode(["a cat", "cat " * 100], length_tokens=64, **policy)
    assert rows.shape == (2, 64)
    assert ((rows == emoji.eos_id).sum(axis=1) == 1).all()
    assert rows[1, -1] == emoji.eos_id  # cut off, and still ended
    end = rows[0].tolist().index(emoji.eos_id)
    assert (rows[0, end + 1 :] == 0).all()


@pytest.mark.parametrize("length_tokens", [1, 2, 5])
def test_sticky_end_survives_any_cut(emoji, length_tokens):
    rows = emoji.encode(["a very long name of a thing"], length_tokens=length_tokens)
    assert rows.shape == (1, length_tokens)
    assert rows[0, -1] == emoji.eos_id


def test_case_does_not_matter_when_lowered():
    tokenizer = tokenizers.load(TINY)
    low, high = (tokenizer.encode([t], length_tokens=8) for t in ("a cat", "A CAT"))
    np.testing.assert_array_equal(low, high)
    kept = tokenizer.encode(["A CAT"], length_tokens=8, lower=False)
    assert not np.array_equal(kept, high)


def test_special_ids_are_gemmas(emoji):
    assert (emoji.pad_id, emoji.eos_id, emoji.bos_id) == (0, 1, 2)
    assert 4_000 <= emoji.vocab_size <= 8_000


def test_nothing_is_unknown(emoji):
    texts = ["grinning face", "улыбка", "ይህ", "🦄", "\U00010348"]
    rows = emoji.encode(texts, length_tokens=64)
    assert not (rows == 3).any()
    assert emoji.decode(rows) == texts


def test_names_of_training_languages_fit_into_24_ids(emoji):
    names = pack.texts()["names"]
    lengths = [emoji.lengths([n for n in names[c] if n]) for c in languages.XM3600]
    assert np.percentile(np.concatenate(lengths), 99) <= 23
    assert max(of.mean() for of in lengths) < 12  # none is cut into bytes


def test_committed_tokenizer_was_not_shown_the_held_out_scripts(emoji):
    pieces = [emoji._sp.IdToPiece(i) for i in range(emoji.vocab_size)]
    letters = set("".join(pieces))
    for code in pack.texts()["languages"]["held_out_script"]:
        names = set("".join(pack.texts()["names"][code]))
        block = {c for c in names if ord(c) > 0x500 and c.isalpha()}
        assert block
        assert not block & letters, code


def test_hundred_thousand_names_in_seconds(emoji):
    names = [name for code in pack.languages() for name in pack.texts()["names"][code]]
    start = time.perf_counter()
    emoji.encode(names[:100_000], length_tokens=24)
    assert time.perf_counter() - start < 10


def test_threads_and_pickles_agree(emoji):
    names = pack.texts()["names"]["en"]
    expected = emoji.encode(names, length_tokens=16)
    again = pickle.loads(pickle.dumps(emoji))
    assert again == emoji
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(again.encode, names, length_tokens=16) for _ in range(8)]
    for job in jobs:
        np.testing.assert_array_equal(job.result(), expected)


def test_no_texts_are_no_rows(emoji):
    assert emoji.encode([], length_tokens=4).shape == (0, 4)


def test_bad_input_is_named(emoji, tmp_path):
    with pytest.raises(ValueError, match="list of strings"):
        emoji.encode("a cat", length_tokens=4)
    with pytest.raises(ValueError, match="one id or more"):
        emoji.encode(["a cat"], length_tokens=0)
    with pytest.raises(ValueError, match="Did you mean 'emoji'"):
        tokenizers.load("emojis")
    (tmp_path / "x.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"SentencePiece \.model file"):
        tokenizers.load(tmp_path / "x.model")


# Training

TEXTS = [
    f"{a} {b}" for a in pack.texts()["names"]["en"][:300] for b in ("red", "große")
]


def test_trained_twice_is_the_same_file(tmp_path):
    one = tokenizers.train(TEXTS, tmp_path / "1.model", vocab_size=600)
    two = tokenizers.train(iter(TEXTS), tmp_path / "2.model", vocab_size=600)
    assert one.read_bytes() == two.read_bytes()
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    three = tokenizers.train(
        [tmp_path / "corpus.txt"], tmp_path / "3.model", vocab_size=600
    )
    assert one.read_bytes() == three.read_bytes()
    tokenizer = tokenizers.load(one)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    assert tokenizer.vocab_size <= 600
    rows = tokenizer.encode(["GROSSE face 🦄"], length_tokens=32, lower=False)
    assert tokenizer.decode(rows) == ["grosse face 🦄"]


def test_small_corpus_gives_a_small_vocabulary(tmp_path):
    path = tokenizers.train(TEXTS[:20], tmp_path / "x.model", vocab_size=5_000)
    assert 260 < tokenizers.load(path).vocab_size < 5_000


def test_training_refuses_what_cannot_be(tmp_path):
    out = tmp_path / "x.model"
    with pytest.raises(ValueError, match="256 bytes"):
        tokenizers.train(TEXTS, out, vocab_size=100)
    with pytest.raises(ValueError, match="there is no"):
        tokenizers.train(tmp_path / "nowhere.txt", out, vocab_size=600)
    with pytest.raises(ValueError, match="empty"):
        tokenizers.train([], out, vocab_size=600)
    assert not out.exists()
    out.write_text("precious")
    with pytest.raises(ValueError, match="exists"):
        tokenizers.train(TEXTS, out, vocab_size=600)
    assert out.read_text() == "precious"
