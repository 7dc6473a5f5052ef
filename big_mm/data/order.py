"""Which record is the n-th, and its random numbers: hashes, so that nothing is kept.

All are functions of whole arrays, made of 64-bit integer arithmetic alone: the same on
every machine and with every version of NumPy.
"""

import numpy as np
from jaxtyping import Int, UInt64

_ROUNDS = 6  # four make a Feistel network a good permutation; two more for tiny halves


def hashed(*words: np.ndarray | int) -> np.ndarray:
    """64 well-mixed bits of one or more words, element by element; the order counts.

    Source:
        Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014,
        doi:10.1145/2660193.2660195, with Stafford's constants.
    """
    state = np.zeros(1, np.uint64)
    for word in words:
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = state ^ np.asarray(word).astype(np.uint64)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def shuffled(
    numbers: Int[np.ndarray, " B"], *, records: int, seed: int
) -> Int[np.ndarray, " B"]:
    """The records at some places of an endless row of shuffled epochs.

    Places `e * records ... (e + 1) * records - 1` hold every record once, in an order
    of their own for each `e` and each seed.

    Args:
        numbers: places, from 0 on.
        records: size of the set.
        seed: 0 or more.

    Source:
        Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002,
        doi:10.1007/3-540-45760-7_9: a Feistel network, walked on until inside.
    """
    epoch, place = np.divmod(numbers, records)
    key = np.broadcast_to(hashed(seed, epoch), place.shape)
    half = np.uint64(max(1, ((records - 1).bit_length() + 1) // 2))
    place = place.astype(np.uint64)
    outside = np.ones(place.shape, bool)
    while outside.any():
        place[outside] = _feistel(place[outside], key[outside], half)
        outside = place >= records
    return place.astype(np.int64)


def _feistel(
    place: UInt64[np.ndarray, " B"], key: UInt64[np.ndarray, " B"], half: np.uint64
) -> UInt64[np.ndarray, " B"]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = place >> half, place & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (hashed(key, right, turn) & mask)
    return (left << half) | right


def generators(
    numbers: Int[np.ndarray, " B"], *, seed: int
) -> list[np.random.Generator]:
    """An independent source of random numbers for each example."""
    words = [hashed(seed, numbers, part) for part in range(4)]
    return [
        np.random.Generator(np.random.PCG64(_Words(row)))  # pyright: ignore[reportArgumentType]
        for row in np.stack(words, axis=1)
    ]


class _Words(np.random.bit_generator.ISeedSequence):
    """Hashed words as a seed; NumPy's own hashing would cost ten times as much."""

    def __init__(self, words: np.ndarray):
        self._words = words

    def generate_state(self, n_words, dtype=np.uint32):
        return self._words[:n_words].astype(dtype)
