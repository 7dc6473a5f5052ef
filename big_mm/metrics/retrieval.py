"""Ranks of the right answers, and what retrieval benchmarks make of them. NumPy only.

Ranks count from 1. A tie counts against the query everywhere: a model that scores all
candidates alike is last, not lucky. Libraries that sort (CLIP_benchmark, CCRK's
`itm_eval`) give a tie to whichever comes first in memory; without ties all agree.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

BLOCK = 2**22  # scores looked at together, so that no second copy of all is held


def ranks(
    scores: Float[np.ndarray, "Q R"], relevant: Bool[np.ndarray, "Q R"]
) -> Int[np.ndarray, " Q"]:
    """Rank of the best relevant candidate of each query, 1 for the first.

    Args:
        scores: the higher, the nearer.
        relevant: whether the candidate is a right answer; several may be.

    Returns:
        1 + the number of irrelevant candidates that score at least as high.

    Raises:
        ValueError: if a query has no relevant candidate, or a score is NaN.
    """
    return _ranks(scores, lambda rows: relevant[rows])


def ranks_by_id(
    scores: Float[np.ndarray, "Q R"],
    query_id: Shaped[np.ndarray, " Q"],
    candidate_id: Shaped[np.ndarray, " R"],
) -> Int[np.ndarray, " Q"]:
    """`ranks` where equal ids make a candidate relevant, without a Q x R mask.

    For captions with owners (the image that each describes): `owners, arange(images)`
    for text_to_image, and `scores.T, arange(images), owners` for image_to_text.

    Raises:
        ValueError: if a query has no relevant candidate, or a score is NaN.
    """
    return _ranks(scores, lambda rows: query_id[rows, None] == candidate_id)


def relevant_by_id(
    query_id: Shaped[np.ndarray, " Q"], candidate_id: Shaped[np.ndarray, " R"]
) -> Bool[np.ndarray, "Q R"]:
    """The mask that `ranks` takes, from ids: equal ids make a candidate relevant."""
    return query_id[:, None] == candidate_id


def recall_at_k(
    scores: Float[np.ndarray, "Q R"], relevant: Bool[np.ndarray, "Q R"], k: int
) -> float:
    """Share of queries with at least one relevant candidate among the first k.

    Args:
        scores: the higher, the nearer.
        relevant: whether the candidate is a right answer; one of several is enough.
        k: from 1; beyond the number of candidates every query is answered.

    Raises:
        ValueError: if k is less than 1, a query has no relevant candidate, or a score
            is NaN.

    Source:
        Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image
        Descriptions", 2015, arXiv:1412.2306.
    """
    return recall_of_ranks(ranks(scores, relevant), k)


def recall_of_ranks(ranks: Num[np.ndarray, " Q"], k: int) -> float:
    """Share of ranks up to k, in [0, 1].

    Raises:
        ValueError: if k is less than 1, there is no rank, or one is less than 1.
    """
    return float(np.mean(_counted(ranks) <= _depth(k)))


def median_rank(ranks: Num[np.ndarray, " Q"]) -> float:
    """The rank that half of the queries reach; the mean of the middle two if even.

    Raises:
        ValueError: if there is no rank, or one is less than 1.
    """
    return float(np.median(_counted(ranks)))


def reciprocal_rank(ranks: Num[np.ndarray, " Q"], k: int | None = None) -> float:
    """Mean of 1 / rank (MRR), where a rank beyond k gives 0 (MRR at k).

    Raises:
        ValueError: if k is less than 1, there is no rank, or one is less than 1.

    Source:
        Bianchi et al., "Contrastive Language-Image Pre-training for the Italian
        Language", 2021, arXiv:2108.08688.
    """
    counted = _counted(ranks)
    seen = counted <= (np.inf if k is None else _depth(k))
    return float(np.mean(np.where(seen, 1 / counted, 0)))


def mean_rank_variance(
    ranks: Num[np.ndarray, "languages queries"], kind: str = "std"
) -> float:
    """How much the rank of the same answer differs from language to language (MRV).

    Args:
        ranks: one row for each language, one column for each query that all languages
            ask. From 0 or from 1: a constant changes nothing.
        kind: the spread over languages, averaged over queries. `std` is what the
            authors' code computes, the population standard deviation; their text
            speaks of a variance. `var`: the population variance, `sample_var`: with
            the number of languages less one below, `mad`: mean distance from the mean.

    Raises:
        ValueError: if the kind is another, a rank is NaN, there is no query, or fewer
            than two languages are to be compared.

    Source:
        Nie et al., "Improving the Consistency in Cross-Lingual Cross-Modal Retrieval
        with 1-to-K Contrastive Learning", 2024, arXiv:2406.18254.
    """
    languages, queries = ranks.shape
    if languages < 2 or queries < 1:
        raise ValueError(
            "rank variance compares 2 languages or more on 1 query or more: got "
            f"{languages} languages (rows) and {queries} queries (columns)."
        )
    if np.isnan(ranks).any():
        raise ValueError(f"{np.isnan(ranks).sum()} of {ranks.size} ranks are NaN.")
    ranks = ranks.astype(np.float64)
    match kind:
        case "std":
            spread = ranks.std(axis=0)
        case "var":
            spread = ranks.var(axis=0)
        case "sample_var":
            spread = ranks.var(axis=0, ddof=1)
        case "mad":
            spread = np.abs(ranks - ranks.mean(axis=0, keepdims=True)).mean(axis=0)
        case _:
            raise ValueError(
                f"kind is 'std', 'var', 'sample_var' or 'mad': got {kind!r}."
            )
    return float(spread.mean())


def _ranks(
    scores: Float[np.ndarray, "Q R"],
    relevant: Callable[[slice], Bool[np.ndarray, "N R"]],
) -> Int[np.ndarray, " Q"]:
    queries, candidates = scores.shape
    if not candidates:
        raise ValueError(f"there is nothing to rank: got {queries} x 0 scores.")
    found = np.empty(queries, np.int64)
    step = max(1, BLOCK // candidates)
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        block, right = scores[rows], relevant(rows)
        if np.isnan(block).any():
            raise ValueError(
                f"scores must be numbers: {np.isnan(block).sum()} of queries {start} "
                f"to {start + len(block) - 1} are NaN. Look for embeddings of norm 0."
            )
        answered = right.any(axis=1)
        if not answered.all():
            lost = start + np.flatnonzero(~answered)
            raise ValueError(
                "every query needs a relevant candidate: queries "
                f"{lost[:5].tolist()} have none. Leave them out."
            )
        best = np.max(block, axis=1, keepdims=True, where=right, initial=-np.inf)
        found[rows] = 1 + ((block >= best) & ~right).sum(axis=1)
    return found


def _counted(ranks: np.ndarray) -> np.ndarray:
    if not ranks.size or not (ranks >= 1).all():
        raise ValueError(
            f"ranks count from 1, and one is needed: got {ranks.size} ranks, the "
            f"least {ranks.min() if ranks.size else None}."
        )
    return ranks


def _depth(k: int) -> int:
    if k < 1:
        raise ValueError(f"k counts candidates from 1: got {k}.")
    return k
