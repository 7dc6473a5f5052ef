"""The emoji dataset as a TFDS builder, made from the pack that comes with the package.

TensorFlow is not needed: records are written and read as ArrayRecord.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from big_mm.data.emoji import pack


class Emoji(tfds.core.GeneratorBasedBuilder):
    """About 1,900 emoji by three vendors, with their names in 56 languages."""

    VERSION = tfds.core.Version(pack.VERSION)
    RELEASE_NOTES = {pack.VERSION: "CLDR 48.2, Emoji 17."}  # noqa: RUF012  # TFDS's own form

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(pack.SIZE_PX, pack.SIZE_PX, 3), encoding_format="png"
                    ),
                    "concept": np.int32,
                    "emoji": text(),
                    "group": text(),
                    "subgroup": text(),
                    "vendor": text(),
                    # One text a language, in the order of the metadata's languages.
                    "names": tfds.features.Sequence(text()),  # "" where there is none
                    "keywords": tfds.features.Sequence(
                        text()
                    ),  # joined by pack.SEPARATOR
                }
            ),
            homepage="https://cldr.unicode.org",
            metadata=tfds.core.MetadataDict(languages=pack.languages()),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # all data is in the package
        return {
            name: self._generate_examples(split) for name, split in pack.SPLITS.items()
        }

    def _generate_examples(self, split: pack.Split):
        held_out = frozenset(pack.texts()["held_out"])
        codes = pack.languages()
        for vendor in split.vendors:
            for number, webp in pack.drawings(vendor):
                if (number in held_out) != split.held_out:
                    continue
                concept = pack.concepts()[number]
                yield (
                    f"{number:04d}-{vendor}",
                    {
                        "image": _png(webp),
                        "concept": number,
                        "emoji": concept.emoji,
                        "group": concept.group,
                        "subgroup": concept.subgroup,
                        "vendor": vendor,
                        "names": [
                            pack.texts()["names"][code][number] for code in codes
                        ],
                        "keywords": [
                            pack.texts()["keywords"][code][number] for code in codes
                        ],
                    },
                )


def _png(webp: bytes) -> io.BytesIO:
    """PNG, which every reader knows; TFDS takes encoded images as files."""
    file = io.BytesIO()
    Image.open(io.BytesIO(webp)).convert("RGB").save(file, "PNG", compress_level=4)
    file.seek(0)
    return file
