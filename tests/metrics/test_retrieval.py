import json
from pathlib import Path

import numpy as np
import pytest

from big_mm.metrics import retrieval

GOLDEN = Path(__file__).parents[1] / "golden"


def by_hand():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1], [0.5, 0.5, 0.4]])
    relevant = np.array([[0, 0, 1], [1, 1, 0], [0, 1, 0]], bool)
    return scores, relevant


def test_ranks_by_hand():
    # Query 0: its answer is second. Query 1: one of its two answers is first. Query 2:
    # its answer shares the first place, and the tie counts against it.
    assert retrieval.ranks(*by_hand()).tolist() == [2, 1, 2]


def test_recall_by_hand():
    values = [retrieval.recall_at_k(*by_hand(), k) for k in (1, 2, 3, 10)]
    assert values == [1 / 3, 1.0, 1.0, 1.0]


def test_scoring_all_alike_is_last():
    scores, relevant = np.zeros((5, 5), np.float32), np.eye(5, dtype=bool)
    assert retrieval.ranks(scores, relevant).tolist() == [5] * 5
    assert retrieval.recall_at_k(scores, relevant, 4) == 0
    relevant[:, :2] = True  # the right ones do not stand in each other's way
    assert retrieval.ranks(scores, relevant).tolist() == [4, 4, 3, 3, 3]


def test_excluded_candidates_may_score_minus_infinity():
    scores = np.array([[-np.inf, -1.0, -np.inf]])
    relevant = np.array([[False, True, False]])
    assert retrieval.ranks(scores, relevant).tolist() == [1]
    assert retrieval.ranks(scores, ~relevant).tolist() == [2]


def test_only_the_order_of_scores_matters():
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(9, 30)), rng.random((9, 30)) < 0.2
    relevant[:, 0] = True
    expected = retrieval.ranks(scores, relevant)
    assert (retrieval.ranks(np.exp(3 * scores), relevant) == expected).all()
    order = rng.permutation(30)
    shuffled = retrieval.ranks(scores[:, order], relevant[:, order])
    assert (shuffled == expected).all()


def test_blocks_and_ids_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    scores, owners = rng.integers(0, 9, (17, 12)) / 8.0, rng.integers(0, 12, 17)
    images = np.arange(12)
    relevant = retrieval.relevant_by_id(owners, images)
    expected = retrieval.ranks(scores, relevant)
    for block in (1, 30, 10**6):
        monkeypatch.setattr(retrieval, "BLOCK", block)
        assert (retrieval.ranks(scores, relevant) == expected).all()
        assert (retrieval.ranks_by_id(scores, owners, images) == expected).all()
    described = np.unique(owners)
    back = retrieval.ranks_by_id(scores.T[described], described, owners)
    assert (back == retrieval.ranks(scores.T[described], relevant.T[described])).all()


def test_the_block_of_a_wrong_query_does_not_matter(monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 6)
    scores, relevant = np.zeros((5, 3)), np.ones((5, 3), bool)
    relevant[4] = False
    with pytest.raises(ValueError, match=r"queries \[4\] have none"):
        retrieval.ranks(scores, relevant)
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of queries 2 to 3 are NaN"):
        retrieval.recall_at_k(scores, relevant, 1)


def test_nothing_to_rank_is_refused():
    with pytest.raises(ValueError, match="nothing to rank"):
        retrieval.ranks(np.zeros((2, 0)), np.zeros((2, 0), bool))
    none = np.zeros(0, int)
    for summary in (retrieval.median_rank, retrieval.reciprocal_rank):
        with pytest.raises(ValueError, match="0 ranks"):
            summary(none)


@pytest.mark.parametrize("k", [0, -1])
def test_k_counts_from_one(k):
    with pytest.raises(ValueError, match="from 1"):
        retrieval.recall_at_k(*by_hand(), k)
    with pytest.raises(ValueError, match="from 1"):
        retrieval.reciprocal_rank(np.array([1, 2]), k)


def test_ranks_from_zero_are_refused():
    with pytest.raises(ValueError, match="the least 0"):
        retrieval.recall_of_ranks(np.array([0, 2]), 1)


def test_summaries_by_hand():
    ranks = np.array([1, 2, 4, 10])
    assert retrieval.median_rank(ranks) == 3
    assert retrieval.reciprocal_rank(ranks) == (1 + 0.5 + 0.25 + 0.1) / 4
    assert retrieval.reciprocal_rank(ranks, 4) == (1 + 0.5 + 0.25) / 4
    assert retrieval.reciprocal_rank(ranks, 1) == retrieval.recall_of_ranks(ranks, 1)


# ---- mean rank variance ----


@pytest.mark.parametrize(
    ("kind", "value"), [("std", 1.5), ("var", 2.5), ("sample_var", 5), ("mad", 1.5)]
)
def test_rank_variance_by_hand(kind, value):
    # Two languages, two queries: ranks 1 and 3 (deviation 1), 2 and 6 (deviation 2).
    assert retrieval.mean_rank_variance(np.array([[1, 2], [3, 6]]), kind) == value


