"""Image towers: sizes to the last weight, starts of the weights, stems and pools."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.models import core, vit

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
CONV = dict(
    variant="mu", image_px=(13, 8), stem="conv", stem_layers=((8, 2), (8, 1), (4, 2, 4))
)


def pixels(*shape):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape), jnp.float32)


def shapes(tower):
    return jax.eval_shape(tower.init, jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Zhai et al., 2023, Tschannen et al., 2025 and 2023: sizes of the released weights.
@pytest.mark.parametrize(
    ("variant", "image_px", "weights"),
    [
        ("B/32", 256, 94_552_320),
        ("B/16", 224, 92_884_224),
        ("B/16", 256, 92_930_304),
        ("L/16", 256, 315_956_224),
        ("So400m/14", 224, 427_680_704),
        ("So400m/16", 256, 427_888_064),
        ("g-opt/16", 256, 1_163_168_256),
        ("G/14", 224, 1_881_132_416),
    ],
)
def test_released_sizes_to_the_last_weight(variant, image_px, weights):
    tower = vit.tower(variant=variant, image_px=image_px, scan=True)
    assert count(shapes(tower)) == weights


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("B", 7_087_104),
        ("L", 12_595_200),
        ("So400m", 15_238_352),
        ("g-opt", 28_329_984),
    ],
)
def test_attention_pooling_to_the_last_weight(variant, weights):
    tower = vit.tower(variant=f"{variant}/16", image_px=16, depth=1)
    assert count(shapes(tower)["pool"]) == weights


# CLIPPO: one tower, a head on it, and the temperature.
@pytest.mark.parametrize(("variant", "weights"), [("B/16", 93_474_816), ("L/16", 0)])
def test_a_head_adds_its_weights(variant, weights):
    tower = vit.tower(variant=variant, image_px=224, head_width=768, scan=True)
    weights = weights or 316_681_984
    assert count(shapes(tower)) == weights
    assert tower.width == 768


def test_every_variant_is_as_wide_and_deep_as_written():
    for name, sizes in core.VARIANTS.items():
        tree = shapes(
            vit.tower(variant=f"{name}/2", image_px=4, scan=True, pool="mean")
        )
        up = tree["blocks"]["mlp"]["up"]["kernel"]
        assert up.shape == (sizes.depth, sizes.width, sizes.mlp)
        query = tree["blocks"]["attention"]["query"]["kernel"]
        heads = (sizes.heads, sizes.width // sizes.heads)
        assert query.shape == (sizes.depth, sizes.width, *heads)


def test_weights_start_as_the_reference_draws_them():
    tower = vit.tower(variant="Ti/8", image_px=64, depth=1)
    params = jax.device_get(quick(tower.init)(jax.random.key(0)))
    block = params["blocks_0"]
    deviation = 192**-0.5
    np.testing.assert_allclose(params["position"].std(), deviation, rtol=0.03)
    np.testing.assert_allclose(block["mlp"]["up"]["bias"].std(), 1e-6, rtol=0.1)
    # Xavier: uniform within sqrt(6 / (fan in + fan out)), heads counted as one matrix.
    xavier = {
        (192, 768): block["mlp"]["up"]["kernel"],
        (192, 192): block["attention"]["query"]["kernel"],
        (1, 192): params["pool"]["probe"],
    }
    out = block["attention"]["out"]["kernel"].reshape(192, 192)
    for fans, weights in (*xavier.items(), ((192, 192), out)):
        bound = np.sqrt(6 / sum(fans))
        assert 0.9 * bound < np.abs(weights).max() <= bound
        assert weights.size == np.prod(fans)
    for zero in (params["patch"], block["attention"]["out"], params["norm"]):
        np.testing.assert_array_equal(zero["bias"], 0)
    np.testing.assert_array_equal(params["norm"]["scale"], 1)


def test_pixels_that_fill_no_patch_are_not_seen():
    # 21 px hold two patches of 8 px: the last five rows and columns have no effect.
    tower = vit.tower(variant="mu/8", image_px=21)
    params, apply = quick(tower.init)(jax.random.key(0)), quick(tower.apply)
    image = pixels(2, 21, 21, 3)
    out = apply(params, image)
    assert out.tokens.shape == (2, 4, 32)
    cut = np.array(image)
    cut[:, 16:] = cut[:, :, 16:] = 0
    cut = jnp.asarray(cut)
    np.testing.assert_array_equal(apply(params, cut).embedding, out.embedding)
    seen = jnp.asarray(np.where(np.arange(21).reshape(21, 1, 1) == 15, 0, image))
    assert not np.allclose(apply(params, seen).embedding, out.embedding)


@pytest.mark.parametrize("pool", vit.POOLS)
@pytest.mark.parametrize("positions", vit.POSITIONS)
def test_pools_and_positions(pool, positions):
    tower = vit.tower(variant="mu/8", image_px=(16, 24), pool=pool, positions=positions)
    tree = shapes(tower)
    image = jax.ShapeDtypeStruct((2, 16, 24, 3), jnp.float32)
    out = jax.eval_shape(tower.apply, tree, image)
    assert out.tokens.shape == (2, 6, 32)
    assert out.embedding.shape == (2, 6 * 32 if pool == "flat" else 32)
    assert tower.width == out.embedding.shape[1]
    assert ("position" in tree) == (positions == "learned")
    assert ("pool" in tree) == (pool == "map")
    if positions == "learned":
        assert tree["position"].shape == (2, 3, 32)  # rows, columns


def test_mean_and_flat_pool_what_the_tokens_say():
    image = pixels(2, 8, 16, 3)
    for pool, by_hand in (
        ("mean", lambda tokens: tokens.mean(axis=1)),
        ("flat", lambda tokens: tokens.reshape(2, -1)),
    ):
        tower = vit.tower(variant="mu/8", image_px=(8, 16), depth=0, pool=pool)
        out = quick(tower.apply)(quick(tower.init)(jax.random.key(0)), image)
        expected = by_hand(out.tokens)
        np.testing.assert_allclose(out.embedding, expected, rtol=1e-5, atol=1e-6)


def test_convolutional_stem_shrinks_by_its_strides_rounded_up():
    tower = vit.tower(**CONV)
    tree = shapes(tower)
    assert tree["position"].shape == (4, 2, 32)  # 13 -> 7 -> 7 -> 4, 8 -> 4 -> 4 -> 2
    assert tree["stem"]["conv_0"]["kernel"].shape == (3, 3, 3, 8)
    assert tree["stem"]["conv_2"]["kernel"].shape == (4, 4, 8, 4)
    assert tree["patch"]["kernel"].shape == (4, 32)


def test_a_layer_that_keeps_the_shape_is_added_to_its_input():
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    stem = jax.tree.map(draw, shapes(vit.tower(**CONV))["stem"]) | {
        "conv_1": {"kernel": jnp.zeros((3, 3, 8, 8))},
        "norm_1": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
    }
    image = pixels(2, 13, 8, 3)
    with_layer = vit.Stem(((8, 2, 3), (8, 1, 3)), "float32")
    without = vit.Stem(((8, 2, 3),), "float32")
    actual = quick(with_layer.apply)({"params": stem}, image)
    expected = quick(without.apply)({"params": stem}, image)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_other_images_than_the_towers_are_refused():
    tower = vit.tower(variant="mu/8", image_px=16)
    image = jax.ShapeDtypeStruct((1, 24, 16, 3), jnp.float32)
    with pytest.raises(ValueError, match="sees 2 x 2 patches: got images of 24 x 16"):
        jax.eval_shape(tower.apply, shapes(tower), image)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(variant="B/16x"), "written 'B/16'"),
        (dict(variant="B"), "written 'B/16'"),
        (dict(variant="So400/14"), "Did you mean 'So400m'"),
        (dict(variant="B/32", image_px=16), "at least one patch"),
        (dict(image_px=(8, 8, 3)), r"a side or \(height, width\)"),
        (dict(pool="maps"), "Did you mean 'map'"),
        (dict(stem="convs"), "Did you mean 'conv'"),
        (dict(stem="conv"), "no patch side"),
        (dict(stem="conv", variant="B", stem_layers=()), "got none"),
        (dict(stem="conv", variant="B", stem_layers=((8,),)), "channels, stride"),
        (dict(positions="sincos"), "Did you mean 'sincos_2d'"),
        (dict(heads=7), "heads=7, width=768"),
        (dict(width=0), "sizes are positive"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        vit.tower(**dict(image_px=32) | wrong)
