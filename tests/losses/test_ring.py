"""Rings of devices against the plain losses, and what they hold in memory."""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from big_mm.losses import contrastive, ring

GOLDEN = Path(__file__).parents[1] / "golden" / "oc_losses"
B, K, E = 24, 3, 16
RINGS = {"sigmoid": ring.sigmoid, "softmax": ring.softmax}
each_loss = pytest.mark.parametrize("name", RINGS)
# Machine code is made for a single call here: it need not be good.
compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def devices(count, **axes):
    axes = axes or {"data": count}
    auto = (AxisType.Auto,) * len(axes)
    some = jax.devices()[:count]
    return jax.make_mesh(tuple(axes.values()), tuple(axes), auto, devices=some)


def draw(seed, *shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def everything():
    """Shared concepts, absent texts of any content, and blocks without any text."""
    rng = np.random.default_rng(2)
    concept, present = rng.integers(0, 15, B), rng.random((B, K)) < 0.6
    present[:4] = False
    concept[0] = 99  # an image that has no text at all, nor has its concept
    text = np.where(present[..., None], draw(1, B, K, E), np.nan)
    batch = dict(image=draw(0, B, E), text=text.astype(np.float32))
    return batch | dict(concept=concept, text_present=present)


def gradients(name, loss, **options):
    """Compiled: losses and gradients by image, text, log_scale and bias."""

    def total(parts, batch):
        scalars = dict(log_scale=parts["log_scale"])
        if name == "sigmoid":
            scalars["bias"] = parts["bias"]
        batch = batch | {"image": parts["image"], "text": parts["text"]}
        value = loss(**batch, **scalars, **options)
        weight = jnp.linspace(0.5, 1.5, len(value), dtype=value.dtype)
        return (weight * value).mean(), value

    grad = compiled(jax.value_and_grad(total, has_aux=True))

    def run(batch, log_scale=2.3, bias=-3.0):
        parts = dict(image=batch["image"], text=batch["text"])
        parts |= dict(log_scale=np.float32(log_scale), bias=np.float32(bias))
        rest = {k: v for k, v in batch.items() if k not in ("image", "text")}
        return grad(parts, rest)

    return run


@functools.cache
def plain(name):
    return gradients(name, getattr(contrastive, name))


@functools.cache
def ringed(name, count, chunk, bidirectional):
    options = dict(chunk=chunk, bidirectional=bidirectional)
    return gradients(name, RINGS[name], mesh=devices(count), **options)


def same(actual, expected):
    jax.tree.map(close, actual, expected)


# ---- the same loss ----


@each_loss
@pytest.mark.parametrize(
    ("count", "chunk", "bidirectional"),
    [
        (1, 7, False),
        (2, 5, True),
        (3, 100, True),
        (4, None, False),
        (8, 4, True),
    ],
)
def test_rings_equal_the_plain_loss_in_value_and_gradient(
    name, count, chunk, bidirectional
):
    rows = NamedSharding(devices(count), PartitionSpec("data"))
    run = ringed(name, count, chunk, bidirectional)
    actual = run(jax.device_put(everything(), rows))
    same(actual, plain(name)(everything()))
    (_, losses), by = actual
    for array in (losses, by["image"], by["text"]):
        assert array.sharding.is_equivalent_to(rows, array.ndim)


def test_rows_may_be_split_by_several_axes():
    name = "sigmoid"
    mesh = devices(8, tensor=2, data=2, fsdp=2)
    options = dict(mesh=mesh, axis=("data", "fsdp"), chunk=9, bidirectional=True)
    same(
        gradients(name, RINGS[name], **options)(everything()), plain(name)(everything())
    )


def test_bfloat16_towers_keep_a_float32_loss():
    name = "softmax"
    narrow = {k: jnp.bfloat16(everything()[k]) for k in ("image", "text")}
    wide = jax.tree.map(jnp.float32, narrow)
    (_, value), slope = ringed(name, 2, 5, True)(everything() | narrow)
    (_, exact), exact_slope = plain(name)(everything() | wide)
    assert value.dtype == jnp.float32
    close(value, exact)
    for side in ("image", "text"):
        assert slope[side].dtype == jnp.bfloat16
        # Rounded once, at the end: half of the last of 8 bits.
        error = abs(jnp.float32(slope[side]) - exact_slope[side])
        assert (error <= abs(exact_slope[side]) / 255 + 1e-6).all()


@each_loss
def test_large_logits_stay_finite(name):
    batch = everything()
    rows = NamedSharding(devices(2), PartitionSpec("data"))
    batch |= dict(text=np.repeat(-batch["image"][:, None], K, axis=1))
    result = ringed(name, 2, 5, True)(jax.device_put(batch, rows), log_scale=7.0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))


