"""Image operations without randomness: decode, resize, crop, value range.

Each takes an image and keyword settings and gives a new image; a config names them in
order, and `Pipeline` runs the list. Images are arrays (H, W, 3): uint8 in [0, 255]
until `value_range`, float32 after it. The signatures name no shapes, since they would
be checked for every image of every batch, which costs as much as the operation.
"""

import functools
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from big_mm import lookup
from big_mm.data import resampling

cv2.setNumThreads(
    1
)  # images run beside each other: threads within one only get in the way


class Pipeline:
    """Runs the operations that a config lists, in order.

    Attributes:
        fixed: the leading operations without randomness: once per image is enough.
        random: the others, from the first on that takes `rng`.
    """

    def __init__(self, sections: Sequence[Mapping[str, Any]]):
        """Resolves every section, so that a wrong name or setting fails here.

        Args:
            sections: `dict(name="data.images:resize", size_px=224)` and the like.

        Raises:
            ValueError: on an unknown name, an unknown setting or a missing one.
        """
        self.sections = [dict(section) for section in sections]
        steps = [_step(section) for section in self.sections]
        first = next((i for i, (_, draws) in enumerate(steps) if draws), len(steps))
        self.fixed = steps[:first]
        self.random = steps[first:]

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        """The image after all operations; `rng` is needed if any of them draws."""
        return self.finish(self.prepare(image), rng)

    def prepare(self, image: Any) -> Any:
        """The image after the leading operations without randomness."""
        for operation, _ in self.fixed:
            image = operation(image)
        return image

    def finish(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        """The rest of the way for what `prepare` gave."""
        if self.random and rng is None:
            raise ValueError("random image operations need an rng: none was given.")
        for operation, draws in self.random:
            image = operation(image, rng=rng) if draws else operation(image)
        return image


def _step(section: Mapping[str, Any]) -> tuple[Callable[..., Any], bool]:
    """The operation of one section, and whether it draws random numbers."""
    operation = lookup.partial(section)
    known = inspect.signature(lookup.resolve(section["name"])).parameters
    missing = [
        key
        for key, parameter in list(known.items())[1:]
        if parameter.default is parameter.empty
        and parameter.kind is parameter.KEYWORD_ONLY
        and key not in (*section, "rng")
    ]
    if missing:
        raise ValueError(f"{section['name']} needs {missing}: add them to the config.")
    if "rng" in section:
        raise ValueError(f"'rng' of {section['name']} is set by the run, not a config.")
    return operation, "rng" in known


def decode(image: Any) -> np.ndarray:
    """The image as uint8 RGB (H, W, 3), whatever it came in.

    Transparent pixels lie on white, the orientation that a camera noted is applied, and
    of an animation the first frame is taken.

    Args:
        image: encoded bytes (JPEG, PNG, WebP and whatever else Pillow reads), a path, a
            Pillow image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        ValueError: if it cannot be read or decoded.
    """
    if isinstance(image, np.ndarray):
        return _three_channels(image)
    if isinstance(image, Image.Image):
        return _flatten(image)
    name = ""
    if isinstance(image, str | Path):
        name = f" ({image})"
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            raise ValueError(f"the image cannot be read: {error}.") from error
    try:
        return _decode_bytes(bytes(image))
    except (OSError, ValueError, SyntaxError, EOFError, cv2.error) as error:
        raise ValueError(
            f"the image{name} cannot be decoded: {error}. Replace or remove it."
        ) from error


def _decode_bytes(data: bytes) -> np.ndarray:
    try:
        opened = Image.open(io.BytesIO(data))  # reads no more than the header
    except UnidentifiedImageError as error:
        raise ValueError(f"{len(data)} bytes of no known image format") from error
    # OpenCV is the faster one, but older versions fill up a file that ends early in
    # silence, so that files without an end marker go to Pillow, which refuses them.
    if opened.format == "JPEG" and opened.mode == "RGB":
        if data.rstrip(b"\0").endswith(b"\xff\xd9"):
            pixels = np.frombuffer(data, np.uint8)
            decoded = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
            if decoded is None:
                raise ValueError("no JPEG decoder takes it")
            return decoded
    return _flatten(opened)


def _flatten(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode as RGB on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: converting would clip, not scale
        return _three_channels((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _three_channels(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _three_channels(image: np.ndarray) -> np.ndarray:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(
            "an image array is uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): got "
            f"{image.dtype} {image.shape}."
        )
    if channels == 3:
        return image
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    colour, alpha = image[..., :3].astype(np.uint16), image[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def resize(
    image: np.ndarray,
    *,
    size_px: int | Sequence[int],
    method: str = "bilinear",
    antialias: bool = False,
) -> np.ndarray:
    """Stretches the image to a size; the aspect ratio is not kept.

    Equals what SigLIP's models were trained with, uint8 to the bit: half-pixel centres,
    float32 arithmetic, and uint8 images come back as uint8 with the fraction cut off,
    not rounded. Without `antialias` a smaller image skips pixels: keep that for
    released weights.

    Args:
        size_px: side of the square, or (height, width).
        method: "bilinear", or "area" for the mean over the pixels that are covered.
        antialias: widens the bilinear filter with the reduction; "area" ignores it.

    Raises:
        ValueError: on another method, or an empty size.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if min(height, width, *image.shape[:2]) < 1:
        raise ValueError(f"sizes are 1 px or more: {image.shape[:2]} to {size_px}.")
    if method not in ("bilinear", "area"):
        raise ValueError(f"method is 'bilinear' or 'area': got {method!r}.")
    if image.shape[:2] == (height, width):
        return image  # every method is the identity here
    if method == "area":
        resized = resampling.area(image, height, width)
    elif antialias:
        resized = resampling.antialiased(image, height, width)
    else:
        resized = resampling.bilinear(image, height, width)
    return resized.astype(np.uint8) if image.dtype == np.uint8 else resized


def resize_small(
    image: np.ndarray, *, size_px: int, method: str = "area", antialias: bool = False
) -> np.ndarray:
    """Resizes so that the shorter side has `size_px`, keeping the aspect ratio."""
    ratio = np.float32(size_px) / np.float32(min(image.shape[:2]))
    height, width = (
        int(np.round(np.float32(side) * ratio)) for side in image.shape[:2]
    )
    return resize(image, size_px=(height, width), method=method, antialias=antialias)


def central_crop(image: np.ndarray, *, size_px: int | Sequence[int]) -> np.ndarray:
    """The middle of the image.

    Args:
        size_px: side of the square, or (height, width).

    Raises:
        ValueError: if the image is smaller than that.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if min(top, left) < 0:
        raise ValueError(
            f"a crop is no larger than its image: got {height} x {width} px of "
            f"{image.shape[0]} x {image.shape[1]} px. Resize first."
        )
    return image[top : top + height, left : left + width]


def pad_square(image: np.ndarray, *, fill: int = 255) -> np.ndarray:
    """Adds borders of one value, so that the image is square and centred."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, image.shape[2]), fill, image.dtype)
    square[top : top + height, left : left + width] = image
    return square


def value_range(
    image: np.ndarray, *, low: float = -1.0, high: float = 1.0
) -> np.ndarray:
    """Maps uint8 [0, 255] to float32 [low, high].

    Raises:
        ValueError: if the image is not uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"value_range is for uint8 images: got {image.dtype}.")
    return cv2.LUT(image, _levels(low, high))


@functools.lru_cache(maxsize=64)
def _levels(low: float, high: float) -> np.ndarray:
    """What each of the 256 values becomes."""
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    return unit * np.float32(high - low) + np.float32(low)


def naflex_resize(image: np.ndarray, *, patch_px: int, max_tokens: int) -> np.ndarray:
    """Resizes to whole patches, at most `max_tokens` of them, near the aspect ratio.

    Put it after `value_range`: native-resolution models resize floats.
    """
    height, width = image.shape[:2]
    size = naflex_size(height, width, patch_px=patch_px, max_tokens=max_tokens)
    return resize(image, size_px=size, antialias=True)


@functools.lru_cache(maxsize=65536)
def naflex_size(
    height_px: int, width_px: int, *, patch_px: int, max_tokens: int
) -> tuple[int, int]:
    """The largest size of whole patches that fits a token budget, for any aspect ratio.

    Sides are scaled by one ratio and rounded up to whole patches; the ratio is the
    largest below 100 that keeps the number of patches, found to 1e-5.

    Args:
        height_px: rows of the image.
        width_px: columns of the image.
        patch_px: side of a patch.
        max_tokens: patches allowed.

    Returns:
        (height, width) in pixels, both multiples of `patch_px`.

    Raises:
        ValueError: if an argument is below 1.

    Source:
        Tschannen et al., "SigLIP 2", 2025, arXiv:2502.14786, section 2.4.2.
    """
    if min(height_px, width_px, patch_px, max_tokens) < 1:
        raise ValueError(
            "sizes and budgets are 1 or more: got "
            f"{height_px=}, {width_px=}, {patch_px=}, {max_tokens=}."
        )

    def patches(ratio: float) -> tuple[int, int]:
        # -(-a // b) rounds up; what is left of a pixel still takes a patch
        rows = int(max(1, -(-height_px * ratio // patch_px)))
        return rows, int(max(1, -(-width_px * ratio // patch_px)))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        rows, columns = patches(middle)
        if rows * columns <= max_tokens:
            low = middle
        else:
            high = middle
    rows, columns = patches(low)
    return rows * patch_px, columns * patch_px
