"""Emoji as three vendors draw them: square images of one size, on white."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uharfbuzz as _uharfbuzz
from PIL import Image

from tools.emoji_sources import fetch, files

uharfbuzz: Any = _uharfbuzz  # a compiled module without declared types

DRAWN_PX = 144  # rendered large, then reduced alike for all vendors


def plain(sequence: str) -> str:
    """An emoji without variation selectors, which sources write or leave out."""
    return sequence.replace("\ufe0f", "")


def noto(emoji: Sequence[str], cache: Path, size_px: int) -> dict[str, Image.Image]:
    """The bitmaps of the Noto Color Emoji font, shaped by HarfBuzz."""
    (data,) = (
        data for name, data in files(fetch("noto", cache)) if name.endswith(".ttf")
    )
    font = uharfbuzz.Font(uharfbuzz.Face(data))
    images = {}
    for text in emoji:
        glyph = _single_glyph(font, text) or _single_glyph(font, plain(text))
        blob = font.get_glyph_color_png(glyph) if glyph else None
        if blob is not None and len(blob.data):
            images[text] = _on_white(blob.data, size_px)
    return images


def vector(
    vendor: str, emoji: Sequence[str], cache: Path, size_px: int
) -> dict[str, Image.Image]:
    """The drawings of a package of SVG files named by code points."""
    import resvg_py  # pyright: ignore[reportMissingImports]  # only this script's

    drawings = _svg_by_emoji(dict(files(fetch(vendor, cache))))
    images = {}
    for text in emoji:
        if plain(text) in drawings:
            png = resvg_py.svg_to_bytes(
                svg_string=drawings[plain(text)],
                width=DRAWN_PX,
                height=DRAWN_PX,
                skip_system_fonts=True,
            )
            images[text] = _on_white(bytes(png), size_px)
    return images


def _single_glyph(font: Any, text: str) -> int:
    """The one glyph a sequence becomes; 0 if the font lacks it or takes it apart."""
    buffer = uharfbuzz.Buffer()
    buffer.add_str(text)
    buffer.guess_segment_properties()
    uharfbuzz.shape(font, buffer)
    glyphs = [info.codepoint for info in buffer.glyph_infos]
    return glyphs[0] if len(glyphs) == 1 else 0


def _svg_by_emoji(package: Mapping[str, bytes]) -> dict[str, str]:
    drawings = {}
    for name, data in package.items():
        match = re.fullmatch(r".*?([0-9a-fA-F]+(?:-[0-9a-fA-F]+)*)\.svg", name)
        if match and "/" not in match[1]:
            points = "".join(chr(int(point, 16)) for point in match[1].split("-"))
            drawings[plain(points)] = data.decode()
    return drawings


def _on_white(png: bytes, size_px: int) -> Image.Image:
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    corner = ((side - drawn.width) // 2, (side - drawn.height) // 2)
    square.alpha_composite(drawn, corner)
    return square.convert("RGB").resize((size_px, size_px), Image.Resampling.LANCZOS)
