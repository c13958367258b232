"""Figures for Prometheus."""

import os
from functools import cache
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

from lsan.serving.model import Model

prometheus_client.disable_created_metrics()

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

_SECONDS = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """What one worker counts. Where there are several, each writes to files of its own in a common folder, and any of
    them gives out the sums; the files carry the worker's number and not that of its process, so that a worker that is
    started again counts on."""

    def __init__(self, *, folder: Path | None, worker: int) -> None:
        self._registry = CollectorRegistry()
        if folder is None:
            own: CollectorRegistry = self._registry
            prometheus_client.ProcessCollector(registry=own)
            prometheus_client.PlatformCollector(registry=own)
            prometheus_client.GCCollector(registry=own)
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            values.ValueClass = values.MultiProcessValue(lambda: worker)
            MultiProcessCollector(self._registry, path=str(folder))
            own = CollectorRegistry()
        requests = Counter("lsan_requests", "Requests by route and status", ["route", "status"], registry=own)
        seconds = Histogram(
            "lsan_request_seconds", "From the head of a request to the end of its answer", ["route"],
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        histories = Counter("lsan_histories", "Histories answered", ["by"], registry=own)
        swaps = Counter("lsan_model_swaps", "New files of the model, by what became of them", ["outcome"], registry=own)
        self._count = cache(lambda route, status: requests.labels(route, str(status)))
        self._seconds = cache(seconds.labels)
        self.by_model, self.by_popularity = histories.labels("model"), histories.labels("popularity")
        self.unknown = Counter("lsan_unknown_ids", "Ids of histories that the model does not know", registry=own)
        self.swapped, self.refused = swaps.labels("swapped"), swaps.labels("refused")
        self.stale = Gauge(
            "lsan_model_stale", "1 while the file of the model is bad and an older model is served",
            registry=own, multiprocess_mode="max",
        )  # fmt: skip
        self._since = Gauge(
            "lsan_model_loaded_timestamp_seconds", "When the served model was loaded; of the worker that did so first",
            registry=own, multiprocess_mode="min",
        )  # fmt: skip
        self._items = Gauge("lsan_model_items", "Items of the model", registry=own, multiprocess_mode="max")
        self._bytes = Gauge("lsan_model_bytes", "Bytes of its file", registry=own, multiprocess_mode="max")

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._count(route, status).inc()
        self._seconds(route).observe(seconds)

    def histories(self, count: int, *, by_popularity: int, unknown: int) -> None:
        """Histories were answered."""
        self.by_model.inc(count - by_popularity)
        if by_popularity:
            self.by_popularity.inc(by_popularity)
        if unknown:
            self.unknown.inc(unknown)

    def serving(self, model: Model) -> None:
        """This model is being served from now on."""
        self._since.set_to_current_time()
        self._items.set(model.recommender.engine.items)
        self._bytes.set(model.bytes)
        self.stale.set(0)

    def text(self) -> bytes:
        """All figures, of all workers, as Prometheus reads them."""
        return prometheus_client.generate_latest(self._registry)
