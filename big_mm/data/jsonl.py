"""Images on disk and a manifest that names them: one JSON object a line.

    {"image": "photos/0001.jpg", "texts": {"en": ["a red bus"], "de": "ein roter Bus"}}

`image` is a path below the manifest's folder. `texts` gives for each language code a
text or a list of them. `concept`, a whole number, may say that several images show the
same thing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from big_mm.lookup import nearest
from big_mm.text.languages import canonical

_KEYS = ("image", "texts", "concept")


class Manifest:
    """A source of records from a JSONL file.

    Every line is checked when the manifest is opened, since a mistake that shows after
    hours of training costs more. Lines are then read from the file when asked for:
    memory holds no more than where they start. Images are not looked at.

    Attributes:
        languages: codes that occur, in the order of their first use.
    """

    def __init__(self, path: str | os.PathLike[str], *, root: str | None = None):
        """Reads the manifest once.

        Args:
            path: the manifest.
            root: folder that image paths start from; default the manifest's.

        Raises:
            ValueError: if the file is missing or empty, or a line is not as it should
                be; names the line.
        """
        self._path = Path(path)
        self._root = Path(root) if root is not None else self._path.parent
        starts, end, languages = [], 0, {}
        try:
            with self._path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        starts.append((end, number))
                        languages |= dict.fromkeys(self._parse(line, number)["texts"])
                    end += len(line)
        except OSError as error:
            raise ValueError(f"the manifest cannot be read: {error}.") from error
        if not starts:
            raise ValueError(
                f"{self._path} has no lines: a manifest needs one or more."
            )
        self._starts = np.array(starts, np.int64)
        self.languages: tuple[str, ...] = tuple(languages)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The record: `image` and `path`, a Path both, `texts`, `concept` if given.

        Raises:
            IndexError: if there is no such record.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self._path} has {len(self)} records: got {index}.")
        start, number = self._starts[index].tolist()
        with self._path.open("rb") as lines:  # a file of its own: threads read at once
            lines.seek(start)
            record = self._parse(lines.readline(), number)
        path = self._root / record["image"]
        return {**record, "image": path, "path": path}

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return _check(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{self._path}:{number}: {error}") from error


def _check(record: Any) -> dict[str, Any]:
    """The record of a line, with texts as lists under canonical language codes."""
    if not isinstance(record, dict):
        raise ValueError(f"a line holds one JSON object: got {type(record).__name__}.")
    for key in record:
        if key not in _KEYS:
            raise ValueError(f"a record has no {key!r}.{nearest(key, _KEYS)}")
    image, texts = record.get("image"), record.get("texts")
    if not isinstance(image, str) or not image:
        raise ValueError(f"'image' is the path of a file: got {image!r}.")
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"'image' is a path below the root folder: got {image!r}. Write it "
            "relative to the manifest, or give the folder as root."
        )
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f"'texts' names languages and their texts: got {texts!r}.")
    concept = record.get("concept", 0)
    if not isinstance(concept, int) or isinstance(concept, bool):
        raise ValueError(f"'concept' is a whole number: got {concept!r}.")
    lists: dict[str, list[str]] = {}
    for code, found in texts.items():
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
            raise ValueError(f"texts of {code!r} are strings: got {found!r}.")
        lists.setdefault(canonical(code), []).extend(x for x in found if x.strip())
    return {**record, "texts": lists}
