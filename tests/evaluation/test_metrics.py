"""Metrics of ranks, worked out by hand."""

import math

import numpy as np
import pytest

from lsan.evaluation.metrics import accuracy, hit_rate, mrr, ndcg

RANKS = np.array([1.0, 2.0, 2.5, 5.0, 5.5, 10.0, 21.0, np.inf])


def test_hit_rate() -> None:
    assert hit_rate(RANKS, 5).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert hit_rate(RANKS, 20).tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_ndcg() -> None:
    expected = [1, 1 / math.log2(3), 1 / math.log2(3.5), 1 / math.log2(6), 0, 0, 0, 0]
    assert ndcg(RANKS, 5).tolist() == pytest.approx(expected)
    assert ndcg(RANKS, 10)[5] == pytest.approx(1 / math.log2(11))


def test_mrr() -> None:
    assert mrr(RANKS, 5).tolist() == pytest.approx([1, 0.5, 0.4, 0.2, 0, 0, 0, 0])


def test_all_of_them_by_name() -> None:
    values = accuracy(RANKS)
    assert set(values) == {f"{name}@{k}" for name in ("HR", "nDCG", "MRR") for k in (5, 10, 20)}
    assert values["HR@10"].mean() == 6 / 8
    assert values["MRR@20"].tolist() == mrr(RANKS, 20).tolist()


def test_no_cases() -> None:
    assert all(len(values) == 0 for values in accuracy(np.empty(0)).values())
