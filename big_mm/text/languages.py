"""Languages by BCP-47 code: names, scripts, families, and the sets that reports use.

A code is the shortest one that says enough: `fil`, not `tl`; `zh` for Simplified and
`zh-Hant` for Traditional Chinese; `no` for Norwegian (Bokmål); `qu` for Quechua, which
XM3600 calls `quz` (Cusco Quechua) and Unicode's CLDR `qu`. `canonical` knows the other
spellings.
"""

import dataclasses
from collections.abc import Iterable

from big_mm.lookup import nearest

RIGHT_TO_LEFT = frozenset({"Arab", "Hebr"})


@dataclasses.dataclass(frozen=True)
class Language:
    """What is known of a language.

    Attributes:
        code: BCP-47 code.
        name: English name.
        script: ISO 15924 code of the script that its texts are written in.
        family: the branch of its family, fine enough that members look alike.
    """

    code: str
    name: str
    script: str
    family: str

    @property
    def direction(self) -> str:
        """Either "ltr" or "rtl"."""
        return "rtl" if self.script in RIGHT_TO_LEFT else "ltr"


# Append only: batches and checkpoints hold a language's place in this list.
_TABLE = """
ar Arab Semitic Arabic|bn Beng Indo-Aryan Bengali|cs Latn Slavic Czech
da Latn Germanic Danish|de Latn Germanic German|el Grek Hellenic Greek
en Latn Germanic English|es Latn Romance Spanish|fa Arab Iranian Persian
fi Latn Uralic Finnish|fil Latn Austronesian Filipino|fr Latn Romance French
he Hebr Semitic Hebrew|hi Deva Indo-Aryan Hindi|hr Latn Slavic Croatian
hu Latn Uralic Hungarian|id Latn Austronesian Indonesian|it Latn Romance Italian
ja Jpan Japonic Japanese|ko Kore Koreanic Korean|mi Latn Austronesian Māori
nl Latn Germanic Dutch|no Latn Germanic Norwegian|pl Latn Slavic Polish
pt Latn Romance Portuguese|qu Latn Quechuan Quechua|ro Latn Romance Romanian
ru Cyrl Slavic Russian|sv Latn Germanic Swedish|sw Latn Bantu Swahili
te Telu Dravidian Telugu|th Thai Tai Thai|tr Latn Turkic Turkish
uk Cyrl Slavic Ukrainian|vi Latn Vietic Vietnamese|zh Hans Sinitic Chinese
af Latn Germanic Afrikaans|be Cyrl Slavic Belarusian|bg Cyrl Slavic Bulgarian
bs Latn Slavic Bosnian|ca Latn Romance Catalan|gl Latn Romance Galician
mk Cyrl Slavic Macedonian|mr Deva Indo-Aryan Marathi|ms Latn Austronesian Malay
sk Latn Slavic Slovak|sl Latn Slavic Slovenian|ur Arab Indo-Aryan Urdu
zh-Hant Hant Sinitic Traditional Chinese|am Ethi Semitic Amharic
gu Gujr Indo-Aryan Gujarati|hy Armn Armenian Armenian|ka Geor Kartvelian Georgian
km Khmr Khmeric Khmer|my Mymr Burmish Burmese|ta Taml Dravidian Tamil
as Beng Indo-Aryan Assamese|az Latn Turkic Azerbaijani|cy Latn Celtic Welsh
et Latn Uralic Estonian|eu Latn Basque Basque|ga Latn Celtic Irish
ha Latn Chadic Hausa|ig Latn Igboid Igbo|is Latn Germanic Icelandic
jv Latn Austronesian Javanese|kk Cyrl Turkic Kazakh|kn Knda Dravidian Kannada
ky Cyrl Turkic Kyrgyz|lo Laoo Tai Lao|lt Latn Baltic Lithuanian
lv Latn Baltic Latvian|ml Mlym Dravidian Malayalam|mn Cyrl Mongolic Mongolian
mt Latn Semitic Maltese|ne Deva Indo-Aryan Nepali|or Orya Indo-Aryan Odia
pa Guru Indo-Aryan Punjabi|ps Arab Iranian Pashto|si Sinh Indo-Aryan Sinhala
so Latn Cushitic Somali|sq Latn Albanian Albanian|sr Cyrl Slavic Serbian
uz Latn Turkic Uzbek|xh Latn Bantu Xhosa|yo Latn Yoruboid Yoruba
yue Hant Sinitic Cantonese|zu Latn Bantu Zulu|eo Latn Constructed Esperanto
la Latn Italic Latin|sd Arab Indo-Aryan Sindhi|ug Arab Turkic Uyghur
gd Latn Celtic Scottish Gaelic|su Latn Austronesian Sundanese
ceb Latn Austronesian Cebuano|ht Latn Creole Haitian Creole
"""


def _parse(row: str) -> Language:
    code, script, family, name = row.split(maxsplit=3)
    return Language(code, name, script, family)


_ROWS = [row for line in _TABLE.strip().splitlines() for row in line.split("|")]
LANGUAGES = {language.code: language for language in map(_parse, _ROWS)}
CODES = tuple(LANGUAGES)  # a language's index in batches

# Thapliyal et al., "Crossmodal-3600", 2022, arXiv:2205.12522, Table 1.
XM3600 = CODES[:36]

_ALIASES = {
    "fas": "fa",
    "in": "id",
    "iw": "he",
    "jp": "ja",  # XTD10's file names
    "nb": "no",
    "pt-br": "pt",
    "quz": "qu",
    "tl": "fil",
    "zh-cn": "zh",
    "zh-hans": "zh",
    "zh-tw": "zh-Hant",
}


def canonical(code: str) -> str:
    """The code that this project uses for `code`, whatever its case or spelling.

    Raises:
        ValueError: if the language is not known; offers the nearest code.
    """
    folded = code.strip().replace("_", "-").lower()
    lower = {known.lower(): known for known in CODES}
    found = lower.get(folded) or _ALIASES.get(folded)
    if found is None:
        raise ValueError(f"there is no language {code!r}.{nearest(folded, CODES)}")
    return found


def index(code: str) -> int:
    """The place of a language in `CODES`.

    Raises:
        ValueError: if the language is not known.
    """
    return CODES.index(canonical(code))


def choose(codes: Iterable[str], available: Iterable[str]) -> tuple[str, ...]:
    """The canonical codes of `codes`, in their order and without repeats.

    Raises:
        ValueError: if there is none, or one is unknown or not among `available`.
    """
    available = list(available)
    chosen = []
    for code in [codes] if isinstance(codes, str) else codes:
        known = canonical(code)
        if known not in available:
            raise ValueError(
                f"there are no texts in {LANGUAGES[known].name} ({known!r}) here."
                f"{nearest(known, available)}"
            )
        if known not in chosen:
            chosen.append(known)
    if not chosen:
        raise ValueError(f"choose at least one language of {', '.join(available)}.")
    return tuple(chosen)
