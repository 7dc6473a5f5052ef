"""Sections that several configs share: plain functions from a few choices to a dict."""

# Crossmodal-3600's languages (Thapliyal et al., 2022, arXiv:2205.12522), as BCP-47;
# its "quz" is Quechua, "qu" here.
XM3600 = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr",
    "he", "hi", "hr", "hu", "id", "it", "ja", "ko", "mi", "nl", "no", "pl",
    "pt", "qu", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip


def fixed_image_ops(size_px: int, *, antialias: bool = False) -> tuple[dict, ...]:
    """Decode, resize without keeping the aspect ratio, and scale to [-1, 1]."""
    return (
        dict(name="data.images:decode"),
        dict(name="data.images:resize", size_px=size_px, antialias=antialias),
        dict(name="data.images:value_range"),
    )


def emoji_retrieval(
    split: str, languages: str = "train", *, vendor=None, **when
) -> dict:
    """Retrieval among the emoji of one split, both ways, in each language."""
    return dict(
        name="evaluators.retrieval:Retrieval",
        data=dict(
            name="data.emoji:retrieval", split=split, languages=languages, vendor=vendor
        ),
        **when,
    )


def emoji_groups(split: str, languages: str = "train", **when) -> dict:
    """Zero-shot classification of the emoji of one split into their nine groups."""
    return dict(
        name="evaluators.zero_shot:ZeroShot",
        data=dict(name="data.emoji:groups", split=split, languages=languages),
        **when,
    )
