"""Class names and prompts as zero-shot evaluators of the SigLIP papers read them."""

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BRACES = "{}"


def canonicalize(text: str, *, keep_braces: bool = False) -> str:
    """Lower case, without ASCII punctuation, words apart by one blank.

    An underscore becomes a blank; every other ASCII punctuation mark vanishes, so that
    "hot-dog" reads "hotdog". Letters and marks beyond ASCII stay.

    Args:
        text: a class name or a prompt.
        keep_braces: keeps each `{}`, where a template takes the class name.

    Source:
        Zhai et al., "LiT", 2022, arXiv:2111.07991, and the zero-shot evaluator of
        google-research/big_vision.
    """
    parts = text.replace("_", " ").split(_BRACES if keep_braces else None)
    glue = _BRACES if keep_braces else " "
    kept = glue.join(part.translate(_PUNCTUATION) for part in parts)
    return re.sub(r"\s+", " ", kept.lower()).strip()
