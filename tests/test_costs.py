"""Costs are counted before a run: by hand, by shapes, and on devices that are not."""

import functools
import importlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from big_mm import build, costs, lookup

SGD = {"method": "sgd", "learning_rate": 1.0}


def config_of(mode="quick", **changes):
    config = importlib.import_module("configs.siglip_b16").get_config(mode).to_dict()
    return config | changes


def sized(image, text, *, image_px=256, vocab_size=256_000, **rest):
    """The SigLIP 2 pair of a size, as a model section."""
    return {
        "name": "models.two_towers:make",
        "image": {"name": "models.vit:tower", "variant": image, "image_px": image_px},
        "text": {
            "name": "models.text:transformer",
            "variant": text,
            "vocab_size": vocab_size,
        },
        "scan": True,
        **rest,
    }


# (w + 1) w is a linear layer; a block has four, its MLP and two norms.
SMALL_BLOCKS = 12 * (4 * 384 * 385 + 2 * 384 * 1536 + 1536 + 384 + 4 * 384) + 2 * 384
SMALL_HEAD = 384 + 4 * 384 * 385 + 2 * 384 + 2 * 384 * 1536 + 1536 + 384
SMALL_IMAGE = 768 * 384 + 384 + 256 * 384 + SMALL_BLOCKS + SMALL_HEAD
SMALL_TEXT = 256_000 * 384 + 64 * 384 + SMALL_BLOCKS + 384 * 385


@pytest.mark.parametrize(
    ("image", "text", "image_px", "of_image", "of_text"),
    [
        ("S/16", "S", 256, SMALL_IMAGE, SMALL_TEXT),
        ("B/32", "B", 256, 94_552_320, 282_303_744),
        ("B/16", "B", 224, 92_884_224, 282_303_744),
        ("B/16", "B", 256, 92_930_304, 282_303_744),
        ("L/16", "L", 256, 315_956_224, 565_570_560),
        ("So400m/14", "So400m", 224, 427_680_704, 707_782_896),
        ("So400m/16", "So400m", 256, 427_888_064, 707_782_896),
        ("g-opt/16", "So400m", 256, 1_163_168_256, 708_225_648),
    ],
)
def test_parameters_of_each_tower(image, text, image_px, of_image, of_text):
    model = lookup.call(sized(image, text, image_px=image_px))
    found = costs.counts(jax.eval_shape(model.init, jax.random.key(0)))
    by_part = {"image": of_image, "text": of_text, "log_scale": 1, "bias": 1}
    assert found["parameters_by_part"] == by_part
    assert found["parameters"] == of_image + of_text + 2


def transformer_flops(tokens, width, mlp, depth):
    """Four projections, both products of attention, two layers of the MLP."""
    linear = 4 * width * width + 2 * width * mlp
    return depth * 2 * (tokens * linear + 2 * tokens * tokens * width)


def test_flops_by_hand():
    # mu is 32 wide with an MLP of 128; four patches of 16 px and 8 tokens.
    found = costs.describe(config_of(optimizer=SGD), compiled=False)
    found = found["flops_per_example"]
    patches = 2 * 4 * 16 * 16 * 3 * 32
    keys_and_values, query_and_out, attention = 2 * 4 * 32 * 32, 2 * 32 * 32, 2 * 4 * 32
    pool = 2 * (keys_and_values + query_and_out + attention + 2 * 32 * 128)
    image = patches + transformer_flops(4, 32, 128, 1) + pool
    text = transformer_flops(8, 32, 128, 1) + 2 * 32 * 32  # and the head
    loss = 2 * 8 * 32  # one image against eight texts
    assert found["image"] == image
    assert found["text"] == text
    assert found["loss"] == loss
    assert found["forward"] == image + text + loss
    assert found["training"] == 3 * (image + text + loss)


@functools.cache
def training_flops(**model):
    config = config_of(optimizer=SGD)
    config["model"] |= model
    config["model"]["image"]["depth"] = config["model"]["text"]["depth"] = 3
    return costs.describe(config, compiled=False)["flops_per_example"]


