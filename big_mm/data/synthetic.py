"""Coloured shapes named in four languages: data made on the spot, for trials."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

_COLOURS = {
    (220, 40, 40): {"en": "red", "de": "rot", "fr": "rouge", "ja": "赤い"},
    (40, 160, 60): {"en": "green", "de": "grün", "fr": "vert", "ja": "緑の"},
    (50, 80, 220): {"en": "blue", "de": "blau", "fr": "bleu", "ja": "青い"},
    (240, 200, 40): {"en": "yellow", "de": "gelb", "fr": "jaune", "ja": "黄色い"},
    (30, 30, 30): {"en": "black", "de": "schwarz", "fr": "noir", "ja": "黒い"},
}
_SHAPES = {
    "circle": {"en": "circle", "de": "Kreis", "fr": "cercle", "ja": "円"},
    "square": {"en": "square", "de": "Quadrat", "fr": "carré", "ja": "四角"},
    "triangle": {"en": "triangle", "de": "Dreieck", "fr": "triangle", "ja": "三角"},
    "cross": {"en": "cross", "de": "Kreuz", "fr": "croix", "ja": "十字"},
}
CONCEPTS = tuple((colour, shape) for colour in _COLOURS for shape in _SHAPES)


class Shapes:
    """A source of images with one shape each on white, at a random place and size.

    Example `i` shows concept `i % 20` and is drawn anew at each reading, the same each
    time.
    """

    languages = ("en", "de", "fr", "ja")

    def __init__(self, *, examples: int = 400, size_px: int = 32, seed: int = 0):
        """The set; `size_px` is the side of the square images.

        Raises:
            ValueError: if the images are too small to tell shapes apart.
        """
        if size_px < 8 or examples < 1:
            raise ValueError(
                f"shapes need 1 example and 8 px or more: got {examples=}, {size_px=}."
            )
        self._examples = examples
        self._size_px = size_px
        self._seed = seed

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """uint8 `image` (size, size, 3), `texts` with two wordings each, `concept`."""
        if not 0 <= index < self._examples:
            raise IndexError(f"there are {self._examples} examples: got {index}.")
        concept = index % len(CONCEPTS)
        colour, shape = CONCEPTS[concept]
        rng = np.random.default_rng((self._seed, index))
        names = {
            language: (_COLOURS[colour][language], _SHAPES[shape][language])
            for language in self.languages
        }
        return {
            "image": _draw(colour, shape, self._size_px, rng),
            "texts": {
                language: [f"{a} {b}", f"{b}, {a}"]
                for language, (a, b) in names.items()
            },
            "concept": concept,
        }


def _draw(
    colour: tuple[int, int, int], shape: str, size_px: int, rng: np.random.Generator
) -> np.ndarray:
    image = np.full((size_px, size_px, 3), 255, np.uint8)
    r = int(size_px * rng.uniform(0.2, 0.35))
    x, y = (int(v) for v in rng.integers(r, size_px - r, size=2))
    if shape == "circle":
        cv2.circle(image, (x, y), r, colour, cv2.FILLED)
    elif shape == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), colour, cv2.FILLED)
    elif shape == "triangle":
        corners = np.array([[x - r, y + r], [x + r, y + r], [x, y - r]], np.int32)
        cv2.fillPoly(image, [corners], colour)
    else:
        bar = max(1, r // 3)
        cv2.rectangle(image, (x - r, y - bar), (x + r, y + bar), colour, cv2.FILLED)
        cv2.rectangle(image, (x - bar, y - r), (x + bar, y + r), colour, cv2.FILLED)
    return image
