"""Recommends from a bundle, with NumPy and lsan's own kernel alone: no torch, no data."""

from lsan.answers import Recommendation, Recommendations
from lsan.runtime.recommender import Explanation, Filter, Found, Recommender, Session, Similar

__all__ = ["Explanation", "Filter", "Found", "Recommendation", "Recommendations", "Recommender", "Session", "Similar"]
