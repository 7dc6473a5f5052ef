"""big_mm: the open recipe for multilingual vision-language encoders in JAX/Flax.

`import big_mm` loads nothing else; its parts are imported when they are first named, as
in `big_mm.losses.contrastive.sigmoid`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"big_mm.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"big_mm.{name}":
                raise
    raise AttributeError(f"module 'big_mm' has no attribute {name!r}")