def test_a_step_is_three_forward_passes_without_the_gradient_of_the_pixels():
    found = training_flops(scan=False, remat="none")
    pixels = 2 * 4 * 16 * 16 * 3 * 32
    assert found["training_with_remat"] == found["training"] - pixels


def test_stacked_layers_cost_what_unrolled_ones_do():
    assert training_flops(scan=True, remat="none") == training_flops(
        scan=False, remat="none"
    )


def test_what_is_computed_again_is_counted():
    plain, again = (training_flops(scan=True, remat=r) for r in ("none", "full"))
    assert again["training"] == plain["training"]
    # Each block once more, at most.
    blocks = transformer_flops(4, 32, 128, 3) + transformer_flops(8, 32, 128, 3)
    extra = again["training_with_remat"] - plain["training_with_remat"]
    assert 0.6 * blocks < extra <= blocks


def test_flops_of_products_by_hand(mesh):
    a, b = jnp.ones((16, 3)), jnp.ones((3, 5))
    assert costs.flops(jnp.matmul, a, b) == 2 * 16 * 3 * 5
    rounds = lambda a: jax.lax.scan(lambda x, _: (x @ a, None), a, length=7)
    assert costs.flops(rounds, jnp.ones((4, 4))) == 7 * 2 * 4**3
    dear = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b + a @ b)
    assert costs.flops(dear, a, b) == 2 * 2 * 16 * 3 * 5
    rows, whole = PartitionSpec("data"), PartitionSpec()
    split = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert costs.flops(split, a, b) == 2 * 16 * 3 * 5


def test_flops_of_a_strided_convolution_and_of_its_gradients_are_equal():
    image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((2, 2, 3, 5))
    conv = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    one = 2 * 2 * 4 * 4 * 5 * 2 * 2 * 3
    assert costs.flops(conv, image, kernel) == one
    gradients = jax.grad(lambda *args: conv(*args).sum() ** 2, argnums=(0, 1))
    assert costs.flops(gradients, image, kernel) == 3 * one


def test_a_loop_that_ends_when_it_likes_is_refused():
    endless = lambda a: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, a)
    with pytest.raises(ValueError, match=r"Use lax\.scan"):
        costs.flops(endless, jnp.ones((2, 2)))


def test_bytes_of_whole_copies_by_hand():
    config = config_of(sharding="replicated", teacher_decay=0.9)
    config["optimizer"] = {"method": "adam", "learning_rate": 1.0}
    found = costs.describe(config, compiled=False)
    count, held = found["parameters"], found["bytes_per_device"]
    assert held["weights"] == held["teacher"] == 4 * count
    assert held["optimizer"] == 2 * 4 * count + 2 * 4  # and two counts of steps
    assert held["batch"] == 32 * 32 * 3 * 4 + 4 + 8 * 4 + 4 + 1  # of one example
    assert held["total"] == sum(held.values()) - held["total"]


def test_bytes_of_shards_are_those_that_a_device_holds():
    config = config_of(optimizer=SGD)
    held = costs.describe(config, compiled=False)["bytes_per_device"]["weights"]
    made = build.parts(config)
    forms = jax.eval_shape(made.model.init, jax.random.key(0))
    zeros = jax.tree.map(lambda form: np.zeros(form.shape, form.dtype), forms)
    placed = jax.tree.leaves(jax.device_put(zeros, made.place(forms)))
    assert held == sum(leaf.addressable_shards[0].data.nbytes for leaf in placed)


def test_memory_of_a_step_is_that_between_its_products(mesh):
    def update(state, batch):
        similar = jnp.sin(batch["x"] @ batch["x"].T)  # 128 rows of 1024 on a device
        return state + (similar @ similar).sum(), {}

    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    x = jax.ShapeDtypeStruct((1024, 16), jnp.float32, sharding=rows)
    state = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    found = costs._temporary(update, state, {"x": x})
    block, all_rows = 4 * 128 * 1024, 4 * 1024 * 1024
    assert block + all_rows < found < 2 * block + 2 * all_rows


