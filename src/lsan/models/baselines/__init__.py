"""Models that count instead of learning, under the same contract as the networks: `scores(histories)`."""

from collections.abc import Callable

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.baselines.item_knn import ItemKnn
from lsan.models.baselines.markov import Markov
from lsan.models.baselines.popularity import Popularity
from lsan.models.baselines.recent_popularity import RecentPopularity

__all__ = ["BASELINES", "Baseline", "ItemKnn", "Markov", "Popularity", "RecentPopularity"]

Baseline = Popularity | RecentPopularity | Markov | ItemKnn

#: What makes a baseline of each name from the training events.
BASELINES: dict[str, Callable[[Dataset, Split], Baseline]] = {
    "popularity": Popularity,
    "recent-popularity": RecentPopularity,
    "markov": Markov,
    "item-knn": ItemKnn,
}
