"""Builds the emoji data that comes with the package, from public registries alone.

    pip install resvg-py==0.5.0      # draws SVG; MIT; needed by this script only
    python -m tools.build_emoji_pack --cache=/tmp/emoji_sources

Writes big_mm/data/emoji/pack/*.npz (one vendor's drawings each), texts.json.xz, and the
tokenizer big_mm/text/emoji.model. The same sources and the library versions of
requirements.txt give the same bytes. Licences of the sources: NOTICE.
"""

import argparse
import hashlib
import io
import json
import lzma
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from big_mm.text import languages, tokenizers
from tools import emoji_images
from tools.emoji_texts import Concept, Texts, concepts, texts

ROOT = Path(__file__).parents[1]
SIZE_PX = 48
COLOURS = 64  # of an image; lossy WebP of the same size is 12 dB worse
HELD_OUT = 300
VOCAB_SIZE = 8_000
LIMIT_BYTES = 8_000_000

# No text of these is ever trained on. Related: same script as, and near kin of, a
# training language. Script: written in letters that no training language has.
LANGUAGES = {
    "train": languages.XM3600,
    "held_out_related": tuple("af be bg bs ca gl mk mr ms sk sl ur zh-Hant".split()),
    "held_out_script": tuple("am gu hy ka km my ta".split()),
}


def main() -> None:
    """Fetches, draws, chooses, packs, and trains the tokenizer."""
    parser = argparse.ArgumentParser(description="Builds the emoji pack.")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/big_mm/npm")
    parser.add_argument("--out", type=Path, default=ROOT / "big_mm/data/emoji/pack")
    parser.add_argument(
        "--tokenizer", type=Path, default=ROOT / "big_mm/text/emoji.model"
    )
    parser.add_argument("--vocab_size", type=int, default=VOCAB_SIZE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    known = concepts(args.cache)
    emoji = [concept.emoji for concept in known]
    drawn = {
        "noto": emoji_images.noto(emoji, args.cache, SIZE_PX),
        "fluent": emoji_images.vector("fluent", emoji, args.cache, SIZE_PX),
        "twemoji": emoji_images.vector("twemoji", emoji, args.cache, SIZE_PX),
    }
    for vendor, images in drawn.items():
        _pack_images(args.out / f"{vendor}.npz", emoji, images)
    codes = [code for codes in LANGUAGES.values() for code in codes]
    told = texts(emoji, codes, args.cache)
    held_out = choose_held_out(known, drawn)
    _pack_texts(args.out / "texts.json.xz", known, told, held_out)

    args.tokenizer.unlink(missing_ok=True)
    corpus = training_corpus(told, held_out)
    tokenizers.train(corpus, args.tokenizer, vocab_size=args.vocab_size)

    written = [*sorted(args.out.iterdir()), args.tokenizer]
    for path in written:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.stat().st_size:>9,} bytes  {digest[:16]}  {path.name}")
    total = sum(path.stat().st_size for path in written)
    print(f"{total:>9,} bytes in all; {len(known)} concepts, {len(codes)} languages")
    if total > LIMIT_BYTES:
        raise SystemExit(f"the pack may have {LIMIT_BYTES:,} bytes: got {total:,}.")


def choose_held_out(
    known: Sequence[Concept], drawn: Mapping[str, Mapping[str, Image.Image]]
) -> list[int]:
    """Numbers of the concepts that no training image or text shows.

    In each group the share of all; within it the smallest hashes, so that a new version
    of Unicode moves few. Only concepts that all vendors draw, none of them just like
    another concept (a dependency's flag is often its country's).
    """
    alike = Counter(
        (vendor, image.tobytes())
        for vendor, images in drawn.items()
        for image in images.values()
    )
    fit = [
        number
        for number, concept in enumerate(known)
        if all(
            concept.emoji in images
            and alike[vendor, images[concept.emoji].tobytes()] == 1
            for vendor, images in drawn.items()
        )
    ]
    by_group: dict[str, list[int]] = {}
    for number in fit:
        by_group.setdefault(known[number].group, []).append(number)
    exact = {group: HELD_OUT * len(of) / len(fit) for group, of in by_group.items()}
    seats = {group: int(share) for group, share in exact.items()}
    by_remainder = sorted(exact, key=lambda group: seats[group] - exact[group])
    for group in by_remainder[: HELD_OUT - sum(seats.values())]:
        seats[group] += 1

    def draw(number: int) -> str:
        return hashlib.sha256(f"held out: {known[number].hexcode}".encode()).hexdigest()

    chosen = [
        n
        for group, of in by_group.items()
        for n in sorted(of, key=draw)[: seats[group]]
    ]
    return sorted(chosen)


def training_corpus(told: Mapping[str, Texts], held_out: Sequence[int]) -> list[str]:
    """Names and keywords of the training concepts in the training languages."""
    unseen = set(held_out)
    corpus = []
    for code in LANGUAGES["train"]:
        for number, name in enumerate(told[code].names):
            if number not in unseen:
                corpus += [name, *told[code].keywords[number].split("|")]
    return [text for text in corpus if text]


def _pack_images(
    path: Path, emoji: Sequence[str], images: Mapping[str, Image.Image]
) -> None:
    """Encoded images end to end, with the concept of each and where each one ends."""
    numbers = [number for number, text in enumerate(emoji) if text in images]
    encoded = [_encode(images[emoji[number]]) for number in numbers]
    np.savez(
        path,
        concepts=np.array(numbers, np.int16),
        ends=np.cumsum([len(data) for data in encoded], dtype=np.int32),
        webp=np.frombuffer(b"".join(encoded), np.uint8),
    )


def _encode(image: Image.Image) -> bytes:
    palette = image.quantize(COLOURS, kmeans=4, dither=Image.Dither.NONE)
    file = io.BytesIO()
    palette.convert("RGB").save(file, "WEBP", lossless=True, quality=100, method=6)
    return file.getvalue()


def _pack_texts(
    path: Path,
    known: Sequence[Concept],
    told: Mapping[str, Texts],
    held_out: Sequence[int],
) -> None:
    content = {
        "concepts": [list(concept) for concept in known],
        "held_out": held_out,
        "languages": LANGUAGES,
        "names": {code: text.names for code, text in told.items()},
        "keywords": {code: text.keywords for code, text in told.items()},
        "labels": {code: text.labels for code, text in told.items()},
    }
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    path.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
