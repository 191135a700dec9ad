"""``bench serve``: many clients at once, some of which send rubbish, and the server's answers."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from ...errors import RunError
from ..synthetic.dataset import SyntheticPeople
from .table import Row

_SIZES = ((480, 640), (640, 480), (512, 512), (300, 400))
_START = 120.0
"""Seconds that a server may take to load."""
_TRIES = 1000


def run(
    weights: str,
    overrides: Sequence[str],
    clients: int,
    requests: int,
    broken: float,
    seed: int = 0,
) -> list[Row]:
    """Start a server, load it, and stop it with SIGTERM.

    Args:
        weights, overrides: what is served.
        clients: threads that each send one request after another.
        requests: of all clients.
        broken: share of them that are no images.
        seed: of who sends what.

    Raises:
        RunError: the server did not start.
    """
    command = [sys.executable, "-m", "higherhrnet", "serve", weights, "--port", "0", *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = _address(server)
            load = _Load(address, server.pid, clients, requests, broken, seed)
            load.run()
            done = time.perf_counter()
            server.terminate()
            status = server.wait(timeout=60)
        finally:
            server.kill()
        return [load.row() | {"exit": status, "stops in s": time.perf_counter() - done}]


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if "http://" not in line:
        raise RunError("the server did not start; run higherhrnet serve to see why")
    return "http://" + line.partition("http://")[2].split("/")[0]


class _Load:
    """The clients, and what came back to them."""

    def __init__(
        self, address: str, pid: int, clients: int, requests: int, broken: float, seed: int
    ) -> None:
        self._host = urlsplit(address).netloc
        self._pid, self._clients, self._requests = pid, clients, requests
        self._images = _photographs()
        rng = random.Random(seed)
        self._broken = [rng.random() < broken for _ in range(requests)]
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._wrong: list[str] = []
        self._refused = 0
        self._memory: dict[int, float] = {}

    def run(self) -> None:
        """Send everything."""
        start = time.perf_counter()
        threads = [threading.Thread(target=self._client) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._taken = time.perf_counter() - start

    def row(self) -> dict[str, Any]:
        """What was measured."""
        p50, p95 = map(float, np.percentile(self._seconds or [0.0], (50, 95)))
        first, last = min(self._memory), max(self._memory)
        return {
            "clients": self._clients,
            "requests": self._requests,
            "broken": sum(self._broken),
            "200": self._statuses[200],
            "422": self._statuses[422],
            "lost": self._requests - sum(self._statuses.values()),
            "wrong": len(self._wrong),
            "refused once": self._refused,
            "p50 s": p50,
            "p95 s": p95,
            "images/s": self._statuses[200] / self._taken,
            "MiB early": self._memory[first],
            "MiB late": self._memory[last],
        }

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=300)
        while (number := next(self._next)) < self._requests:
            is_broken = self._broken[number]
            body = _rubbish(number, self._images[0]) if is_broken else self._image(number)
            status, found, seconds = self._send(connection, body)
            with self._lock:
                if status:
                    self._statuses[status] += 1
                if status != (422 if is_broken else 200) or ("error" in found) != is_broken:
                    self._wrong.append(f"{number}: {status} {found}")
                if not is_broken:
                    self._seconds.append(seconds)
                if number in (self._requests // 5, self._requests - 1) or not self._memory:
                    self._memory[number] = _resident(self._pid)
        connection.close()

    def _image(self, number: int) -> bytes:
        return self._images[number % len(self._images)]

    def _send(
        self, connection: http.client.HTTPConnection, body: bytes
    ) -> tuple[int, dict[str, object], float]:
        for _ in range(_TRIES):
            start = time.perf_counter()
            try:
                connection.request("POST", "/predict", body)
                response = connection.getresponse()
                found = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                return 0, {"error": str(error)}, 0.0
            if response.status != 503:
                return response.status, found, time.perf_counter() - start
            with self._lock:
                self._refused += 1
            time.sleep(float(response.headers["Retry-After"]))
        return 503, {}, 0.0


def _photographs() -> list[bytes]:
    images = []
    for number, shape in enumerate(_SIZES):
        drawn = SyntheticPeople(2, seed=number, size=max(shape), people=(1, 4))
        for row in range(2):
            image = drawn.draw(row).image[: shape[0], : shape[1]]
            images.append(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
    return images


def _rubbish(number: int, image: bytes) -> bytes:
    kinds = (
        b"", b"hello", image[: len(image) // 3], bytes(range(256)) * 40,
        b"\x89PNG\r\n\x1a\n" + b"x" * 99, b"GIF89a" + b"\xff" * 64, b"<html>no image</html>",
    )  # fmt: skip
    return kinds[number % len(kinds)]


def _resident(pid: int) -> float:
    """MiB of a process in memory; 0 where the system does not tell."""
    file = Path(f"/proc/{pid}/status")
    lines = file.read_text().splitlines() if file.is_file() else []
    sizes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return sizes[0] / 1024 if sizes else 0.0
