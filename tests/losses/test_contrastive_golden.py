"""The losses against stored numbers of big_vision and open_clip."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.losses import contrastive

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "oc_losses" / "scalars.json").read_text())
SIGLIP = dict(log_scale=np.log(10.0), bias=-10.0)
sigmoid = jax.jit(contrastive.sigmoid, static_argnames="chunk")
softmax = jax.jit(contrastive.softmax, static_argnames="chunk")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_big_vision_towers():
    golden = np.load(GOLDEN / "bv_siglip_tiny.npz")
    pair = golden["out/zimg"], golden["out/ztxt"]
    log_scale, bias = np.log(golden["out/t"][0]), golden["out/b"][0]
    value = sigmoid(*pair, log_scale=log_scale, bias=bias).mean()
    np.testing.assert_allclose(value, golden["out/loss"], rtol=1e-6)
    value = softmax(*pair, log_scale=log_scale).mean()
    np.testing.assert_allclose(value, golden["out/loss_softmax"], rtol=1e-6)


def test_open_clip_ranks_are_rows_of_the_batch(x64):
    # Four processes with four pairs each: the loss of a process is that of its images.
    arrays = np.load(GOLDEN / "oc_losses" / "arrays.npz")
    pair = [np.float64(arrays[f"{side}_16x8"]) for side in ("img", "txt")]
    by_rank = sigmoid(*pair, **SIGLIP, chunk=4).reshape(4, 4).mean(axis=1)
    for exchange in ("bidir", "shift", "reduce", "gather"):
        expected = CASES[f"dist4_siglip_{exchange}"]["loss_per_rank"]
        np.testing.assert_allclose(by_rank, expected, rtol=1e-12)


@pytest.mark.parametrize("size", ["8x16", "16x8"])
@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("siglip_init", None),
        ("siglip_trained", None),
        ("siglip_chunk3", 3),
        ("siglip_nobias0", None),
        ("clip", None),
        ("clip_scale100", 3),
    ],
)
def test_open_clip(x64, name, size, chunk):
    arrays = np.load(GOLDEN / "oc_losses" / "arrays.npz")
    case = CASES[f"{name}_{size}"]
    pair = [np.float64(arrays[f"{side}_{size}"]) for side in ("img", "txt")]

    def mean(image, text, scale, bias):
        log_scale = jnp.log(scale)
        if name.startswith("clip"):
            return softmax(image, text, log_scale=log_scale, chunk=chunk).mean()
        return sigmoid(image, text, log_scale=log_scale, bias=bias, chunk=chunk).mean()

    scalars = (case["logit_scale"], case["logit_bias"] or 0.0)
    grad = jax.value_and_grad(mean, argnums=(0, 1, 2, 3))
    value, (d_image, d_text, d_scale, d_bias) = grad(*pair, *scalars)
    exact = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    exact(value, case["loss"])
    exact(d_scale, case["d_scale"])
    exact(d_bias, case["d_bias"] or 0.0)
    exact(d_image, arrays[f"{name}_{size}_d_img"])
    exact(d_text, arrays[f"{name}_{size}_d_txt"])