def test_rank_variance_of_equal_languages_is_zero():
    ranks = np.tile(np.arange(1, 8), (3, 1))
    assert retrieval.mean_rank_variance(ranks) == 0
    shifted = np.array([[1, 2], [3, 6]])
    value = retrieval.mean_rank_variance(shifted)
    assert retrieval.mean_rank_variance(shifted + 1) == value
    assert retrieval.mean_rank_variance(shifted[::-1]) == value


def test_rank_variance_refuses():
    with pytest.raises(ValueError, match="2 languages or more"):
        retrieval.mean_rank_variance(np.ones((1, 4)))
    with pytest.raises(ValueError, match="are NaN"):
        retrieval.mean_rank_variance(np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="got 'iqr'"):
        retrieval.mean_rank_variance(np.ones((2, 4)), "iqr")


def test_rank_variance_of_ccrk():
    golden = np.load(GOLDEN / "mrv.npz")
    for kind, name in {
        "std": "official_code_value(mean_of_population_std)",
        "var": "mean_of_population_variance",
        "sample_var": "mean_of_sample_variance",
        "mad": "mean_abs_deviation",
    }.items():
        value = retrieval.mean_rank_variance(golden["ranks_4x2000"], kind)
        np.testing.assert_allclose(value, golden[name], rtol=1e-13)


# ---- the numbers of other codes ----


def both_ways(scores, owners):
    """Ranks of texts asking for images, and of images asking for texts."""
    images = np.arange(scores.shape[1])
    there = retrieval.ranks_by_id(scores, owners, images)
    return there, retrieval.ranks_by_id(scores.T, images, owners)


def test_ccrk_evaluation():
    golden = np.load(GOLDEN / "mrv.npz")
    there, back = both_ways(golden["itm_eval/scores_t2i"], golden["itm_eval/txt2img"])
    # Theirs count from 0, and image-to-text has scores of its own.
    assert (there - 1 == golden["itm_eval/ranks_ir"]).all()
    back = retrieval.ranks_by_id(
        golden["itm_eval/scores_i2t"], np.arange(6), golden["itm_eval/txt2img"]
    )
    assert (back - 1 == golden["itm_eval/ranks_tr"]).all()
    for ranks, way in ((there, "img"), (back, "txt")):
        for k in (1, 5, 10):
            value = 100 * retrieval.recall_of_ranks(ranks, k)
            np.testing.assert_allclose(value, golden[f"itm_eval/{way}_r{k}"])


@pytest.mark.parametrize("k", [1, 5, 10])
def test_babel_imagenet_retrieval(k):
    golden = np.load(GOLDEN / "babel_eval.npz")
    scores = golden["ret/text_embeddings"] @ golden["ret/image_embeddings"].T
    owners = golden["ret/text2image_idxs"]
    relevant = retrieval.relevant_by_id(owners, np.arange(20))
    there = retrieval.recall_at_k(scores, relevant, k)
    np.testing.assert_allclose(there, golden[f"ret/t2i_r@{k}"], rtol=1e-6)
    # Images without a caption cannot ask here, and count as missed there.
    asked = relevant.any(axis=0)
    back = retrieval.recall_at_k(scores.T[asked], relevant.T[asked], k)
    np.testing.assert_allclose(back * asked.mean(), golden[f"ret/i2t_r@{k}"], rtol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_big_vision_retrieval(k):
    golden = np.load(GOLDEN / "bv_pp_tiny.npz")
    there, back = both_ways(golden["retr/sim"].T, golden["retr/corr"])
    assert retrieval.recall_of_ranks(there, k) == golden[f"retr/txt2img_recall@{k}"]
    assert retrieval.recall_of_ranks(back, k) == golden[f"retr/img2txt_recall@{k}"]


@pytest.mark.parametrize("k", [1, 5, 10])
def test_clip_benchmark_retrieval(k):
    golden = np.load(GOLDEN / "clip_benchmark_metrics" / "inputs.npz")
    text = (GOLDEN / "clip_benchmark_metrics" / "metrics.json").read_text()
    expected = json.loads(text)
    scores = golden["text_emb"] @ golden["image_emb"].T
    there, back = both_ways(scores, golden["text_image_index"])
    close = np.testing.assert_allclose
    value = retrieval.recall_of_ranks(there, k)
    close(value, expected[f"image_retrieval_recall@{k}"], rtol=1e-6)
    value = retrieval.recall_of_ranks(back, k)
    close(value, expected[f"text_retrieval_recall@{k}"], rtol=1e-6)


def test_open_clip_paired_retrieval():
    golden = np.load(GOLDEN / "clip_benchmark_metrics" / "inputs.npz")
    text = (GOLDEN / "clip_benchmark_metrics" / "metrics.json").read_text()
    expected = json.loads(text)["open_clip_get_clip_metrics"]
    scores = golden["paired_image"] @ golden["paired_text"].T
    back, there = both_ways(scores, np.arange(40))
    for ranks, way in ((there, "text_to_image"), (back, "image_to_text")):
        np.testing.assert_allclose(ranks.mean(), expected[f"{way}_mean_rank"])
        # Theirs is the lower of the two middle ranks; 40 is even.
        assert np.floor(retrieval.median_rank(ranks)) == expected[f"{way}_median_rank"]
        for k in (1, 5, 10):
            assert retrieval.recall_of_ranks(ranks, k) == expected[f"{way}_R@{k}"]
