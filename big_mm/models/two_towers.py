"""An image tower and a text tower that meet in one space, as in SigLIP.

Source:
    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, arXiv:2303.15343.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from big_mm import lookup
from big_mm.arrays import Params, Scalar
from big_mm.models import core


class Output(NamedTuple):
    """What the towers give for what they got; None for a side that got nothing."""

    image: Float[Array, "B E"] | None  # unit norm, float32
    text: Float[Array, "*texts E"] | None  # unit norm, float32
    log_scale: Scalar
    bias: Scalar | None  # None: a model for the softmax loss
    image_tokens: Float[Array, "B P D"] | None
    text_tokens: Float[Array, "*texts L D"] | None


def make(
    *,
    image: Mapping[str, Any],
    text: Mapping[str, Any],
    log_scale: float = math.log(10.0),
    bias: float | None = -10.0,
    dtype: str = "float32",
    scan: bool = False,
    remat: str = "none",
) -> core.Model:
    """Both towers and the two scalars of the contrastive head.

    `apply(params, *, image=None, text=None)` gives an `Output`. Texts may have any
    leading axes: K texts of each image keep theirs, (B, K, L) to (B, K, E).

    Args:
        image: section of the image tower: `name`, such as "models.vit:tower", and its
            arguments.
        text: section of the text tower. Its head is as wide as the image embedding
            unless it sets `head_width`.
        log_scale: start of the learned log of the inverse temperature.
        bias: start of the learned bias; None for none.
        dtype: of activations; weights, scalars and embeddings are float32.
        scan: whether the layers of transformers are stacked and compiled once.
        remat: "none", or a policy of `layers.blocks.REMAT`.

    Raises:
        ValueError: on keys no tower takes, or towers of unequal embedding widths.
    """
    shared = {"dtype": dtype, "scan": scan, "remat": remat}
    see = lookup.call(image, **shared)
    joint = {} if "head_width" in text else {"head_width": see.width}
    read = lookup.call(text, **shared, **joint)
    if see.width != read.width:
        raise ValueError(
            f"both towers end in one width: got {see.width} for images and "
            f"{read.width} for texts. Set head_width."
        )

    def init(rng: PRNGKeyArray) -> Params:
        image_rng, text_rng = jax.random.split(rng)
        params = {
            "image": see.init(image_rng),
            "text": read.init(text_rng),
            "log_scale": jnp.float32(log_scale),
        }
        return params if bias is None else params | {"bias": jnp.float32(bias)}

    def apply(
        params: Params,
        *,
        image: Float[Array, "B H W C"] | None = None,
        text: Int[Array, "*texts L"] | None = None,
    ) -> Output:
        if image is None and text is None:
            raise ValueError("a model needs an image or a text: got neither.")
        seen = None if image is None else see.apply(params["image"], image)
        words = None if text is None else _read(read, params["text"], text)
        return Output(
            image=None if seen is None else core.unit(seen.embedding),
            text=None if words is None else core.unit(words.embedding),
            log_scale=params["log_scale"],
            bias=params.get("bias"),
            image_tokens=None if seen is None else seen.tokens,
            text_tokens=None if words is None else words.tokens,
        )

    axes = core.under("image", see.axes) + core.under("text", read.axes)
    return core.Model(init=init, apply=apply, axes=axes)


def _read(
    tower: core.Tower, params: Params, text: Int[Array, "*texts L"]
) -> core.Encoded:
    """One batch of texts for the tower; their own axes for the caller."""
    *lead, length = text.shape
    flat = tower.apply(params, text.reshape(-1, length))
    unfold = lambda x: x.reshape(*lead, *x.shape[1:])
    tokens = None if flat.tokens is None else unfold(flat.tokens)
    return core.Encoded(embedding=unfold(flat.embedding), tokens=tokens)
