"""Builds big_mm/report/fonts.zip: the letters that a report needs, of every script.

    python tools/build_report_fonts.py [--cache=DIR]

Takes Noto fonts from Debian's archive and the names of emoji in all languages of
Unicode's CLDR from npm, both pinned by hash, and keeps of each font the characters of
those names, with all the ligatures and conjuncts that they can form. The same inputs
give the same bytes.
"""

import argparse
import hashlib
import io
import json
import lzma
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fontTools import subset, ttLib

OUT = Path(__file__).resolve().parents[1] / "big_mm" / "report" / "fonts.zip"
MAX_BYTES = 1_500_000

_DEBIAN = "http://deb.debian.org/debian/pool/main/f/"
_NPM = "https://registry.npmjs.org/"
SOURCES = {
    "noto.deb": (
        _DEBIAN + "fonts-noto/fonts-noto-core_20201225-1_all.deb",
        "58f4f0bb6720f919f92096b3508e1412a0f1544424ade6c5b5bf1eb694dd64ba",
    ),
    "noto_cjk.deb": (
        _DEBIAN + "fonts-noto-cjk/fonts-noto-cjk_20220127+repack1-1_all.deb",
        "4a2515eb6db3978b897fef9709ed0d2b1f4c6c4df4d83d6c4ef65f71f1b1f502",
    ),
    "names.tgz": (
        _NPM + "cldr-annotations-full/-/cldr-annotations-full-48.2.0.tgz",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    ),
    "names_derived.tgz": (
        _NPM
        + "cldr-annotations-derived-full/-/cldr-annotations-derived-full-48.2.0.tgz",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    ),
}

# The order is that of preference: a character is kept in the first font that has it.
SCRIPTS = {
    "latin": "NotoSans",  # and Greek and Cyrillic
    "arabic": "NotoSansArabic",
    "hebrew": "NotoSansHebrew",
    "devanagari": "NotoSansDevanagari",
    "bengali": "NotoSansBengali",
    "gurmukhi": "NotoSansGurmukhi",
    "gujarati": "NotoSansGujarati",
    "odia": "NotoSansOriya",
    "tamil": "NotoSansTamil",
    "telugu": "NotoSansTelugu",
    "kannada": "NotoSansKannada",
    "malayalam": "NotoSansMalayalam",
    "sinhala": "NotoSansSinhala",
    "thai": "NotoSansThai",
    "lao": "NotoSansLao",
    "myanmar": "NotoSansMyanmar",
    "khmer": "NotoSansKhmer",
    "georgian": "NotoSansGeorgian",
    "armenian": "NotoSansArmenian",
    "ethiopic": "NotoSansEthiopic",
    "cherokee": "NotoSansCherokee",
    "symbols": "NotoSansSymbols",
}
# Han characters look different by language, so each language has its own font: face
# of the collection, languages, and the syllabary that goes with it.
EAST_ASIAN = {
    "japanese": (0, ("ja",), range(0x3041, 0x3100)),
    "korean": (1, ("ko",), range(0)),
    "chinese": (2, ("zh", "yue-Hans"), range(0)),
    "chinese_traditional": (3, ("zh-Hant", "yue"), range(0)),
}
# The whole alphabets of Europe, so that texts of one's own mostly show as well.
ALPHABETS = {*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x386, 0x3CF)}
ALPHABETS |= {*range(0x400, 0x460), *range(0x2010, 0x2027), 0x20AC, 0x964}
JOINERS = {0x200C, 0x200D}  # they steer shaping: every font that knows them keeps them


