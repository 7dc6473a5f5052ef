"""Embeddings do not depend on who stands beside whom, nor on the devices."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.encoding import Encoding
from big_mm.models.core import Model
from big_mm.sharding import make_mesh


class Output(NamedTuple):
    image: object = None
    text: object = None


def apply(params, *, image=None, text=None):
    if image is not None:
        return Output(image=image.mean(axis=(1, 2)) * params["scale"])
    return Output(text=text.astype(jnp.float32) * params["scale"])


PARAMS = {"scale": jnp.float32(2)}


def encoding(batch_examples, mesh=(("data", 8),)):
    return Encoding(
        model=Model(init=lambda rng: PARAMS, apply=apply),
        mesh=make_mesh(mesh),
        prepare=lambda number: np.full((2, 2, 3), number, np.float32),
        tokenize=lambda texts: np.array([[len(t), 1] for t in texts], np.int32),
        batch_examples=batch_examples,
    )


@pytest.mark.parametrize("batch_examples", [1, 8, 12, 64])
@pytest.mark.parametrize("count", [1, 8, 19])
def test_all_are_encoded_in_order_whatever_the_batch(batch_examples, count):
    encode = encoding(batch_examples)
    numbers = np.arange(count, dtype=np.float32)
    expected = np.repeat(2 * numbers[:, None], 3, axis=1)
    np.testing.assert_array_equal(encode.image(PARAMS, list(numbers)), expected)
    texts = ["x" * n for n in range(count)]
    expected = np.stack([2 * numbers, np.full(count, 2)], axis=1)
    np.testing.assert_array_equal(encode.text(PARAMS, texts), expected)


def test_tensor_parallel_devices_do_not_split_a_batch():
    encode = encoding(3, mesh=(("data", 2), ("tensor", 4)))
    found = encode.text(PARAMS, ["a", "bb", "ccc"])
    np.testing.assert_array_equal(found[:, 0], [2, 4, 6])


def test_nothing_to_encode_is_refused():
    with pytest.raises(ValueError, match="an image to encode"):
        encoding(8).image(PARAMS, [])
    with pytest.raises(ValueError, match="a text to encode"):
        encoding(8).text(PARAMS, [])
