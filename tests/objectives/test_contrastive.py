import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from big_mm.losses import contrastive as losses
from big_mm.objectives import contrastive
from big_mm.objectives.core import Context, Term, weighted_sum

B, K, E = 6, 3, 8
OBJECTIVES = {"sigmoid": contrastive.sigmoid, "softmax": contrastive.softmax}
each_objective = pytest.mark.parametrize("name", OBJECTIVES)


class Source(NamedTuple):
    image: Array
    text: Array
    log_scale: Array
    bias: Array


def source():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    unit = lambda x: jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
    return Source(
        unit(draw(B, E)), unit(draw(B, K, E)), jnp.float32(1.2), jnp.float32(-2.0)
    )


def masks():
    rng = np.random.default_rng(1)
    present = rng.random((B, K)) < 0.6
    present[2] = False
    concept = jnp.array([4, 9, 4, 0, 9, 7])
    return dict(concept=concept, text_present=jnp.asarray(present))


CONTEXT = Context(rng=jax.random.key(0), step=jnp.int32(0))


@functools.cache
def compiled(name, chunk=None):
    return jax.jit(OBJECTIVES[name](chunk=chunk))


def run(name, source, batch):
    return compiled(name)(source, batch, CONTEXT)


def test_sigmoid_is_the_mean_over_slots_of_the_loss_of_pairs():
    s = source()
    loss, _ = run("sigmoid", s, {})
    slots = [
        losses.sigmoid(s.image, s.text[:, k], log_scale=s.log_scale, bias=s.bias).mean()
        for k in range(K)
    ]
    np.testing.assert_allclose(loss, np.mean(slots), rtol=1e-6)


def test_softmax_of_one_text_is_the_loss_of_pairs():
    s = source()
    s = s._replace(text=s.text[:, :1])
    loss, _ = run("softmax", s, {})
    expected = losses.softmax(s.image, s.text[:, 0], log_scale=s.log_scale).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@each_objective
def test_masks_of_the_batch_reach_the_loss(name):
    s, batch = source(), masks()
    loss, _ = run(name, s, batch)
    present = np.asarray(batch["text_present"])
    if name == "sigmoid":
        rows = losses.sigmoid(
            s.image, s.text, log_scale=s.log_scale, bias=s.bias, **batch
        )
        expected = np.asarray(rows).sum() / present.sum()
    else:
        rows = losses.softmax(s.image, s.text, log_scale=s.log_scale, **batch)
        expected = rows[present.any(axis=1)].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@each_objective
@pytest.mark.parametrize("batch", [{}, masks()], ids=["pairs", "masks"])
def test_mean_logits_are_those_of_all_pairs(name, batch):
    s = source()
    bias = s.bias if name == "sigmoid" else 0
    logits = np.exp(s.log_scale) * np.einsum("be,cke->bck", s.image, s.text) + bias
    concept = np.asarray(batch.get("concept", np.arange(B)))
    own = (concept[:, None] == concept)[..., None]
    present = np.asarray(batch.get("text_present", np.ones((B, K), bool)))[None]
    _, metrics = run(name, s, batch)
    mean = lambda mask: logits[np.broadcast_to(mask, logits.shape)].mean()
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    close(metrics["positive_logit"], mean(own & present))
    close(metrics["negative_logit"], mean(~own & present))
    assert metrics["log_scale"] == s.log_scale
    assert ("bias" in metrics) == (name == "sigmoid")


@each_objective
def test_chunks_change_nothing_and_logits_are_no_target(name):
    s, batch = source(), masks()

    def everything(chunk):
        objective = OBJECTIVES[name](chunk=chunk)

        @jax.jit
        def gradients(s):
            (loss, metrics), back = jax.vjp(lambda s: objective(s, batch, CONTEXT), s)
            nothing = jax.tree.map(jnp.zeros_like, metrics)
            logits = {"positive_logit": 1.0, "negative_logit": 1.0}
            logits = nothing | jax.tree.map(jnp.float32, logits)
            (of_loss,) = back((jnp.float32(1), nothing))
            (of_logits,) = back((jnp.float32(0), logits))
            return loss, metrics, of_loss, of_logits

        return gradients(s)

    expected, actual = everything(None), everything(4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        actual,
        expected,
    )
    assert not any(x.any() for x in expected[-1])
    program = jax.make_jaxpr(OBJECTIVES[name](chunk=4))(s, batch, CONTEXT)
    assert "scan[" in str(program)  # the values alone would not show it


@pytest.mark.parametrize(
    ("name", "ring"), [("sigmoid", "one_way"), ("softmax", "both_ways")]
)
def test_rings_change_nothing(name, ring):
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((3, 2), ("data", "tensor"), auto, devices=jax.devices()[:6])
    s, batch = source(), masks()
    objective = OBJECTIVES[name](chunk=4, ring=ring)
    # The mesh is no array, so the context that holds it is no argument.
    ringed = jax.jit(lambda s, batch: objective(s, batch, CONTEXT._replace(mesh=mesh)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, ringed(s, batch), run(name, s, batch))
    program = str(ringed.trace(s, batch).jaxpr)
    assert "ppermute" in program  # the values alone would not show it
    assert ("perm=((0, 2)" in program) == (ring == "both_ways")


@each_objective
def test_ring_without_a_mesh_or_a_way_is_refused(name):
    with pytest.raises(ValueError, match="needs a mesh"):
        OBJECTIVES[name](ring="one_way")(source(), {}, CONTEXT)
    with pytest.raises(ValueError, match="Did you mean 'both_ways'"):
        OBJECTIVES[name](ring="both")


@each_objective
def test_batch_without_texts_or_negatives_is_finite(name):
    s = source()
    absent = dict(text_present=jnp.zeros((B, K), bool))
    loss, metrics = run(name, s, absent)
    assert loss == 0
    assert metrics["positive_logit"] == metrics["negative_logit"] == 0
    _, metrics = run(name, s._replace(image=s.image[:1], text=s.text[:1]), {})
    assert metrics["negative_logit"] == 0


def test_they_add_up():
    terms = {name: Term(make(), 0.5) for name, make in OBJECTIVES.items()}
    loss, metrics = jax.jit(weighted_sum(terms))(source(), masks(), CONTEXT)
    parts = [run(name, source(), masks())[0] for name in OBJECTIVES]
    np.testing.assert_allclose(loss, 0.5 * sum(parts), rtol=1e-6)
    np.testing.assert_allclose(metrics["softmax/loss"], parts[1], rtol=1e-6)
