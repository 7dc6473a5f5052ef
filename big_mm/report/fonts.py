"""Native scripts on any machine: fonts that come along, shaped by HarfBuzz.

`fonts.zip` holds subsets of Noto with the letters of all names of emoji (see
tools/build_report_fonts.py). A picture takes outlines from here; the page takes a font
of just the letters it shows. What no font has is left to the reader's own fonts on the
page, and is an empty box in a picture.
"""

# pyright: reportAttributeAccessIssue=false
# (uharfbuzz is compiled and has no stubs)

import base64
import functools
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import uharfbuzz as hb

_ARCHIVE = Path(__file__).with_name("fonts.zip")
# Han characters have the shapes that the language's readers expect.
_HAN = {
    "ja": "japanese",
    "ko": "korean",
    "zh": "chinese",
    "zh-Hant": "chinese_traditional",
    "yue": "chinese_traditional",
}
_FALLBACK = "latin"


class _Font(NamedTuple):
    face: hb.Face
    characters: frozenset[int]


class Run(NamedTuple):
    """A piece of text in one font and one direction."""

    text: str
    font: str | None  # None: no font has these characters
    right_to_left: bool


class Outline(NamedTuple):
    """The drawing of a text, in units of its size, from the baseline's left end."""

    vertices: list[tuple[float, float]]
    codes: list[int]  # those of matplotlib.path.Path
    width: float


def runs(text: str, language: str) -> list[Run]:
    """Cuts a text where its font or direction changes; the runs from left to right.

    Directions follow the gist of Unicode's bidirectional algorithm (UAX 9) for one
    line without explicit marks: numbers and foreign words keep their own direction,
    spaces and punctuation between equals join them, else they go with the whole.
    """
    if not text:
        return []
    strong = [_direction(character) for character in text]
    base = next((way for way in strong if way is not None), False)
    ways = _resolve(strong, base)
    pieces: list[Run] = []
    for character, way in zip(text, ways, strict=True):
        last = pieces[-1] if pieces else None
        font = _font_of(character, language, last.font if last else None)
        if last and last.font == font and last.right_to_left == way:
            pieces[-1] = last._replace(text=last.text + character)
        else:
            pieces.append(Run(character, font, way))
    return _visual_order(pieces, base)


def outline(text: str, language: str) -> Outline:
    """Shapes a text and gives its drawing."""
    vertices: list[tuple[float, float]] = []
    codes: list[int] = []
    x = 0.0
    for run in runs(text, language):
        face = _fonts()[run.font or _FALLBACK].face
        font, buffer = hb.Font(face), hb.Buffer()
        buffer.add_str(run.text)
        buffer.guess_segment_properties()
        buffer.direction = "rtl" if run.right_to_left else "ltr"
        buffer.language = language
        hb.shape(font, buffer)
        for glyph, place in zip(
            buffer.glyph_infos, buffer.glyph_positions, strict=True
        ):
            pen = _Pen(x + place.x_offset / face.upem, place.y_offset / face.upem, face)
            font.draw_glyph_with_pen(glyph.codepoint, pen)
            vertices += pen.vertices
            codes += pen.codes
            x += place.x_advance / face.upem
    return Outline(vertices, codes, x)


def families(text: str, language: str) -> list[str]:
    """The CSS font families that a text needs, in the order of their first use."""
    fonts = dict.fromkeys(run.font for run in runs(text, language) if run.font)
    return [f"native-{font}" for font in fonts]


def css(texts: Iterable[tuple[str, str]]) -> str:
    """`@font-face` rules with just the letters of the (text, language) pairs inside."""
    needed: dict[str, set[int]] = {}
    for text, language in texts:
        for run in runs(text, language):
            if run.font:
                needed.setdefault(run.font, set()).update(map(ord, run.text))
    rules = []
    for font in sorted(needed):
        choice = hb.SubsetInput()
        choice.unicode_set.update(needed[font])
        choice.layout_feature_tag_set.clear()
        choice.layout_feature_tag_set.invert()  # all but none: every feature stays
        for name in (0, 13, 14):  # copyright and licence go along
            choice.name_id_set.add(name)
        part = hb.subset(_fonts()[font].face, choice)
        data = base64.b64encode(part.blob.data).decode()
        rules.append(
            f'@font-face{{font-family:"native-{font}";font-display:block;'
            f"src:url(data:font/ttf;base64,{data})}}"
        )
    return "\n".join(rules)


@functools.cache
def _fonts() -> dict[str, _Font]:
    with zipfile.ZipFile(_ARCHIVE) as archive:
        faces = {
            Path(name).stem: hb.Face(archive.read(name))
            for name in sorted(archive.namelist())
            if name.endswith((".ttf", ".otf"))
        }
    return {key: _Font(face, frozenset(face.unicodes)) for key, face in faces.items()}


def _font_of(character: str, language: str, last: str | None) -> str | None:
    """The font of a character: the last one if it can, so that clusters stay whole."""
    if last is None and unicodedata.category(character) in ("Mn", "Mc", "Cf"):
        last = _FALLBACK
    order = [_HAN.get(language), last, _FALLBACK, *_fonts()]
    if unicodedata.category(character) in ("Mn", "Mc", "Cf", "Zs"):
        order.insert(0, last)
    code = ord(character)
    return next(
        (key for key in order if key and code in _fonts()[key].characters), None
    )


def _direction(character: str) -> bool | None:
    """True for right to left, False for left to right, None for neither."""
    kind = unicodedata.bidirectional(character)
    if kind in ("R", "AL"):
        return True
    return False if kind in ("L", "EN", "AN") else None


def _resolve(strong: list[bool | None], base: bool) -> list[bool]:
    """Gives the characters without direction that of both neighbours, else the base."""
    ahead: list[bool] = []
    following = base
    for way in reversed(strong):
        following = following if way is None else way
        ahead.append(following)
    ways, before = [], base
    for way, after in zip(strong, reversed(ahead), strict=True):
        if way is None:
            ways.append(before if before == after else base)
        else:
            ways.append(way)
            before = way
    return ways


def _visual_order(pieces: list[Run], base: bool) -> list[Run]:
    """Runs against the base direction, reversed among themselves; then the whole."""
    groups: list[list[Run]] = []
    for piece in pieces:
        if groups and groups[-1][0].right_to_left == piece.right_to_left:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    if base:
        groups.reverse()
    return [
        piece
        for group in groups
        for piece in (group[::-1] if group[0].right_to_left else group)
    ]


class _Pen:
    """Collects a glyph's outline as vertices and codes of matplotlib's paths."""

    def __init__(self, x: float, y: float, face: hb.Face):
        self._x, self._y, self._scale = x, y, 1 / face.upem
        self.vertices: list[tuple[float, float]] = []
        self.codes: list[int] = []

    def _add(self, code: int, *points: tuple[float, float]) -> None:
        for x, y in points:
            self.vertices.append((self._x + x * self._scale, self._y + y * self._scale))
            self.codes.append(code)

    def moveTo(self, point: tuple[float, float]) -> None:
        self._add(1, point)

    def lineTo(self, point: tuple[float, float]) -> None:
        self._add(2, point)

    def qCurveTo(self, *points: tuple[float, float]) -> None:
        self._add(3, *points)

    def curveTo(self, *points: tuple[float, float]) -> None:
        self._add(4, *points)

    def closePath(self) -> None:
        self._add(79, (0.0, 0.0))
