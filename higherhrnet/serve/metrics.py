"""What a server did, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .batching import QueueFullError

_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
Done = Callable[[Mapping[str, float], int], None]


class Metrics:
    """Counters of one server.

    Args:
        inside: images that wait or are worked on now.
    """

    def __init__(self, inside: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "higherhrnet_requests_total", "Images asked for", ["kind", "outcome"],
            registry=self._registry,
        )  # fmt: skip
        self._people = Counter(
            "higherhrnet_people_total", "People answered", registry=self._registry
        )
        self._stages = Histogram(
            "higherhrnet_stage_seconds", "Seconds by stage", ["stage"],
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        queue = Gauge("higherhrnet_queue_images", "Images inside", registry=self._registry)
        queue.set_function(inside)

    @contextmanager
    def request(self, kind: str) -> Iterator[Done]:
        """Count a request by its outcome; call what this yields with what it took and found."""

        def done(seconds: Mapping[str, float], people: int) -> None:
            self._people.inc(people)
            for stage, value in seconds.items():
                self._stages.labels(stage).observe(value)

        outcome = "failed"
        try:
            yield done
            outcome = "answered"
        except QueueFullError:
            outcome = "refused"
            raise
        except TimeoutError:
            outcome = "timeout"
            raise
        finally:
            self._requests.labels(kind, outcome).inc()

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
