"""Batches that are a function of (seed, step, process), read ahead by threads.

Nothing but the step is needed to go on after a stop: batch `s` holds the examples
`s * B ... (s + 1) * B - 1` of an endless row of epochs, each with its own shuffle, and
all random numbers of an example come from the seed and its number. Processes share the
batch by rows, so that a run may go on with another number of them.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np

from big_mm import lookup
from big_mm.data import order, texts
from big_mm.data.images import Pipeline
from big_mm.text.languages import index as language_index

_LOG = logging.getLogger(__name__)
_ENDLESS = 2**62
_SKIPS = 100  # records in a row, before a set counts as broken


@runtime_checkable
class Source(Protocol):
    """Records by index.

    A record is a mapping with `image` (anything `images.decode` takes), `texts`
    (language code to a list of strings) and, if images show the same thing, `concept`
    (an int; default the index). `path` names it in errors. What a run does not use may
    be missing.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class _Record(NamedTuple):
    image: Any  # after the operations that are the same each time
    texts: Mapping[str, Sequence[str]]
    counts: list[int]  # texts in each of the run's languages
    concept: int


class Batches(Iterator[dict[str, Any]]):
    """The batches of one process: an iterator, and by step with `batch_at`.

    A batch holds NumPy arrays with b = batch_examples / process_count rows: `image`
    float32 (b, H, W, 3), `text` int32 (b, K, L), `language` int32 (b, K) as index into
    `text.languages.CODES`, `text_present` bool (b, K), `concept` int32 (b,). The
    images are there if `image_ops` are given, the texts if `texts_per_image` is.

    Attributes:
        step: of the batch that comes next.
        skipped: indices of the records that could not be read (`on_error="skip"`).
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_examples: int,
        seed: int,
        image_ops: Sequence[Mapping[str, Any]] | None = None,
        texts_per_image: int = 0,
        text_ops: Sequence[Mapping[str, Any]] = (),
        tokenizer: Any = None,
        token_policy: Mapping[str, Any] | None = None,
        length_tokens: int | None = None,
        languages: Sequence[str] | None = None,
        language_weights: Mapping[str, float] | None = None,
        replace: bool = False,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        cache: bool = False,
        threads: int = 2,
        prefetch_batches: int = 4,
        on_error: str = "raise",
    ):
        """Checks the settings; reads nothing yet.

        Args:
            source: records by index.
            batch_examples: B, rows of the global batch, over all processes.
            seed: of order, texts and augmentations, 0 or more.
            image_ops: sections for `data.images.Pipeline`; None for no images.
            texts_per_image: K, each in another language.
            text_ops: sections of functions from string to string.
            tokenizer: has `encode(texts, length_tokens=...)`, one row of each text.
            token_policy: further keywords of `encode`.
            length_tokens: L, tokens of a text.
            languages: codes to draw from; default `source.languages`.
            language_weights: code to odds, default 1 each.
            replace: whether the texts of one image may share a language.
            start_step: the first batch that the iterator gives.
            process_index: this process, counted from 0.
            process_count: processes that share the batch.
            cache: keeps what is the same each time (records, images up to the first
                random operation, tokens) in memory: for small sets.
            threads: that work on different batches at once; never change their bits.
            prefetch_batches: made ahead at most.
            on_error: "raise", or "skip" to take the next readable record instead.

        Raises:
            ValueError: if settings are out of range, unknown, or do not fit together.
        """
        _check_range(batch_examples, process_index, process_count, start_step, seed)
        if not len(source):
            raise ValueError("batches need at least one record: the source is empty.")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip': got {on_error!r}.")
        self.step = start_step
        self.skipped: set[int] = set()
        self._source = source
        self._seed = seed
        self._batch_examples = batch_examples
        rows = batch_examples // process_count
        self._rows = range(process_index * rows, (process_index + 1) * rows)
        self._pipeline = None if image_ops is None else Pipeline(image_ops)
        self._texts = None
        if texts_per_image:
            if languages is None:
                languages = getattr(source, "languages", None)
            self._texts = _Texts(
                texts_per_image=texts_per_image,
                ops=[lookup.partial(section) for section in text_ops],
                tokenizer=tokenizer,
                policy=dict(token_policy or {}),
                length_tokens=length_tokens,
                languages=languages,
                weights=language_weights,
                replace=replace,
                cache=cache,
            )
        self._memo: dict[int, _Record] | None = {} if cache else None
        self._on_error = on_error
        self._read_options = grain.ReadOptions(
            num_threads=max(1, min(threads, prefetch_batches)),
            prefetch_buffer_size=max(1, prefetch_batches),
        )
        self._ahead: Any = None
        self._wait_s = 0.0

    def __next__(self) -> dict[str, Any]:
        if self._ahead is None:
            steps = grain.MapDataset.source(_Steps(self.batch_at))
            self._ahead = iter(steps.to_iter_dataset(self._read_options))
            grain.experimental.set_next_index(self._ahead, self.step)
        start = time.perf_counter()
        batch = next(self._ahead)
        self._wait_s += time.perf_counter() - start
        if isinstance(batch, Exception):
            self.close()
            raise batch
        self.step += 1
        return batch

    def take_wait_s(self) -> float:
        """Seconds that the run has waited for batches since this was last asked."""
        wait_s, self._wait_s = self._wait_s, 0.0
        return wait_s

    def close(self) -> None:
        """Ends the reading ahead; asked for another batch, it starts again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def batch_at(self, step: int) -> dict[str, Any]:
        """The batch of any step, whatever was asked before.

        Raises:
            ValueError: if a record cannot be read; names it.
        """
        first = int(step) * self._batch_examples
        numbers = np.arange(first + self._rows.start, first + self._rows.stop)
        places = order.shuffled(numbers, records=len(self._source), seed=self._seed)
        records = [self._record(index) for index in places.tolist()]
        rngs = order.generators(numbers, seed=self._seed)
        batch: dict[str, Any] = {
            "concept": np.array([record.concept for record in records], np.int32)
        }
        if self._texts is not None:  # draws first, so that image_ops leave the texts be
            noise = np.stack([rng.random(self._texts.draws) for rng in rngs])
            batch |= self._texts.of(records, noise)
        if self._pipeline is not None:
            pairs = zip(records, rngs, strict=True)
            finish = self._pipeline.finish
            batch["image"] = _stack(
                [finish(record.image, rng) for record, rng in pairs]
            )
        return batch

    def _record(self, index: int) -> _Record:
        for tried in range(_SKIPS):
            at = (index + tried) % len(self._source)
            if self._memo is not None and at in self._memo:
                return self._memo[at]
            try:
                record = self._read(at)
            except ValueError as error:
                if self._on_error == "raise":
                    raise
                if at not in self.skipped:
                    self.skipped.add(at)
                    _LOG.warning("%s Skipped; %d so far.", error, len(self.skipped))
                continue
            if self._memo is not None:
                self._memo[at] = record
            return record
        raise ValueError(
            f"{_SKIPS} records from {index} on cannot be read: the set is broken."
        )

    def _read(self, index: int) -> _Record:
        record: Mapping[str, Any] = {}
        try:
            record = self._source[index]
            image, found, counts = None, {}, []
            if self._pipeline is not None:
                image = self._pipeline.prepare(record["image"])
            if self._texts is not None:
                found = record["texts"]
                counts = self._texts.counts(found)
            return _Record(image, found, counts, int(record.get("concept", index)))
        except KeyError as error:
            raise ValueError(f"record {index} has no {error}.") from error
        except (ValueError, OSError) as error:
            path = f" ({record['path']})" if "path" in record else ""
            raise ValueError(f"record {index}{path}: {error}") from error


