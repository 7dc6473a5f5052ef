"""The two towers against the reference implementation, and their laws."""

import functools
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm import sharding
from big_mm.layers.blocks import stack, unstack
from big_mm.models import two_towers

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
IMAGE = dict(
    name="models.vit:tower", variant="mu/8", image_px=32, depth=2, mlp=64, heads=2
)
TEXT = dict(
    name="models.text:transformer",
    variant="mu",
    vocab_size=64,
    length_tokens=8,
    depth=2,
    mlp=64,
)
CONV_AND_BAG = dict(
    image=dict(
        name="models.vit:tower",
        variant="mu",
        image_px=(18, 16),
        stem="conv",
        stem_layers=((8, 2), (8, 1), (16, 2)),
        pool="mean",
        head_width=24,
    ),
    text=dict(name="models.text:bag", vocab_size=64, width=16, length_tokens=8),
)

# The reference's names for a weight, from ours. First match wins.
NAMES = (
    (r"^log_scale$", "t"),
    (r"^bias$", "b"),
    (r"^image/", "img/"),
    (r"^text/", "txt/"),
    (r"/patch/", "/embedding/"),
    (r"/embed/embedding", "/Embed_0/embedding"),
    (r"/position$", "/pos_embedding"),
    (r"^img/blocks", "img/Transformer/encoderblock"),
    (r"^txt/blocks", "txt/Encoder_0/encoderblock"),
    (r"^img/norm/", "img/Transformer/encoder_norm/"),
    (r"^txt/norm/", "txt/Encoder_0/encoder_norm/"),
    (r"/pool/norm/", "/MAPHead_0/LayerNorm_0/"),
    (r"/pool/", "/MAPHead_0/"),
    (r"/norm_1/", "/LayerNorm_0/"),
    (r"/norm_2/", "/LayerNorm_1/"),
    (r"/attention/", "/MultiHeadDotProductAttention_0/"),
    (r"/mlp/up/", "/MlpBlock_0/Dense_0/"),
    (r"/mlp/down/", "/MlpBlock_0/Dense_1/"),
)


def reference_name(path):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def from_reference(arrays, like, prefix=""):
    """Weights shaped as `like`, read under the reference's names."""
    used = set()

    def read(path, leaf):
        used.add(prefix + reference_name(path))
        return jnp.asarray(arrays[prefix + reference_name(path)]).reshape(leaf.shape)

    params = jax.tree.map_with_path(read, like)
    return params, used


@functools.cache
def golden():
    with np.load(GOLDEN / "bv_siglip_tiny.npz") as file:
        return dict(file)


@functools.cache
def make(scan=False, remat="none", dtype="float32"):
    return two_towers.make(image=IMAGE, text=TEXT, scan=scan, remat=remat, dtype=dtype)


@functools.cache
def tiny(scan=False, remat="none", dtype="float32"):
    """Model, the reference's weights, and a jitted forward pass."""
    model = make(scan, remat, dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layout = "scan" if scan else "loop"
    with np.load(GOLDEN / f"bv_siglip_tiny_params_{layout}.npz") as file:
        params, used = from_reference(file, shapes, "params/")
        assert used == set(file.files)
    return model, params, jax.jit(model.apply)


def inputs():
    return {side: jnp.asarray(golden()[f"in/{side}"]) for side in ("image", "text")}


def logits(out):
    return jnp.exp(out.log_scale) * out.image @ out.text.T + out.bias


def loss(model, params, batch):
    """The sigmoid loss, plainly: this test must not lean on another module."""
    out = model.apply(params, **batch)
    sign = 2 * jnp.eye(len(out.image)) - 1
    return -jax.nn.log_sigmoid(sign * logits(out)).sum(axis=-1).mean()


@functools.cache
def gradients(scan=False, remat="none"):
    model, params, _ = tiny(scan, remat)
    step = jax.jit(
        lambda p: jax.value_and_grad(functools.partial(loss, model))(p, inputs())
    )
    return step(params)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    check = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(check, actual, expected)


@pytest.mark.parametrize("scan", [False, True])
def test_embeddings_and_logits_of_the_reference(scan):
    _, params, apply = tiny(scan)
    out = apply(params, **inputs())
    close(out.image, golden()["out/zimg"], rtol=0, atol=5e-6)
    close(out.text, golden()["out/ztxt"], rtol=0, atol=5e-6)
    close(logits(out), golden()["out/logits"], rtol=0, atol=5e-6)
    close(out.image_tokens, golden()["mid/img/encoded"], atol=5e-6)
    close(out.text_tokens, golden()["mid/txt/transformed"], atol=5e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_loss_and_every_gradient_of_the_reference(scan):
    value, grads = gradients(scan)
    close(value, golden()["out/loss"], rtol=0, atol=5e-6)
    grads = unstack(grads) if scan else grads
    expected, used = from_reference(golden(), grads, "grad/")
    assert used == {key for key in golden() if key.startswith("grad/")}
    for (path, actual), wanted in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        error = np.linalg.norm(actual - wanted)
        # A key's bias has no effect, so that its gradient is rounding on both sides.
        assert error <= 1e-4 * np.linalg.norm(wanted) + 1e-7, path


@pytest.mark.parametrize("remat", ["full", "dots", "dots_no_batch"])
@pytest.mark.parametrize("scan", [False, True])
def test_remat_changes_no_value_and_no_gradient(scan, remat):
    close(gradients(scan, remat), gradients(scan), rtol=2e-5, atol=2e-6)


def test_both_layouts_are_one_model():
    _, loop, _ = tiny(False)
    _, scanned, _ = tiny(True)
    jax.tree.map(np.testing.assert_array_equal, stack(loop), scanned)
    jax.tree.map(np.testing.assert_array_equal, unstack(scanned), loop)
    close(gradients(True)[1], stack(gradients(False)[1]), atol=2e-6)
