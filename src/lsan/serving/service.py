"""What the parts of one worker share."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lsan.serving.keys import Keys
from lsan.serving.metrics import Metrics
from lsan.serving.model import Model
from lsan.serving.settings import Settings


@dataclass(kw_only=True)
class Service:
    """One worker's state. A request takes `model` once and keeps it to its end, so that setting it swaps the model for
    all later ones."""

    settings: Settings
    """As chosen."""
    model: Model
    """What is being served."""
    keys: Keys | None
    """Who may ask; None for everybody."""
    metrics: Metrics
    """What is counted."""
    stopping: bool = False
    """Connections are closed after the answer that is under way, and no more should come."""
    under_way: Callable[[], int] = lambda: 0
    """How many requests have begun and are not answered."""
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "lsan"))
    """Where what takes long is done: batches, searches, new models."""