batches = Batches


class _Texts:
    """Draws the texts of a batch and turns them into tokens."""

    def __init__(
        self,
        *,
        texts_per_image: int,
        ops: Sequence[Callable[[str], str]],
        tokenizer: Any,
        policy: Mapping[str, Any],
        length_tokens: int | None,
        languages: Sequence[str] | None,
        weights: Mapping[str, float] | None,
        replace: bool,
        cache: bool,
    ):
        if tokenizer is None or length_tokens is None or not languages:
            raise ValueError(
                "texts need a tokenizer, length_tokens and languages: got "
                f"{tokenizer!r}, {length_tokens} and {languages}."
            )
        if len(set(languages)) < len(languages):
            raise ValueError(f"languages are named once each: got {list(languages)}.")
        self._k = texts_per_image
        self._languages = tuple(languages)
        self._codes = np.array([language_index(x) for x in languages], np.int32)
        self._weights = texts.weigh(self._languages, weights)
        self._replace = replace
        self._ops = ops
        self._tokens = functools.partial(
            tokenizer.encode, length_tokens=length_tokens, **policy
        )
        self.draws = len(self._languages) + 2 * texts_per_image
        # Row 0 stands for a missing text. Strings keep their row, so that readers of
        # an older table find what they looked up.
        self._table = np.zeros_like(self._tokens([""]))
        self._row_of = {"": 0}
        self._cache = cache
        self._used = 1
        self._lock = threading.Lock()

    def counts(self, found: Mapping[str, Sequence[str]]) -> list[int]:
        """How many texts a record has in each language."""
        if any(isinstance(value, str) for value in found.values()):
            raise ValueError("texts are lists of strings, one list a language.")
        return [len(found.get(language, ())) for language in self._languages]

    def of(
        self, records: Sequence[_Record], noise: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The text part of a batch; `noise` has a row for each record."""
        counts = np.array([record.counts for record in records])
        picked = texts.pick(
            counts, noise, k=self._k, weights=self._weights, replace=self._replace
        )
        strings = [
            record.texts[self._languages[i]][j] if present else ""
            for record, *row in zip(records, *(x.tolist() for x in picked), strict=True)
            for i, j, present in zip(*row, strict=True)
        ]
        tokens = self._encode(strings).reshape(len(records), self._k, -1)
        tokens[~picked.present] = 0
        language = np.where(picked.present, self._codes[picked.language], 0)
        return {
            "text": tokens,
            "language": language.astype(np.int32),
            "text_present": picked.present,
        }

    def _encode(self, strings: Sequence[str]) -> np.ndarray:
        if not self._cache:
            return np.array(self._tokens([self._edit(string) for string in strings]))
        known = self._row_of
        if any(string not in known for string in strings):
            with self._lock:
                self._learn(list(dict.fromkeys(s for s in strings if s not in known)))
        rows = [known[string] for string in strings]
        return self._table[rows]

    def _learn(self, strings: Sequence[str]) -> None:
        if not strings:  # another thread was faster
            return
        new = self._tokens([self._edit(string) for string in strings])
        end = self._used + len(new)
        if end > len(self._table):
            more = np.zeros((end, *new.shape[1:]), new.dtype)  # doubles at least
            self._table = np.concatenate([self._table, more])
        self._table[self._used : end] = new
        for row, string in enumerate(strings, start=self._used):
            self._row_of[string] = row
        self._used = end

    def _edit(self, string: str) -> str:
        for op in self._ops:
            string = op(string)
        return string


class _Steps:
    """Every step as an element of a Grain source.

    Errors are handed on as elements: raised in there, they would come out with Grain's
    own remarks in the message.
    """

    def __init__(self, batch_at: Callable[[int], dict[str, Any]]):
        self._batch_at = batch_at

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any] | Exception:
        try:
            return self._batch_at(index)
        except Exception as error:
            return error

    def __repr__(self) -> str:
        return "steps"


def _stack(examples: Sequence[np.ndarray]) -> np.ndarray:
    shapes = {example.shape for example in examples}
    if len(shapes) > 1:
        raise ValueError(
            f"images of a batch have one size: got {sorted(shapes)[:3]}. Resize or "
            "crop in image_ops."
        )
    return np.stack(examples)


def _check_range(
    batch_examples: int,
    process_index: int,
    process_count: int,
    start_step: int,
    seed: int,
) -> None:
    if batch_examples < 1 or process_count < 1 or batch_examples % process_count:
        raise ValueError(
            "processes share a batch evenly: got "
            f"{batch_examples=}, {process_count=}. Make one a multiple of the other."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"processes count from 0: got {process_index=}, {process_count=}."
        )
    if start_step < 0 or not 0 <= seed < 2**63:
        raise ValueError(
            "steps and seeds are 0 or more, and seeds below 2**63: got "
            f"{start_step=}, {seed=}."
        )
