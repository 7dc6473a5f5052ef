from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from big_mm import optim

GOLDEN = Path(__file__).parent / "golden" / "bv_optim.npz"
METHODS = sorted(optim.METHODS)


def weights():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {
        "image": {
            "blocks_0": {"up": {"kernel": draw(40, 64), "bias": draw(64)}},
            "blocks_1": {"up": {"kernel": draw(40, 64), "bias": draw(64)}},
        },
        "text": {"embed": {"embedding": draw(32, 16)}, "out": {"kernel": draw(16, 8)}},
        "log_scale": draw(),
    }


def run(params, steps=3, gradient=None, **config):
    """The weights after some updates, and the state."""
    config = dict(learning_rate=0.1, total_steps=10) | config
    optimizer, _ = optim.make(params, **config)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(steps):
        gradients = gradient or jax.tree.map(lambda x, s=step: jnp.cos(x + s), params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


# ---- the numbers of big_vision ----


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("adam", dict(method="adam", b2=0.95)),
        ("adafactor", dict(method="adafactor")),
        ("momentum_hp", dict(method="sgd", momentum=0.9, mu_dtype="bfloat16")),
    ],
)
def test_four_updates_of_big_vision(name, config):
    golden = np.load(GOLDEN)

    def tree(prefix):
        kernel, bias = (golden[f"{prefix}/enc/{x}"] for x in ("kernel", "bias"))
        return {"enc": {"kernel": kernel, "bias": bias}, "t": golden[f"{prefix}/t"]}

    params = tree("optim/params0")
    optimizer, _ = optim.make(
        params,
        **config,
        learning_rate=0.1,
        schedule=dict(name="cosine", warmup=2),
        total_steps=8,
        weight_decay=0.01,
        clip_norm=1.0,
        rules=[dict(path="^t$", freeze=True)],
    )
    state = optimizer.init(params)
    for step in range(4):
        updates, state = optimizer.update(tree(f"optim/grad{step}"), state, params)
        params = optax.apply_updates(params, updates)
    close(params, tree(f"optim/{name}/after4"), rtol=1e-6, atol=1e-7)


# ---- by hand ----


def test_plain_descent_by_hand():
    # Step 0: schedule 1, step 1: 1/2. Gradient 3 in both; decay for the kernel alone.
    params = {"a": {"kernel": jnp.float32(2)}, "b": {"bias": jnp.float32(2)}}
    gradient = jax.tree.map(lambda x: jnp.float32(3), params)
    after, _ = run(
        params,
        steps=2,
        gradient=gradient,
        method="sgd",
        learning_rate=0.1,
        schedule=dict(name="linear"),
        total_steps=2,
        weight_decay=0.5,
    )
    first = 2 - (0.1 * 3 + 0.5 * 2)
    second = first - 0.5 * (0.1 * 3 + 0.5 * first)
    close(after, {"a": {"kernel": second}, "b": {"bias": 2 - 1.5 * 0.3}}, rtol=1e-6)


def test_decay_may_follow_the_learning_rate():
    params = {"kernel": jnp.float32(2)}
    gradient = {"kernel": jnp.float32(0)}
    config = dict(steps=1, gradient=gradient, method="sgd", weight_decay=0.5)
    after, _ = run(params, **config, decay_follows="learning_rate")
    np.testing.assert_allclose(after["kernel"], 2 - 0.1 * 0.5 * 2)
    rules = [dict(path="kernel", learning_rate=0.1, weight_decay=2.0)]
    after, _ = run(params, **config, decay_follows="learning_rate", rules=rules)
    np.testing.assert_allclose(after["kernel"], 2 - 0.01 * 0.5 * 2 * 2, rtol=1e-6)


def test_adamw_is_that_of_optax_when_decay_follows_the_learning_rate():
    params = {"kernel": jnp.arange(4.0)}
    optimizer = optax.adamw(0.1, b2=0.95, weight_decay=0.2)
    expected, state = params, optimizer.init(params)
    for step in range(3):
        gradient = jax.tree.map(lambda x, s=step: jnp.cos(x + s), params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, expected)
        expected = optax.apply_updates(expected, updates)
    after, actual = params, None
    optimizer, _ = optim.make(
        params,
        method="adamw",
        b2=0.95,
        learning_rate=0.1,
        weight_decay=0.2,
        decay_follows="learning_rate",
        total_steps=3,
    )
    actual = optimizer.init(params)
    for step in range(3):
        gradient = jax.tree.map(lambda x, s=step: jnp.cos(x + s), params)
        updates, actual = optimizer.update(gradient, actual, after)
        after = optax.apply_updates(after, updates)
    close(after, expected, rtol=1e-6)


