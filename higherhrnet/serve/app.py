"""The HTTP interface: images and videos in, people out as JSON.

Clients send bytes, never paths or addresses. Whatever they send, the answer is one of: 200 with the
people, 4xx with a sentence on what is wrong with the request, 503 with ``Retry-After`` while the
server is full, 504 when it took too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from .. import __version__
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..inference.predictor import Predictor
from ..inference.tracking import Tracker
from ..inference.video import VideoFile
from ..poses import Poses
from .answers import FIELDS, describe_answer, round_seconds
from .batching import Answer, BatchQueue, QueueFullError
from .metrics import Metrics
from .models import DEFAULT, ServedModel
from .openapi import openapi
from .requests import (
    Limits,
    decode_image,
    open_video,
    read_image_bytes,
    read_number,
    read_parts,
)

_DEFAULT_FIELDS = ("keypoints", "bbox", "score", "visibility", "seconds")
_RETRY_AFTER = "1"


def build_app(
    models: Sequence[ServedModel],
    limits: Limits | None = None,
    batch_size: int = 4,
    workers: int = 2,
) -> Starlette:
    """The application.

    Args:
        models: the first one answers unless a request names another one's method.
        limits: what clients may ask for.
        batch_size: most images that go through the network together.
        workers: threads that read, and as many that decode.
    """
    service = _Service(models, limits or Limits(), batch_size, workers)
    page = Path(str(files("higherhrnet") / "serve" / "page"))
    assets = Path(str(files("higherhrnet") / "assets"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.queue.close)

    app = Starlette(
        routes=[
            Route("/predict", service.predict, methods=["POST"]),
            Route("/predict/video", service.predict_video, methods=["POST"]),
            WebSocketRoute("/live", service.live),
            Route("/model", service.model),
            Route("/healthz", service.health),
            Route("/metrics", service.show_metrics),
            Route("/openapi.json", service.show_openapi),
            Route("/", lambda _: FileResponse(page / "index.html")),
            Route("/example.jpg", lambda _: FileResponse(assets / "demo.jpg")),
            Mount("/page", StaticFiles(directory=page)),
        ],
        exception_handlers={
            HTTPException: _explain,
            UserError: _explain,
            QueueFullError: _explain,
            TimeoutError: _explain,
            ClientDisconnect: _explain,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    return app


async def _explain(_: Request, error: Exception) -> Response:
    if isinstance(error, UserError):
        return JSONResponse({"error": str(error)}, 422)
    if isinstance(error, QueueFullError):
        busy = {"error": "as many images wait as may; try again"}
        return JSONResponse(busy, 503, {"Retry-After": _RETRY_AFTER})
    if isinstance(error, TimeoutError):
        return JSONResponse({"error": "it took longer than the server allows"}, 504)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@dataclass(frozen=True)
class _Wish:
    """What a request asks for."""

    predictor: Predictor
    point: OperatingPoint
    fields: frozenset[str]
    raw: bool

    def people(self, answer: Answer) -> Poses:
        poses = answer.poses
        if self.raw:
            return poses
        return self.point.apply(poses.within(answer.shape), self.predictor.skeleton)


class _Service:
    """The state behind the routes."""

    def __init__(
        self, models: Sequence[ServedModel], limits: Limits, batch_size: int, workers: int
    ) -> None:
        self._models = {model.method: model for model in models}
        self._first = models[0]
        self._limits = limits
        self.queue = BatchQueue(batch_size, workers, limits.queue, limits.inputs)
        self._metrics = Metrics(lambda: self.queue.inside)
        self._videos = asyncio.Semaphore(limits.videos)
        self._clients = 0

    async def health(self, _: Request) -> Response:
        """Whether it answers."""
        return JSONResponse({"status": "ok", "version": __version__, "queue": self.queue.inside})

    async def show_metrics(self, _: Request) -> Response:
        """Prometheus text."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def show_openapi(self, _: Request) -> Response:
        """The interface."""
        return JSONResponse(openapi(self._first, list(self._models), self._limits.body))

    async def model(self, _: Request) -> Response:
        """What is served."""
        return JSONResponse([model.describe() for model in self._models.values()])

    async def predict(self, request: Request) -> Response:
        """One image."""
        start = time.perf_counter()
        with self._metrics.request("image") as done:
            wish = self._wish(request.query_params)
            data = await read_image_bytes(request, self._limits)
            answer = await self._answer(wish, data)
            body = await run_in_threadpool(
                describe_answer, answer, wish.people(answer), wish.fields
            )
            if "seconds" in wish.fields:
                body["seconds"] = round_seconds(
                    answer.seconds | {"total": time.perf_counter() - start}
                )
            done(answer.seconds, len(body["people"]))
        return JSONResponse(body)

    async def predict_video(self, request: Request) -> Response:
        """A video: one line of JSON a frame."""
        wish = self._wish(request.query_params, video=True)
        if self._videos.locked():
            raise QueueFullError
        await self._videos.acquire()
        try:
            file = tempfile.NamedTemporaryFile(prefix="higherhrnet-", delete=False)  # noqa: SIM115
            path = Path(file.name)
            try:
                with file:
                    limits = self._limits
                    async for part in read_parts(request, limits.video, limits.upload):
                        await run_in_threadpool(file.write, part)
                video = await run_in_threadpool(open_video, path, self._limits.pixels)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        except BaseException:
            self._videos.release()
            raise

        def close() -> None:
            path.unlink(missing_ok=True)
            self._videos.release()

        return _PatientResponse(self._frames(wish, video), self._limits.seconds, close)

    async def _frames(self, wish: _Wish, video: VideoFile) -> AsyncIterator[str]:
        tracker = Tracker(wish.predictor.skeleton)
        try:
            async for frame in iterate_in_threadpool(iter(video)):
                line: dict[str, Any] = {"frame": frame.number, "time": round(frame.time, 4)}
                if frame.image is None:
                    line["error"] = "this frame is damaged"
                else:
                    with self._metrics.request("frame") as done:
                        answer = await self._patiently(wish, frame.image)
                        people = tracker.update(wish.people(answer), frame.time)
                        line |= await run_in_threadpool(
                            describe_answer, answer, people, wish.fields
                        )
                        done(answer.seconds, len(people))
                yield json.dumps(line) + "\n"
        except (UserError, TimeoutError) as error:  # the status was sent long ago
            yield json.dumps({"error": str(error) or "it took too long"}) + "\n"

    async def live(self, socket: WebSocket) -> None:
        """A camera: each message is an image, answered by its people; one at a time."""
        try:
            wish = self._wish(socket.query_params, video=True)
        except HTTPException as error:
            await socket.close(1008, str(error.detail)[:120])
            return
        if self._clients >= self._limits.clients:
            await socket.close(1013, "as many live connections as may be")
            return
        self._clients += 1  # before anything is waited for, so that nobody slips in
        try:
            await socket.accept()
            await self._watch(socket, wish)
        except WebSocketDisconnect:
            pass
        finally:
            self._clients -= 1

    async def _watch(self, socket: WebSocket, wish: _Wish) -> None:
        tracker, start = Tracker(wish.predictor.skeleton), time.perf_counter()
        while True:
            try:
                data = await asyncio.wait_for(socket.receive_bytes(), self._limits.seconds)
            except (TimeoutError, KeyError):  # silence, or text instead of bytes
                await socket.close(1008)
                return
            begun = time.perf_counter()
            try:
                with self._metrics.request("live") as done:
                    image = await run_in_threadpool(decode_image, data, self._limits.pixels)
                    answer = await self._patiently(wish, image)
                    people = tracker.update(wish.people(answer), begun - start)
                    body = await run_in_threadpool(describe_answer, answer, people, wish.fields)
                    total = {"total": time.perf_counter() - begun}
                    body["seconds"] = round_seconds(answer.seconds | total)
                    done(answer.seconds, len(people))
            except (UserError, TimeoutError) as error:
                body = {"error": str(error) or "it took too long"}
            await socket.send_json(body)

    def _wish(self, query: Mapping[str, str], video: bool = False) -> _Wish:
        known = {"preset", "method", "min_score", "min_keypoint_score", "fields", "raw"}
        unknown = sorted(set(query) - known)
        if unknown:
            raise HTTPException(
                400, f"unknown query parameter '{unknown[0]}'; there are {', '.join(sorted(known))}"
            )
        method = query.get("method", self._first.method)
        model = self._models.get(method)
        if model is None:
            raise HTTPException(400, f"method '{method}' is not served: {', '.join(self._models)}")
        quick = "fast" if video and "fast" in model.predictors else DEFAULT
        preset = query.get("preset", quick)
        if preset not in model.predictors:
            raise HTTPException(400, f"preset '{preset}' is none of {', '.join(model.predictors)}")
        fields = frozenset((query.get("fields") or ",".join(_DEFAULT_FIELDS)).split(","))
        if not fields <= set(FIELDS):
            wrong = min(fields - set(FIELDS))
            raise HTTPException(400, f"field '{wrong}' is none of {', '.join(FIELDS)}")
        point = model.operating_points[preset]
        if (least := read_number(query, "min_score")) is not None:
            point = replace(point, person=least)
        if (least := read_number(query, "min_keypoint_score")) is not None:
            point = replace(point, joint=least, refined=least)
        raw = query.get("raw", "false").lower()
        if raw not in ("true", "false"):
            raise HTTPException(400, f"raw must be true or false, not '{raw}'")
        return _Wish(model.predictors[preset], point, fields, raw == "true")

    async def _answer(self, wish: _Wish, data: bytes) -> Answer:
        future = self.queue.submit(wish.predictor, lambda: decode_image(data, self._limits.pixels))
        return await asyncio.wait_for(asyncio.wrap_future(future), self._limits.seconds)

    async def _patiently(self, wish: _Wish, image: npt.NDArray[np.uint8]) -> Answer:
        """Wait for a place in the queue instead of being refused."""
        deadline = time.perf_counter() + self._limits.seconds
        while True:
            try:
                future = self.queue.submit(wish.predictor, lambda: image)
            except QueueFullError:
                if time.perf_counter() > deadline:
                    raise TimeoutError from None
                await asyncio.sleep(0.05)
                continue
            left = max(deadline - time.perf_counter(), 0)
            return await asyncio.wait_for(asyncio.wrap_future(future), left)


class _PatientResponse(StreamingResponse):
    """A stream of JSON lines that ends when its reader takes nothing for so many seconds.

    Args:
        lines: the stream.
        seconds: of silence.
        close: called at the end, whether the stream was begun or not.
    """

    def __init__(
        self, lines: AsyncIterator[str], seconds: float, close: Callable[[], None]
    ) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._lines, self._seconds, self._close = lines, seconds, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patiently(message: Message) -> None:
            await asyncio.wait_for(send(message), self._seconds)

        try:
            await super().__call__(scope, receive, patiently)
        finally:
            self._close()
            if isinstance(self._lines, AsyncGenerator):
                await self._lines.aclose()
