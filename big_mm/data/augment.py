"""Random image operations: geometry, colour, blur, erasure.

Each takes a uint8 image (H, W, 3) and the random numbers of its example (`rng`, which
the loader passes) and gives uint8 again, of the same size unless its name says crop.
At strength zero each gives back the image as it was. On 48 px images each costs some
tens of microseconds, so shapes stay out of the signatures as in `data.images`.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from big_mm.data.images import resize

# Luma of ITU-R BT.601, for which `cv2` and Pillow make greys, too.
_LUMA = np.array([0.299, 0.587, 0.114])
_IDENTITY = np.eye(3)
_GREY = np.repeat(_LUMA[None], 3, axis=0)
# Colour as luma and two chroma axes (YIQ): a turn about luma changes hue alone.
_YIQ = np.array(
    [_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
_RGB = np.linalg.inv(_YIQ)


def flip(
    image: np.ndarray, *, rng: np.random.Generator, probability: float = 0.5
) -> np.ndarray:
    """Mirrors left and right. Not for images with writing in them."""
    return image[:, ::-1] if rng.random() < probability else image


def affine(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    degrees: float = 0.0,
    scale: float = 0.0,
    shift_fraction: float = 0.0,
    shear_degrees: float = 0.0,
    fill: int | Sequence[int] = 255,
) -> np.ndarray:
    """Turns, scales, shears and shifts about the centre, all at once.

    Args:
        degrees: turn, uniform in +- this.
        scale: the factor is log-uniform between 1 / (1 + scale) and 1 + scale.
        shift_fraction: of height and width, uniform in +- this each.
        shear_degrees: slant of the columns, uniform in +- this.
        fill: colour of what comes in from outside, one number or (R, G, B).
    """
    height, width = image.shape[:2]
    turn, size, down, right, slant = rng.uniform(-1, 1, 5).tolist()
    angle = math.radians(degrees * turn)
    factor = math.exp(math.log1p(scale) * size)
    shear = math.tan(math.radians(shear_degrees * slant))
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    a, b = cos, cos * shear - sin  # rotation times [[1, shear], [0, 1]]
    c, d = sin, sin * shear + cos
    x, y = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [
            [a, b, x - a * x - b * y + shift_fraction * width * right],
            [c, d, y - c * x - d * y + shift_fraction * height * down],
        ]
    )
    colour = [fill] * 3 if isinstance(fill, int) else fill
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=tuple(map(float, colour)),
    )


def colour_jitter(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue_degrees: float = 0.0,
    probability: float = 1.0,
) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, in this order.

    The four are one linear map of colour, so that values are cut off to [0, 255] only
    once, at the end.

    Args:
        brightness: factor, uniform in 1 +- this.
        contrast: factor about the image's mean grey, uniform in 1 +- this.
        saturation: factor of the distance from grey, uniform in 1 +- this.
        hue_degrees: turn of the colour circle, uniform in +- this.
        probability: of doing anything.
    """
    light, spread, vivid, turn = rng.uniform(-1, 1, 4).tolist()
    if rng.random() >= probability:
        return image
    light, spread = 1 + brightness * light, 1 + contrast * spread
    grey = light * float(_LUMA @ cv2.mean(image)[:3])
    matrix = np.empty((3, 4))
    matrix[:, :3] = (light * spread) * _tint(
        1 + saturation * vivid, math.radians(hue_degrees * turn)
    )
    matrix[:, 3] = (1 - spread) * grey  # greys pass the tint unchanged
    return cv2.transform(image, matrix)


def _tint(vivid: float, turn: float) -> np.ndarray:
    """Scales chroma by `vivid` and turns it by `turn` radians; luma stays."""
    if not turn:  # keeps the identity exact
        return vivid * _IDENTITY + (1 - vivid) * _GREY
    cos, sin = vivid * math.cos(turn), vivid * math.sin(turn)
    return _RGB @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _YIQ


def grayscale(
    image: np.ndarray, *, rng: np.random.Generator, probability: float = 0.2
) -> np.ndarray:
    """Takes the colour away."""
    if rng.random() >= probability:
        return image
    return cv2.transform(image, _GREY)


def blur(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    sigma_px: Sequence[float] = (0.1, 2.0),
    probability: float = 0.5,
) -> np.ndarray:
    """A Gaussian blur, its width uniform in the range `sigma_px`."""
    narrow, wide = sigma_px
    sigma = rng.uniform(narrow, wide)
    if rng.random() >= probability or sigma <= 0:
        return image
    side = 2 * int(np.ceil(3 * sigma)) + 1
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT)


def solarize(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    threshold: int = 128,
    probability: float = 0.2,
) -> np.ndarray:
    """Inverts the values from `threshold` on."""
    if rng.random() >= probability:
        return image
    return np.where(image >= threshold, 255 - image, image)


def cutout(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    fraction: float = 0.25,
    fill: int = 255,
    probability: float = 0.5,
) -> np.ndarray:
    """Paints over a square, cut off where it leaves the image.

    Args:
        fraction: side of the square, uniform up to this part of the shorter side.
        fill: value painted.
        probability: of doing anything.
    """
    height, width = image.shape[:2]
    part, row, column = rng.random(3)
    half = fraction * part * min(height, width) / 2
    if rng.random() >= probability or not half:
        return image
    top, bottom = row * height - half, row * height + half
    left, right = column * width - half, column * width + half
    image = image.copy()
    image[max(round(top), 0) : round(bottom), max(round(left), 0) : round(right)] = fill
    return image


def random_crop(
    image: np.ndarray, *, rng: np.random.Generator, size_px: int | Sequence[int]
) -> np.ndarray:
    """A piece of the given size, anywhere in the image.

    Raises:
        ValueError: if the image is smaller than that.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if height > image.shape[0] or width > image.shape[1]:
        raise ValueError(
            f"a crop is no larger than its image: got {height} x {width} px of "
            f"{image.shape[0]} x {image.shape[1]} px. Resize first."
        )
    top = int(rng.integers(image.shape[0] - height, endpoint=True))
    left = int(rng.integers(image.shape[1] - width, endpoint=True))
    return image[top : top + height, left : left + width]


def random_resized_crop(
    image: np.ndarray,
    *,
    rng: np.random.Generator,
    size_px: int | Sequence[int],
    area: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    antialias: bool = False,
) -> np.ndarray:
    """A piece of random area and aspect ratio, stretched to the given size.

    Args:
        size_px: side of the square, or (height, width).
        area: part of the image, uniform in this range.
        ratio: width over height, log-uniform in this range, as far as the image allows.
        antialias: as in `images.resize`.

    Source:
        Szegedy et al., "Going Deeper with Convolutions", 2015, arXiv:1409.4842,
        section 6.
    """
    height, width = image.shape[:2]
    (smallest, largest), (tall, flat) = area, np.log(ratio)
    pixels = rng.uniform(smallest, largest) * height * width
    aspect = np.exp(rng.uniform(tall, flat))
    # A piece that would stick out keeps its area, and gives way in shape.
    wide = np.clip(np.sqrt(pixels * aspect), pixels / height, width)
    columns = min(max(round(wide), 1), width)
    rows = min(max(round(pixels / wide), 1), height)
    piece = random_crop(image, rng=rng, size_px=(rows, columns))
    return resize(piece, size_px=size_px, antialias=antialias)