@pytest.mark.slow
def test_memory_of_a_step_grows_with_the_batch_as_activations_do():
    def activations(examples):
        config = config_of(optimizer=SGD, sharding="replicated")
        config["data"]["batch_examples"] = examples
        config["model"]["text"]["vocab_size"] = 100  # gradients are small beside it
        return costs.describe(config)["bytes_per_device"]["activations"]

    few, many = activations(64), activations(256)
    assert 2 * few < many < 6 * few


def test_neither_data_nor_tokenizer_is_read(monkeypatch):
    monkeypatch.delenv("DATA", raising=False)
    found = costs.describe(config_of("full"), compiled=False)
    assert found["parameters"] == 203_202_050
    # SigLIP B/16: twice the multiply-adds of ViT-B/16 at 256 tokens.
    assert found["flops_per_example"]["image"] == pytest.approx(47e9, rel=0.05)


def test_devices_that_are_not_there_are_simulated():
    config = config_of(
        mesh=(("data", 8), ("tensor", 2)), sharding="fsdp_tensor", optimizer=SGD
    )
    found = costs.describe(config, compiled=False)
    assert found["devices"] == 16
    whole = 4 * found["parameters"]
    assert whole / 16 < found["bytes_per_device"]["weights"] < whole / 2
    lines = costs.table(found)
    assert f"{found['parameters']:,}" in lines
    assert "GiB on each of 16 devices (data 8 x tensor 2), batch of 8" in lines


def test_a_simulation_hands_on_what_it_refuses(monkeypatch, capsys):
    config = config_of()
    config["data"]["batch_examples"] = 9
    given = io.StringIO(json.dumps({"config": config, "compiled": False}))
    monkeypatch.setattr("sys.stdin", given)
    costs._main()
    refusal = json.loads(capsys.readouterr().out)["refused"]
    assert "multiple of the 8 devices" in refusal
    with pytest.raises(ValueError, match="got devices=0"):
        costs.describe(config, devices=0)


def test_weights_that_the_mesh_does_not_divide_are_refused():
    config = config_of()
    config["model"]["image"].update(width=36, heads=2)
    config["model"]["text"].update(width=36, heads=2)
    with pytest.raises(ValueError, match="36 entries, mesh axis 'data' has 8"):
        costs.describe(config, compiled=False)


def test_a_blank_image_goes_the_way_of_all_images():
    config = config_of()
    batch = costs._batch(config, jax.make_mesh((8,), ("data",)))
    assert batch["image"].shape == (8, 32, 32, 3)
    assert batch["image"].dtype == np.float32


@pytest.mark.slow
def test_a_great_model_on_devices_that_are_not_there():
    config = config_of("full", mesh=(("data", 64),), sharding="replicated")
    config["model"] = sized("So400m/14", "So400m", image_px=224, remat="full")
    for section in (config["preprocess"], config["data"]):
        section["image_ops"][1]["size_px"] = 224
    found = costs.describe(config)
    held = found["bytes_per_device"]
    assert found["parameters"] == 1_135_463_602
    assert held["weights"] == 4 * 1_135_463_602
    # What the blocks of both towers keep of 512 examples, at least.
    assert held["activations"] > 4 * 512 * (256 + 64) * 1152 * 27


def test_a_ring_is_counted_too():
    config = importlib.import_module("configs.siglip_b16").get_config("quick").to_dict()
    plain = costs.describe(config, compiled=False)
    config["terms"]["sigmoid"]["ring"] = "one_way"
    ring = costs.describe(config, compiled=False)
    assert ring["flops_per_example"]["image"] == plain["flops_per_example"]["image"]
    assert ring["flops_per_example"]["loss"] >= plain["flops_per_example"]["loss"]
