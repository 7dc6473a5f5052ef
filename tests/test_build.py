"""A config becomes a run that does the same on one device and on eight."""

import importlib

import jax
import numpy as np
import pytest

from big_mm import build, durations, lookup, sharding, train

CONFIGS = ("quickstart", "siglip_b16")


def config_of(name, mode="quick"):
    return importlib.import_module(f"configs.{name}").get_config(mode).to_dict()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["full", "quick"])
def test_every_config_is_read(name, mode):
    config = config_of(name, mode)
    build.check_sections(config)
    assert durations.to_steps(
        config["total_steps"], batch_examples=config["data"]["batch_examples"]
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_mode_is_refused(name):
    with pytest.raises(ValueError, match="'full' or 'quick'"):
        config_of(name, "quik")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32),
        "text": rng.integers(0, 8_000, (8, 2, 8), dtype=np.int32),
        "text_present": rng.random((8, 2)) < 0.8,
        "concept": rng.integers(0, 6, 8, dtype=np.int32),
    }


def parts_of(mesh, strategy):
    config = config_of("siglip_b16") | {"mesh": mesh, "sharding": strategy}
    # A plain step along the gradient: Adam's first step has the size of the learning
    # rate even where a gradient is nothing but rounding.
    config["optimizer"] = {"method": "sgd", "learning_rate": 1.0}
    made = build.parts(config)
    tx, _ = build.optimizer(config, made.model, total_steps=10)
    update = train.make_update(build.objective(config, made.model), tx)
    return made, tx, jax.jit(update)


@pytest.fixture(scope="module")
def alone(batch):
    """The first state and one update of it on one device."""
    made, tx, update = parts_of((("data", 8),), "replicated")
    state = train.init(jax.random.key(0), jax.jit(made.model.init), tx, teacher=False)
    return state, *update(state, batch)


@pytest.mark.parametrize(
    ("mesh", "strategy", "parts"),
    [
        ((("data", 8),), "replicated", 1),
        ((("data", 8),), "fsdp", 8),
        ((("data", 2), ("fsdp", 2), ("tensor", 2)), "fsdp_tensor", 2),
    ],
)
def test_one_update_is_the_same_on_every_mesh(batch, alone, mesh, strategy, parts):
    first, expected, expected_metrics = alone
    made, _, update = parts_of(mesh, strategy)
    state = jax.device_put(first, made.place(first))
    kernel = state.params["text"]["head"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // parts
    actual, metrics = update(state, sharding.put_batch(batch, made.mesh))
    np.testing.assert_allclose(metrics["loss"], expected_metrics["loss"], rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, actual.params, expected.params)


def test_the_first_state_is_born_where_it_lives():
    made, tx, _ = parts_of((("data", 8),), "fsdp")
    make, abstract = build.initial_state(made, tx)
    leaves, forms = jax.tree.leaves(make()), jax.tree.leaves(abstract)
    for leaf, form in zip(leaves, forms, strict=True):
        assert leaf.sharding.is_equivalent_to(form.sharding, leaf.ndim)
        assert leaf.shape == form.shape


def test_a_model_smaller_than_its_tokenizer_is_refused():
    config = config_of("siglip_b16")
    config["model"]["text"]["vocab_size"] = 100
    with pytest.raises(ValueError, match=r"vocab_size=100 and 8\d\d\d ids"):
        build.parts(config)


def test_random_operations_are_for_training_alone():
    config = config_of("siglip_b16")
    config["preprocess"]["image_ops"] = [{"name": "data.augment:flip"}]
    with pytest.raises(ValueError, match="draw nothing"):
        build.parts(config)


def test_variables_of_the_environment_are_filled_in(monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    assert build.expand({"a": ("$DATA/x", 1)}) == {"a": ["/data/x", 1]}
    monkeypatch.delenv("DATA")
    with pytest.raises(ValueError, match="variable DATA: it is not set"):
        build.expand("${DATA}/x")


def test_sections_take_no_unknown_keys():
    config = config_of("quickstart")
    with pytest.raises(ValueError, match="Did you mean 'optimizer'"):
        build.check_sections(config | {"optimiser": {}})
    del config["data"]
    with pytest.raises(ValueError, match=r"needs \['data'\]"):
        build.check_sections(config)
    with pytest.raises(ValueError, match=r"Did you mean 'data\.emoji"):
        lookup.call({"name": "data.emojis:load"})
