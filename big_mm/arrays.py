"""Axis letters, array aliases and the batch contract: the glossary of the house.

One letter means one axis everywhere: in signatures, einsum strings, shape suffixes
(`logits_BM`) and comments.

    B  examples of the global batch     H W C  image rows, columns, channels
    A  views of one image               P      image patches
    L  text tokens                      T S    query tokens, key tokens
    D  tower width                      F      MLP hidden width
    N  attention heads                  K      texts of one image; channels of one head
    E  joint embedding width            V      vocabulary entries
    X  stacked layers (depth)           Z      prototypes
    M  texts of the global batch (B x K)
    Q  retrieval queries                R      retrieval candidates
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypeAlias, TypedDict

from jaxtyping import Array, Bool, Float, Int

Params: TypeAlias = Any  # nested dict of arrays
Scalar: TypeAlias = Float[Array, ""]
Metrics: TypeAlias = Mapping[str, Float[Array, ""]]


class Batch(TypedDict):
    """What every dataset yields and every objective reads: arrays, batch first."""

    image: NotRequired[Float[Array, "B H W C"]]  # in [-1, 1]
    text: NotRequired[Int[Array, "B K L"]]  # token ids of K texts of each image
    concept: NotRequired[Int[Array, " B"]]  # equal numbers: the same thing is shown
    language: NotRequired[Int[Array, "B K"]]  # index into text.languages.CODES
    text_present: NotRequired[Bool[Array, "B K"]]  # False: no such text, ignore the row
