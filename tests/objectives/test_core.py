"""Terms add up under their weights, and do not disturb one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_mm.objectives.core import Context, Term, after, weighted_sum

CONTEXT = Context(rng=jax.random.key(0), step=jnp.int32(3))


def squares(source, batch, context):
    return (source**2).sum(), {"mean": source.mean()}


def noise(source, batch, context):
    return jax.random.normal(context.rng), {}


def test_sum_by_hand():
    # 2 x (1 + 4) + (3 + 1) x (1 + 4) = 30; metrics are not weighted.
    terms = {
        "a": Term(squares, 2.0),
        "b": Term(squares, lambda step: (step + 1).astype(jnp.float32)),
    }
    loss, metrics = weighted_sum(terms)(jnp.array([1.0, 2.0]), {}, CONTEXT)
    assert loss == 30
    assert metrics["a/loss"] == metrics["b/loss"] == 5
    assert metrics["a/weight"] == 2
    assert metrics["b/weight"] == 4
    assert metrics["a/mean"] == 1.5


def test_a_term_keeps_its_random_numbers_whatever_stands_beside_it():
    alone = weighted_sum({"noise": Term(noise)})
    beside = weighted_sum({"a": Term(squares), "noise": Term(noise), "z": Term(noise)})
    source = jnp.ones(2)
    first, second = (f(source, {}, CONTEXT)[1] for f in (alone, beside))
    assert first["noise/loss"] == second["noise/loss"]
    assert second["z/loss"] != second["noise/loss"]


def test_one_forward_pass_serves_all_terms():
    calls = []

    def forward(params, batch, context):
        calls.append(1)
        return params * batch["x"]

    both = weighted_sum({"a": Term(squares), "b": Term(squares)})
    batch = {"x": jnp.array([1.0, 3.0])}
    loss, _ = after(forward, both)(jnp.float32(2), batch, CONTEXT)
    np.testing.assert_allclose(loss, 2 * (4 + 36))
    assert calls == [1]


def test_no_term_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        weighted_sum({})