def test_lion_moves_by_the_learning_rate():
    params = weights()
    after, _ = run(params, steps=1, method="lion")
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(np.abs(old - new), 0.1, rtol=1e-5)


def test_learning_rate_is_reported_as_it_is_used():
    _, rate = optim.make(
        weights(),
        learning_rate=0.3,
        schedule=dict(name="cosine", warmup="20 %"),
        total_steps=10,
    )
    np.testing.assert_allclose([rate(s) for s in (0, 1, 2)], [0, 0.15, 0.3], rtol=1e-6)


# ---- rules ----


def test_first_matching_rule_wins():
    params = weights()
    gradient = jax.tree.map(jnp.ones_like, params)
    rules = [
        dict(path="image/blocks_0/", learning_rate=0.5),
        dict(path="^image/", learning_rate=0.1),
    ]
    config = dict(steps=1, gradient=gradient, method="sgd")
    after, _ = run(params, **config, rules=rules)
    moved = jax.tree.map(lambda old, new: (old - new).mean(), params, after)
    close(jax.tree.leaves(moved["image"]["blocks_0"]), [0.05, 0.05], rtol=1e-4)
    close(jax.tree.leaves(moved["image"]["blocks_1"]), [0.01, 0.01], rtol=1e-4)
    close(jax.tree.leaves(moved["text"]), [0.1, 0.1], rtol=1e-4)


def test_decay_is_for_kernels_unless_a_rule_says_more():
    params = weights()
    zero = jax.tree.map(jnp.zeros_like, params)
    rules = [
        dict(path="embedding", weight_decay=1.0),
        dict(path="blocks_1", weight_decay=0.0),
        dict(path="text/out", learning_rate=0.1),  # of rates; decay is as before
    ]
    config = dict(steps=1, gradient=zero, method="sgd", weight_decay=0.5)
    after, _ = run(params, **config, rules=rules)
    kept = jax.tree.map(lambda old, new: float((new / old).mean()), params, after)
    assert kept["image"]["blocks_0"]["up"] == {"kernel": 0.5, "bias": 1.0}
    assert kept["image"]["blocks_1"]["up"] == {"kernel": 1.0, "bias": 1.0}
    assert kept["text"] == {"embed": {"embedding": 0.5}, "out": {"kernel": 0.5}}
    assert kept["log_scale"] == 1.0


