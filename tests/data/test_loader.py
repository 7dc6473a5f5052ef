"""Batches depend on seed, step and process alone, and every record has its turn."""

import threading
import time

import numpy as np
import pytest

from big_mm.data import loader, synthetic
from big_mm.text import languages

IMAGE_OPS = (
    dict(name="data.images:resize", size_px=12),
    dict(name="data.augment:affine", degrees=20.0, shift_fraction=0.1),
    dict(name="data.augment:colour_jitter", brightness=0.3, hue_degrees=20.0),
    dict(name="data.images:value_range"),
)


class Letters:
    """A tokenizer: code points of the letters, counted calls."""

    def __init__(self):
        self.seen = 0

    def encode(self, texts, *, length_tokens, shift=0, pad=0):
        self.seen += len(texts)
        rows = [[ord(c) + shift for c in t[:length_tokens]] for t in texts]
        return np.array([r + [pad] * (length_tokens - len(r)) for r in rows], np.int32)


class Records:
    """A source from a list."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        if isinstance(record, Exception):
            raise record
        return record


def make(source=None, **settings):
    settings = dict(batch_examples=8, seed=3) | settings
    return loader.Batches(source or synthetic.Shapes(examples=30), **settings)


def full(**settings):
    return make(
        **dict(
            image_ops=IMAGE_OPS,
            tokenizer=Letters(),
            length_tokens=16,
            texts_per_image=3,
        )
        | settings
    )


def take(batches, n):
    got = [next(batches) for _ in range(n)]
    batches.close()
    return got


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_a_batch_is_what_the_glossary_says():
    batch = full().batch_at(0)
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert shapes == {
        "image": ((8, 12, 12, 3), "float32"),
        "text": ((8, 3, 16), "int32"),
        "language": ((8, 3), "int32"),
        "text_present": ((8, 3), "bool"),
        "concept": ((8,), "int32"),
    }
    assert -1 <= batch["image"].min() < batch["image"].max() <= 1
    source = synthetic.Shapes(examples=30)
    wordings = [
        {languages.CODES[code]: "".join(map(chr, row[row > 0]))}
        for code, row in zip(
            batch["language"].ravel(), batch["text"].reshape(-1, 16), strict=True
        )
    ]
    for wording, concept in zip(wordings, np.repeat(batch["concept"], 3), strict=True):
        ((language, text),) = wording.items()
        assert text in source[int(concept)]["texts"][language]
    assert all(len(set(row)) == 3 for row in batch["language"])


@pytest.mark.parametrize("cache", [False, True])
def test_a_resumed_run_sees_what_it_would_have_seen(cache):
    whole = take(full(cache=cache), 9)
    rest = take(full(cache=cache, start_step=5), 4)
    for a, b in zip(whole[5:], rest, strict=True):
        assert_equal(a, b)


def test_iteration_is_random_access_with_and_without_cache():
    plain, cached = full(), full(cache=True)
    for step, batch in enumerate(take(plain, 6)):
        assert_equal(batch, full().batch_at(step))
        assert_equal(batch, cached.batch_at(step))
        assert_equal(batch, cached.batch_at(step))
    assert_equal(full().batch_at(10**9), full(cache=True).batch_at(10**9))


def test_threads_and_reading_ahead_change_nothing():
    for settings in (dict(threads=1, prefetch_batches=1), dict(threads=5)):
        for a, b in zip(
            take(full(cache=True, **settings), 6), take(full(), 6), strict=True
        ):
            assert_equal(a, b)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_global_batch_in_order(process_count):
    shards = [
        full(process_index=p, process_count=process_count) for p in range(process_count)
    ]
    for step in (0, 5):
        parts = [shard.batch_at(step) for shard in shards]
        joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        assert_equal(joined, full().batch_at(step))


def test_every_record_comes_once_an_epoch_in_ever_new_orders():
    source = Records([{} for _ in range(15)])  # the concept defaults to the index
    batches = make(source, batch_examples=4)
    stream = np.concatenate([batches.batch_at(step)["concept"] for step in range(15)])
    epochs = stream.reshape(4, 15)  # batches run on over the borders of epochs
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(15))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_of_a_seed_holds_for_ever():
    # Runs that are resumed after an update of the code rely on these numbers.
    batches = make(Records([{}] * 10), batch_examples=20, seed=7)
    first, second = [9, 1, 0, 7, 5, 6, 8, 2, 3, 4], [9, 5, 3, 4, 0, 2, 6, 1, 7, 8]
    np.testing.assert_array_equal(batches.batch_at(0)["concept"], first + second)


def test_neighbouring_seeds_share_no_epoch():
    def epochs(seed):
        batches = make(Records([{}] * 50), batch_examples=50, seed=seed)
        return {tuple(batches.batch_at(step)["concept"]) for step in range(4)}

    assert len(epochs(0) | epochs(1) | epochs(2)) == 12


def test_augmentations_differ_between_examples_and_epochs():
    batches = full(
        source=synthetic.Shapes(examples=1), batch_examples=6, texts_per_image=0
    )
    seen = [image.tobytes() for s in range(2) for image in batches.batch_at(s)["image"]]
    assert len(set(seen)) == 12


def test_image_operations_leave_the_texts_be():
    a, b = full().batch_at(3), full(image_ops=IMAGE_OPS[:1]).batch_at(3)
    for key in ("text", "language", "concept"):
        np.testing.assert_array_equal(a[key], b[key])


def test_missing_texts_are_marked():
    source = Records([{"texts": {"en": ["x"], "fr": []}}, {"texts": {}}])
    batch = make(
        source,
        batch_examples=2,
        texts_per_image=2,
        tokenizer=Letters(),
        token_policy=dict(pad=5),
        length_tokens=3,
        languages=["fr", "en"],
    ).batch_at(0)
    row = int(np.argmin(batch["concept"]))
    expected = np.zeros((2, 2), bool)
    expected[row, 0] = True
    np.testing.assert_array_equal(batch["text_present"], expected)
    np.testing.assert_array_equal(batch["text"][row], [[ord("x"), 5, 5], [0, 0, 0]])
    assert (batch["text"][1 - row] == 0).all()
    assert batch["language"][row, 0] == languages.CODES.index("en")


def test_a_cache_reads_and_tokenises_once():
    tokenizer = Letters()
    reads = []

    class Counted(synthetic.Shapes):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    batches = full(source=Counted(examples=16), tokenizer=tokenizer, cache=True)
    take(batches, 40)
    assert (
        sorted(reads) == sorted(set(reads)) or len(reads) <= 2 * 16
    )  # threads may race
    wordings = 16 * 4 * 2
    assert tokenizer.seen <= 2 + wordings


def test_text_operations_and_policy_reach_the_tokens():
    batch = make(
        Records([{"texts": {"en": ["AB"]}}]),
        batch_examples=1,
        texts_per_image=1,
        text_ops=(
            dict(name="data.texts:lower"),
            dict(name="data.texts:template", format="({})"),
        ),
        tokenizer=Letters(),
        token_policy=dict(shift=1),
        length_tokens=4,
        languages=["en"],
    ).batch_at(0)
    np.testing.assert_array_equal(batch["text"][0, 0], [ord(c) + 1 for c in "(ab)"])


def test_the_wait_is_counted_and_taken():
    class Slow(synthetic.Shapes):
        def __getitem__(self, index):
            time.sleep(0.01)
            return super().__getitem__(index)

    batches = make(Slow(examples=8), batch_examples=4)
    next(batches)
    assert batches.take_wait_s() > 0.03
    assert batches.take_wait_s() == 0
    time.sleep(0.3)  # time to read ahead
    next(batches)
    assert batches.take_wait_s() < 0.03
    assert batches.step == 2
    batches.close()


def test_reading_ahead_ends():
    before = threading.active_count()
    for _ in range(3):
        take(make(), 2)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_corrupt_record_is_named_or_skipped():
    image = np.zeros((4, 4, 3), np.uint8)
    records = [{"image": image}, {"image": b"junk", "path": "b.png"}, {"image": image}]
    ops = (dict(name="data.images:decode"),)
    settings = dict(batch_examples=3, image_ops=ops)
    with pytest.raises(ValueError, match=r"record 1 \(b.png\): .*cannot be d") as error:
        next(make(Records(records), **settings))
    assert "\n" not in str(error.value)  # one line, for standard error
    skipping = make(Records(records), on_error="skip", **settings)
    concepts = [sorted(skipping.batch_at(step)["concept"]) for step in range(3)]
    assert concepts == [[0, 2, 2]] * 3
    assert skipping.skipped == {1}
    with pytest.raises(ValueError, match="set is broken"):
        make(Records(records[1:2]), on_error="skip", **settings).batch_at(0)


def test_errors_of_records_say_what_is_missing():
    ops = (dict(name="data.images:decode"),)
    with pytest.raises(ValueError, match="record 0 has no 'image'"):
        make(Records([{}]), image_ops=ops).batch_at(0)
    with pytest.raises(ValueError, match=r"record 0: .*nowhere"):
        make(Records([{"image": "nowhere.png"}]), image_ops=ops).batch_at(0)
    text = dict(tokenizer=Letters(), length_tokens=4, texts_per_image=1)
    with pytest.raises(ValueError, match="lists of strings"):
        make(Records([{"texts": {"en": "a"}}]), languages=["en"], **text).batch_at(0)
    sizes = [{"image": np.zeros((n, 4, 3), np.uint8)} for n in (3, 4)]
    with pytest.raises(ValueError, match="one size"):
        make(Records(sizes), batch_examples=2, image_ops=ops).batch_at(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(batch_examples=7, process_count=2), "evenly"),
        (dict(process_index=1), "count from 0"),
        (dict(seed=-1), "0 or more"),
        (dict(start_step=-1), "0 or more"),
        (dict(source=Records([])), "at least one record"),
        (dict(texts_per_image=1), "need a tokenizer"),
        (dict(on_error="ignore"), "'raise' or 'skip'"),
        (dict(image_ops=[dict(name="data.images:resiz")]), "Did you mean 'resize'"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, message):
    source = settings.pop("source", synthetic.Shapes())
    with pytest.raises(ValueError, match=message):
        loader.Batches(source, **dict(batch_examples=8, seed=0) | settings)


def test_shapes_are_the_same_each_time_and_all_concepts_come():
    source = synthetic.Shapes(examples=20)
    for index in range(20):
        a, b = source[index], source[index]
        np.testing.assert_array_equal(a["image"], b["image"])
        assert a["concept"] == index
        assert (a["image"] != 255).any()
    assert len({source[i]["texts"]["en"][0] for i in range(20)}) == 20
    other = synthetic.Shapes(examples=20, seed=1)[0]["image"]
    assert (other != source[0]["image"]).any()
