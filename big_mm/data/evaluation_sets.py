"""What an evaluator measures on: images, texts of many languages, what fits what.

An image is whatever the image ops of the config start from: encoded bytes, a path or a
uint8 array (H, W, 3). Nothing here is decoded, tokenised or put on a device.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
    """Images and their captions in many languages.

    Attributes:
        images: R images.
        texts: language code to its Q captions; languages may differ in Q.
        owners: language code to the index of the image that each caption describes.
        subsets: name to the images that belong to it, for figures reported apart.

    Raises:
        ValueError: if captions and owners differ in number, or an owner is no image.
    """

    images: Sequence[Any]
    texts: Mapping[str, Sequence[str]]
    owners: Mapping[str, Int[np.ndarray, " Q"]]
    subsets: Mapping[str, Bool[np.ndarray, " R"]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        if set(self.texts) != set(self.owners):
            lost = sorted(set(self.texts) ^ set(self.owners))
            raise ValueError(
                f"texts and owners need the same languages: {lost} differ."
            )
        for language, texts in self.texts.items():
            owners = self.owners[language]
            if len(texts) != len(owners):
                raise ValueError(
                    f"every caption needs an owner: {language!r} has {len(texts)} "
                    f"captions and {len(owners)} owners."
                )
            if len(owners) and not 0 <= owners.min() <= owners.max() < len(self.images):
                raise ValueError(
                    f"owners are indices of the {len(self.images)} images: "
                    f"{language!r} has {owners.min()}..{owners.max()}."
                )


@dataclasses.dataclass(frozen=True)
class ClassificationSet:
    """Images of C classes, and texts that name each class in many languages.

    Attributes:
        images: R images.
        labels: class of each image, in [0, C).
        class_names: English name of each class, for reports.
        class_texts: language code to C lists of texts; the embeddings of a class's
            texts are averaged.

    Raises:
        ValueError: if a label is no class, or a language does not name every class.
    """

    images: Sequence[Any]
    labels: Int[np.ndarray, " R"]
    class_names: Sequence[str]
    class_texts: Mapping[str, Sequence[Sequence[str]]]

    def __post_init__(self):
        classes = len(self.class_names)
        if len(self.labels) != len(self.images):
            raise ValueError(
                f"every image needs a label: got {len(self.images)} and "
                f"{len(self.labels)}."
            )
        if (
            len(self.labels)
            and not 0 <= self.labels.min() <= self.labels.max() < classes
        ):
            raise ValueError(f"labels are in [0, {classes}): got {self.labels.max()}.")
        for language, texts in self.class_texts.items():
            if len(texts) != classes or not all(texts):
                raise ValueError(
                    f"{language!r} must name each of the {classes} classes with at "
                    f"least one text: got {sum(map(bool, texts))}."
                )