def test_rule_may_bring_its_own_schedule():
    params = weights()
    gradient = jax.tree.map(jnp.ones_like, params)
    after, _ = run(
        params,
        steps=1,
        gradient=gradient,
        method="sgd",
        schedule=dict(name="constant", warmup=5),
        rules=[dict(path="^text/", schedule=dict(name="constant"))],
    )
    equal(after["image"], params["image"])  # still at 0
    moved = jax.tree.map(lambda old, new: (old - new).mean(), params, after)
    close(jax.tree.leaves(moved["text"]), [0.1, 0.1], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_frozen_weights_stay_and_have_no_memory(method):
    params = weights()
    rules = [dict(path="^image/", freeze=True)]
    after, state = run(params, method=method, weight_decay=0.5, rules=rules)
    equal(after["image"], params["image"])
    assert not any("image" in path for path in paths(state))
    changed = jax.tree.map(lambda a, b: bool((a != b).all()), after, params)
    assert all(jax.tree.leaves(changed["text"]))


def test_frozen_gradients_do_not_count_in_the_norm():
    params = weights()
    wild = jax.tree.map(jnp.ones_like, params)
    wild["image"] = jax.tree.map(lambda x: x + jnp.inf, wild["image"])
    calm = wild | {"image": jax.tree.map(jnp.zeros_like, params["image"])}
    rules = [dict(path="^image/", freeze=True)]
    config = dict(method="sgd", clip_norm=1.0, rules=rules)
    equal(run(params, gradient=wild, **config), run(params, gradient=calm, **config))


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
    gradient = {"a": jnp.array([2.0, 2.0, 2.0]), "b": jnp.array([2.0])}  # of norm 4
    config = dict(steps=1, gradient=gradient, method="sgd", learning_rate=1.0)
    after, _ = run(params, **config, clip_norm=1.0)
    close(after, {"a": np.full(3, -0.5), "b": np.full(1, -0.5)}, rtol=1e-6)
    after, _ = run(params, **config, clip_norm=5.0)
    close(after, jax.tree.map(jnp.negative, gradient))


# ---- the state ----


def test_state_repeats_the_paths_of_the_weights():
    params = weights()
    for method, copies in {"adam": 2, "lion": 1, "adafactor": 4, "sgd": 0}.items():
        _, state = run(params, steps=1, method=method)
        for path in paths(params):
            held = [name for name in paths(state) if name.endswith(path)]
            assert len(held) == copies, (method, path)


@pytest.mark.parametrize("method", ["adam", "lion", "sgd"])
def test_memories_may_be_bfloat16(method):
    momentum = {"momentum": 0.9} if method == "sgd" else {}
    after, state = run(weights(), method=method, mu_dtype="bfloat16", **momentum)
    types = [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert jnp.bfloat16 in types
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    wide, _ = run(weights(), method=method, **momentum)
    if method != "lion":  # the sign may turn where the momentum is near 0
        close(after, wide, rtol=1e-2, atol=1e-2)


def test_adafactor_factors_what_is_large_enough():
    params = weights()
    _, state = run(params, steps=1, method="adafactor")
    sizes = dict(zip(paths(state), map(jnp.size, jax.tree.leaves(state)), strict=True))
    held = {p: n for p, n in sizes.items() if p.endswith("blocks_0/up/kernel")}
    assert sorted(held.values()) == [1, 40, 64, 40 * 64]  # the last: bfloat16 momentum


def test_adafactor_caps_its_decay():
    # Never a memory of squares: each update is the sign of its own gradient, and four
    # of them end on an even number.
    params = {"bias": jnp.array([0.25, -0.75, 2.0])}
    config = dict(method="adafactor", momentum=None, learning_rate=1.0, steps=4)
    way = lambda **more: run(params, **config, **more)[0]["bias"] - params["bias"]
    uneven = lambda x: np.abs(x / 2 - np.round(x / 2))
    np.testing.assert_allclose(uneven(way(b2_cap=0.0)), 0, atol=1e-5)
    assert (uneven(way()) > 1e-2).any()
    gradient = {"bias": jnp.array([1.0, -2.0, 3.0])}
    # Clipped: the root mean square of an update is at most 1/2.
    after, _ = run(params, gradient=gradient, clip_rms=0.5, **config)
    moved = jax.tree.map(jnp.subtract, after, params)
    close(moved, {"bias": np.array([-2.0, 2.0, -2.0])}, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_are_enough_to_make_it(method):
    params = weights()
    shapes = jax.eval_shape(lambda: params)
    config = dict(method=method, learning_rate=0.1, total_steps=3)
    optimizer, _ = optim.make(shapes, **config)
    expected = optim.make(params, **config)[0].init(params)
    state = jax.eval_shape(optimizer.init, shapes)
    assert jax.tree.structure(state) == jax.tree.structure(expected)


@pytest.mark.parametrize("method", ["adam", "adafactor"])
def test_eight_devices_update_as_one_does(mesh, method):
    params = weights()
    by_column = NamedSharding(mesh, PartitionSpec(None, "data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(
        lambda x: jax.device_put(x, by_column if x.ndim == 2 else everywhere), params
    )
    config = dict(method=method, clip_norm=1.0, weight_decay=0.1)
    expected, _ = run(params, **config)
    actual, _ = run(placed, **config)
    kernel = actual["image"]["blocks_0"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (40, 8)
    tolerance = dict(rtol=1e-5, atol=1e-6) if method == "adam" else dict(rtol=1e-3)
    close(actual, expected, **tolerance)


# ---- bad input ----


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(method="adem"), "Did you mean 'adam'"),
        (dict(method="lion", eps=1.0), "'lion' has no argument 'eps'"),
        (dict(clip_norm=0.0), "clip_norm must be positive"),
        (dict(decay_follows="rate"), "decay_follows is"),
        (dict(schedule=dict(name="cosin")), "no schedule 'cosin'"),
        (dict(rules=[dict(path="imgae")]), "near are .*image"),
        (dict(rules=[dict(path="(")]), "regular expression"),
        (dict(rules=[dict(freeze=True)]), "needs a path"),
        (dict(rules=[dict(path="image", rate=2)]), "a rule has no 'rate'"),
        (dict(rules=[dict(path="image", learning_rate=0.0)]), "freeze=True"),
        (dict(rules=[dict(path="image", freeze=True, weight_decay=1)]), "no further"),
        (dict(rules=[dict(path=".", freeze=True)]), "rules freeze all"),
        (dict(rules=[dict(path="e"), dict(path="image")]), "earlier rules"),
    ],
)
def test_bad_input_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        optim.make(weights(), learning_rate=0.1, total_steps=10, **config)


def test_weights_are_needed():
    optimizer, _ = optim.make(weights(), learning_rate=0.1, total_steps=10)
    with pytest.raises(ValueError, match="call update with params"):
        optimizer.update(weights(), optimizer.init(weights()))
