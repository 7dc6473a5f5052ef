"""The public packages that the emoji pack is made from: fetched, checked, opened."""

import hashlib
import io
import lzma
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """A package of a public registry, pinned by its hash."""

    url: str
    sha256: str


_NPM = "https://registry.npmjs.org"
_DEBIAN = "https://deb.debian.org/debian/pool/main"
SOURCES = {
    "annotations": Source(
        f"{_NPM}/cldr-annotations-full/-/cldr-annotations-full-48.2.0.tgz",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    ),
    "annotations_derived": Source(
        f"{_NPM}/cldr-annotations-derived-full/-/cldr-annotations-derived-full-48.2.0.tgz",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    ),
    "labels": Source(
        f"{_NPM}/cldr-misc-full/-/cldr-misc-full-48.2.0.tgz",
        "c6ba8384d7ea8701cf86935db0461379231ddd970cc41c249f4a33b9857ded3c",
    ),
    "emojibase": Source(
        f"{_NPM}/emojibase-data/-/emojibase-data-17.0.0.tgz",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
    "twemoji": Source(
        f"{_NPM}/@twemoji/svg/-/svg-15.0.0.tgz",
        "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3",
    ),
    "fluent": Source(
        f"{_NPM}/@lobehub/fluent-emoji-flat/-/fluent-emoji-flat-1.1.0.tgz",
        "8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
    ),
    "noto": Source(
        f"{_DEBIAN}/f/fonts-noto-color-emoji/"
        "fonts-noto-color-emoji_2.042-0+deb12u1_all.deb",
        "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
    ),
}


def fetch(name: str, cache: Path) -> bytes:
    """The bytes of a package, from `cache` or its registry.

    Raises:
        ValueError: if they are not the bytes that were pinned.
    """
    source = SOURCES[name]
    path = cache / source.url.rsplit("/", 1)[1]
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(source.url, timeout=300) as response:
            path.write_bytes(response.read())
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise ValueError(
            f"{path} should have the SHA-256 {source.sha256}: got {found}. Remove it "
            "and run again."
        )
    return data


def files(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and contents of each file of an npm tarball or a Debian package."""
    if package.startswith(b"!<arch>\n"):
        package = lzma.decompress(_ar_member(package, "data.tar.xz"))
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file.read()


def _ar_member(archive: bytes, name: str) -> bytes:
    """One file of a Unix `ar` archive: 60-byte headers, contents on even offsets."""
    at = 8
    while at < len(archive):
        found = archive[at : at + 16].decode().strip().rstrip("/")
        size = int(archive[at + 48 : at + 58])
        if found == name:
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError(f"the package holds no {name}.")