def main() -> None:
    """Downloads, subsets and packs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/report_fonts"))
    cache = parser.parse_args().cache
    cache.mkdir(parents=True, exist_ok=True)
    for name, (address, sha256) in SOURCES.items():
        _download(address, sha256, cache / name)
    letters = _letters(cache)
    packed = {"OFL.txt": _licence(cache)}
    left = set().union(*letters.values()) | ALPHABETS
    for name, font in SCRIPTS.items():
        path = f"usr/share/fonts/truetype/noto/{font}-Regular.ttf"
        file = ttLib.TTFont(io.BytesIO(_from_deb(cache / "noto.deb", path)))
        wanted = left & set(file.getBestCmap() or ())
        left -= wanted
        packed[f"{name}.ttf"] = _subset(file, wanted | JOINERS, ["*"])
    path = "usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
    collection = _from_deb(cache / "noto_cjk.deb", path)
    for name, (face, languages, extra) in EAST_ASIAN.items():
        wanted = set().union(*(letters[language] for language in languages), extra)
        wanted = {code for code in wanted if code >= 0x2E80}
        file = ttLib.TTFont(io.BytesIO(collection), fontNumber=face)
        left -= wanted
        packed[f"{name}.otf"] = _subset(file, wanted, ["ccmp", "liga"])
    OUT.write_bytes(_pack(packed))
    size = OUT.stat().st_size
    lost = "".join(map(chr, sorted(left)))
    print(f"{OUT}: {size:,} bytes, {len(packed) - 1} fonts. Left out: {lost}")
    if size > MAX_BYTES:
        raise SystemExit(f"fonts.zip is over {MAX_BYTES:,} bytes: drop a script.")


def _download(address: str, sha256: str, path: Path) -> None:
    if not path.exists():
        with urllib.request.urlopen(address) as response:
            path.write_bytes(response.read())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path} has sha256 {found}, not {sha256}: remove it.")


def _letters(cache: Path) -> dict[str, set[int]]:
    """Language of CLDR -> the code points of its names of emoji."""
    letters: dict[str, set[int]] = {}
    for archive in ("names.tgz", "names_derived.tgz"):
        with tarfile.open(cache / archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or not member.name.endswith("annotations.json"):
                    continue
                content = next(iter(json.load(file).values()))
                found = letters.setdefault(member.name.split("/")[-2], set())
                for entry in content.get("annotations", {}).values():
                    found.update(ord(c) for name in entry.get("tts", []) for c in name)
    return letters


def _from_deb(deb: Path, path: str) -> bytes:
    """One file of a Debian package."""
    for name, content in _ar(deb.read_bytes()):
        if name.startswith("data.tar.xz"):
            with tarfile.open(fileobj=io.BytesIO(lzma.decompress(content))) as tar:
                file = tar.extractfile(f"./{path}")
                if file is not None:
                    return file.read()
    raise SystemExit(f"{deb} has no file {path}.")


def _ar(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an ar archive, which is what a .deb is."""
    at = len(b"!<arch>\n")
    while at < len(archive):
        header = archive[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip(), archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _subset(file: ttLib.TTFont, codes: set[int], features: list[str]) -> bytes:
    options = subset.Options()
    options.hinting = False
    options.layout_features = features
    options.name_IDs = [0, 1, 2, 5, 13, 14]  # copyright and licence stay in each font
    options.notdef_outline = True
    options.glyph_names = False
    options.drop_tables += ["vhea", "vmtx", "VORG"]  # no vertical setting here
    file.recalcTimestamp = False
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes & set(file.getBestCmap() or ()))
    subsetter.subset(file)
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()


def _licence(cache: Path) -> bytes:
    """The text of the SIL Open Font License, as the Noto package carries it."""
    path = "usr/share/doc/fonts-noto-core/copyright"
    text = _from_deb(cache / "noto.deb", path).decode()
    body = text.split("License: OFL-1.1\n PREAMBLE\n", 1)[1].split("\nLicense:", 1)[0]
    lines = [line.strip() for line in body.splitlines()]
    head = (
        "Subsets of Noto fonts. Copyright 2010-2020 Google LLC. Noto is a trademark\n"
        "of Google LLC.\n"
        "Subsets of Noto Sans CJK. Copyright 2014-2021 Adobe.\n\n"
        "SIL OPEN FONT LICENSE Version 1.1\n\nPREAMBLE\n"
    )
    return (
        head + "\n".join("" if line == "." else line for line in lines) + "\n"
    ).encode()


def _pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name], compresslevel=9)
    return out.getvalue()


if __name__ == "__main__":
    main()