@each_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_are_exact_on_accelerators_too(name, dtype):
    image = draw(0, 4, E).astype(dtype)
    extra = dict(log_scale=0.0) | ({"bias": 0.0} if name == "sigmoid" else {})
    loss = functools.partial(RINGS[name], mesh=devices(1), **extra)
    program = str(jax.make_jaxpr(jax.grad(lambda i: loss(i, i).sum()))(image))
    products = program.count("dot_general[")
    assert products >= 3
    assert program.count("Precision.HIGHEST") == 2 * products


# ---- numbers of others ----


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("siglip_bidir", dict(bidirectional=True, chunk=2)),
        ("clip_local1_gradgather1", dict(chunk=3)),
    ],
)
def test_open_clip_on_four_ranks(x64, case, options):
    arrays = np.load(GOLDEN / "arrays.npz")
    golden = json.loads((GOLDEN / "scalars.json").read_text())[f"dist4_{case}"]
    pair = [np.float64(arrays[f"{side}_16x8"]) for side in ("img", "txt")]
    name = "sigmoid" if "siglip" in case else "softmax"
    scale, bias = (10.0, -10.0) if name == "sigmoid" else (14.285714, 0.0)

    def by_rank(image, text, scale, bias):
        extra = dict(bias=bias) if name == "sigmoid" else {}
        loss = functools.partial(RINGS[name], mesh=devices(4), **options, **extra)
        return loss(image, text, log_scale=jnp.log(scale)).reshape(4, 4).mean(axis=1)

    losses, back = jax.vjp(jax.jit(by_rank), *pair, scale, bias)
    by_image, by_text, by_scale, by_bias = back(jnp.ones(4))
    exact = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    exact(by_image, arrays[f"dist4_{case}_d_img"])
    exact(by_text, arrays[f"dist4_{case}_d_txt"])
    exact(by_scale, sum(golden["d_scale_per_rank"]))
    if name == "sigmoid":
        exact(losses, golden["loss_per_rank"])
        exact(by_bias, sum(golden["d_bias_per_rank"]))
    exact(losses.mean(), golden["loss_mean"])


# ---- memory ----


@pytest.mark.parametrize(
    ("name", "bidirectional"), [("sigmoid", False), ("softmax", True)]
)
def test_memory_does_not_grow_with_the_devices(name, bidirectional):
    local, chunk, width = 128, 16, 8
    held = []
    for count in (4, 8):
        mesh = devices(count)
        extra = dict(log_scale=2.3) | ({"bias": -3.0} if name == "sigmoid" else {})
        extra |= dict(mesh=mesh, chunk=chunk, bidirectional=bidirectional)
        loss = functools.partial(RINGS[name], **extra)
        grad = jax.grad(lambda i, t, loss=loss: loss(i, t).sum(), argnums=(0, 1))
        rows = NamedSharding(mesh, PartitionSpec("data"))
        x = jax.ShapeDtypeStruct((count * local, width), jnp.float32, sharding=rows)
        program = compiled(grad).lower(x, x).compile()
        held.append(program.memory_analysis().temp_size_in_bytes)
        text = program.as_text()
        assert "collective-permute" in text
        assert not re.search("all-gather|all-to-all", text)
    # Keeping the blocks that come by would add four of 4 KiB, their logits of 64 KiB.
    assert held[1] <= 1.05 * held[0]
    if name == "sigmoid":
        assert held[0] < 4 * local**2


@each_loss
def test_bad_input_is_refused(name):
    image = draw(0, 6, E)
    extra = dict(log_scale=0.0) | ({"bias": 0.0} if name == "sigmoid" else {})
    loss = functools.partial(RINGS[name], image, image, mesh=devices(4), **extra)
    with pytest.raises(ValueError, match="multiple of 4"):
        loss()
    with pytest.raises(ValueError, match=r"got \['model'\], it has \('data',\)"):
        loss(axis=("data", "model"))
    with pytest.raises(ValueError, match="1 or more"):
        loss(mesh=devices(2), chunk=0)
