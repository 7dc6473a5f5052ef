"""From raw images and texts to embeddings, in batches of one compiled shape."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from big_mm.arrays import Params
from big_mm.models.core import Model
from big_mm.sharding import batch_sharding, batch_shards


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Encodes with given weights; the pipelines of the run are built in.

    Of several processes, all encode the same together, and all get the result.

    Attributes:
        model: of both towers.
        mesh: batches are split over it.
        prepare: a raw image (bytes, path or array) to the float32 array (H, W, 3) that
            the model reads.
        tokenize: N texts to int32 ids (N, L).
        batch_examples: texts or images at a time; the last batch is filled up, and
            every batch to a multiple of the devices.
    """

    model: Model
    mesh: Mesh
    prepare: Callable[[Any], Float[np.ndarray, "H W C"]]
    tokenize: Callable[[Sequence[str]], Int[np.ndarray, "N L"]]
    batch_examples: int = 256
    _jitted: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def image(self, params: Params, images: Sequence[Any]) -> Float[np.ndarray, "R E"]:
        """Unit-norm embeddings of images, in order.

        Raises:
            ValueError: if there is none, or one cannot be read (says which).
        """
        if not len(images):
            raise ValueError("there must be an image to encode: got none.")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            chunks = (
                np.stack(list(pool.map(self.prepare, [images[i] for i in rows])))
                for rows in self._rows(len(images))
            )
            return self._encode("image", params, chunks, len(images))

    def text(self, params: Params, texts: Sequence[str]) -> Float[np.ndarray, "Q E"]:
        """Unit-norm embeddings of texts, in order.

        Raises:
            ValueError: if there is none.
        """
        if not len(texts):
            raise ValueError("there must be a text to encode: got none.")
        ids = self.tokenize(texts)
        chunks = (ids[rows.start : rows.stop] for rows in self._rows(len(texts)))
        return self._encode("text", params, chunks, len(texts))

    @property
    def _full(self) -> int:
        shards = batch_shards(self.mesh)
        return -(-self.batch_examples // shards) * shards

    def _rows(self, count: int) -> Iterator[range]:
        for start in range(0, count, self._full):
            yield range(start, min(start + self._full, count))

    def _encode(
        self, side: str, params: Params, chunks: Iterator[np.ndarray], count: int
    ) -> np.ndarray:
        if side not in self._jitted:
            apply = self.model.apply
            self._jitted[side] = jax.jit(
                lambda p, x: getattr(apply(p, **{side: x}), side),
                out_shardings=NamedSharding(self.mesh, PartitionSpec()),
            )
        encode, parts = self._jitted[side], []
        for chunk in chunks:
            missing = self._full - len(chunk)
            full = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
            on_mesh = jax.make_array_from_callback(
                full.shape, batch_sharding(self.mesh), full.__getitem__
            )
            parts.append(np.asarray(encode(params, on_mesh), np.float32))
        return np.concatenate(parts)[:count]
