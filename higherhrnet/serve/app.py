"""The HTTP interface: images and videos in, people out as JSON.

Clients send bytes, never paths or addresses. Whatever they send, the answer is one of: 200 with the
people, 4xx with a sentence on what is wrong with the request, 503 with ``Retry-After`` while the
server is full, 504 when it took too long.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
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
from ..io.images import decode, read_size
from ..poses import Poses
from .batching import Answer, BatchQueue, QueueFullError
from .metrics import Metrics
from .models import DEFAULT, ServedModel
from .openapi import openapi

_log = logging.getLogger(__name__)
FIELDS = ("keypoints", "bbox", "score", "visibility", "tag", "seconds", "heatmap", "tag_map")
"""What an answer can hold; ``heatmap`` and ``tag_map`` are PNG images in data addresses."""
_DEFAULT_FIELDS = ("keypoints", "bbox", "score", "visibility", "seconds")
_RETRY_AFTER = "1"


@dataclass(frozen=True)
class Limits:
    """What clients may ask for.

    Attributes:
        queue: images that wait or are worked on.
        body: bytes of an image's request.
        video: bytes of a video's.
        pixels: of an image.
        inputs: pixels of the network's inputs for an image, all views together.
        seconds: for an image's bytes, from its last byte to its answer, and of silence.
        upload: seconds for a video's bytes.
        videos: at the same time.
        clients: live connections at the same time.
    """

    queue: int = 64
    body: int = 20 << 20
    video: int = 500 << 20
    pixels: int = 50_000_000
    inputs: int = 16_000_000
    seconds: float = 60.0
    upload: float = 300.0
    videos: int = 1
    clients: int = 8


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
            data = await self._image_bytes(request)
            answer = await self._answer(wish, data)
            body = await run_in_threadpool(self._describe, wish, answer, wish.people(answer))
            if "seconds" in wish.fields:
                body["seconds"] = _round(answer.seconds | {"total": time.perf_counter() - start})
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
                    async for part in self._parts(request, limits.video, limits.upload):
                        await run_in_threadpool(file.write, part)
                video = await run_in_threadpool(_open_video, path, self._limits.pixels)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        except BaseException:
            self._videos.release()
            raise
        lines = self._frames(wish, video, path)
        return _PatientResponse(lines, self._limits.seconds, media_type="application/x-ndjson")

    async def _frames(self, wish: _Wish, video: VideoFile, path: Path) -> AsyncIterator[str]:
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
                        line |= await run_in_threadpool(self._describe, wish, answer, people)
                        done(answer.seconds, len(people))
                yield json.dumps(line) + "\n"
        except (UserError, TimeoutError) as error:  # the status was sent long ago
            yield json.dumps({"error": str(error) or "it took too long"}) + "\n"
        finally:
            path.unlink(missing_ok=True)
            self._videos.release()

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
                    image = await run_in_threadpool(self._decode, data)
                    answer = await self._patiently(wish, image)
                    people = tracker.update(wish.people(answer), begun - start)
                    body = await run_in_threadpool(self._describe, wish, answer, people)
                    total = {"total": time.perf_counter() - begun}
                    body["seconds"] = _round(answer.seconds | total)
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
        if (least := _number(query, "min_score")) is not None:
            point = replace(point, person=least)
        if (least := _number(query, "min_keypoint_score")) is not None:
            point = replace(point, joint=least, refined=least)
        raw = query.get("raw", "false").lower()
        if raw not in ("true", "false"):
            raise HTTPException(400, f"raw must be true or false, not '{raw}'")
        return _Wish(model.predictors[preset], point, fields, raw == "true")

    async def _parts(self, request: Request, most: int, seconds: float) -> AsyncIterator[bytes]:
        """A request's body, piece by piece; its size and its time have limits."""
        too_large = HTTPException(413, f"more than {most >> 20} MiB")
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        size, deadline = 0, time.monotonic() + seconds
        stream = request.stream()
        while True:
            try:
                part = await asyncio.wait_for(anext(stream), max(deadline - time.monotonic(), 0))
            except StopAsyncIteration:
                return
            size += len(part)
            if size > most:
                raise too_large
            yield part

    async def _image_bytes(self, request: Request) -> bytes:
        limits = self._limits
        parts = [part async for part in self._parts(request, limits.body, limits.seconds)]
        body = b"".join(parts)
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            return body
        found = _first_file(kind, body)
        if found is None:
            raise HTTPException(400, "the form holds no file")
        return found

    def _decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        if not data:
            raise UserError("the request holds no image")
        size = read_size(data)
        if size is None:
            raise UserError("the request is no image of a known kind: send JPEG, PNG or WebP")
        if size[0] * size[1] > self._limits.pixels:
            raise UserError(
                f"the image has {size[1]}x{size[0]} pixels; this server takes "
                f"{self._limits.pixels // 10**6} million"
            )
        try:
            return decode(data, "request", upright=True)
        except MemoryError as error:
            raise UserError("there is not enough memory for an image of this size") from error

    async def _answer(self, wish: _Wish, data: bytes) -> Answer:
        future = self.queue.submit(wish.predictor, lambda: self._decode(data))
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

    def _describe(self, wish: _Wish, answer: Answer, poses: Poses) -> dict[str, Any]:
        """The answer's JSON: people as COCO's results have them, best first."""
        order = np.argsort(-poses.person_score, kind="stable")
        people = []
        for person, record in enumerate(poses.to_coco(0)):
            entry: dict[str, Any] = {"category_id": record["category_id"]}
            if "keypoints" in wish.fields:
                entry["keypoints"] = [round(value, 3) for value in record["keypoints"]]
            if "bbox" in wish.fields:
                entry["bbox"] = poses.boxes[person].round(2).tolist()
            if "score" in wish.fields:
                entry["score"] = round(record["score"], 4)
            if "visibility" in wish.fields:
                entry["visibility"] = poses.visibility[person].tolist()
            if "tag" in wish.fields:
                entry["tag"] = poses.tag[person].round(4).tolist()
            if poses.track[person] >= 0:
                entry["track"] = int(poses.track[person])
            people.append(entry)
        body: dict[str, Any] = {
            "image": {"width": answer.shape[1], "height": answer.shape[0]},
            "method": wish.predictor.method,
            "people": [people[person] for person in order],
        }
        if wish.fields & {"heatmap", "tag_map"}:
            predictor, maps = answer.maps
            heatmaps, tags = predictor.overlay(maps, answer.shape)
            if "heatmap" in wish.fields:
                body["heatmap"] = _png(np.clip(heatmaps.max(axis=0), 0, 1))
            if "tag_map" in wish.fields and tags is not None:
                body["tag_map"] = _tag_png(heatmaps, tags)
        return body


def _number(query: Mapping[str, str], name: str) -> float | None:
    if name not in query:
        return None
    try:
        value = float(query[name])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise HTTPException(400, f"{name} '{query[name]}' is no number")
    return value


class _PatientResponse(StreamingResponse):
    """A stream that ends when its reader takes nothing for so many seconds."""

    def __init__(self, lines: AsyncIterator[str], seconds: float, media_type: str) -> None:
        super().__init__(lines, media_type=media_type)
        self._lines, self._seconds = lines, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patiently(message: Message) -> None:
            await asyncio.wait_for(send(message), self._seconds)

        try:
            await super().__call__(scope, receive, patiently)
        finally:
            if isinstance(self._lines, AsyncGenerator):
                await self._lines.aclose()


def _open_video(path: Path, most: int) -> VideoFile:
    try:
        video = VideoFile(path)
    except UserError as error:
        raise UserError(str(error).replace(f"'{path}'", "of the request")) from error
    if video.shape[0] * video.shape[1] > most:
        raise UserError(
            f"the video has {video.shape[1]}x{video.shape[0]} pixels, which is too much"
        )
    return video


_MOST_PARTS = 20


def _first_file(kind: str, body: bytes) -> bytes | None:
    """The first file of a multipart form (RFC 7578); None if there is none."""
    found = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', kind)
    if found is None:
        return None
    limit = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    start = body.find(limit)
    for _ in range(_MOST_PARTS):
        end = body.find(b"\r\n" + limit, start + len(limit))
        if start < 0 or end < 0:
            return None
        head, blank, payload = body[start + len(limit) : end].partition(b"\r\n\r\n")
        if blank and (b"filename=" in head or b"image/" in head):
            return payload
        start = end + 2
    return None


def _png(values: npt.NDArray[np.float32]) -> str:
    """A map of 0..1 as gray PNG."""
    return _data_address(np.asarray(np.rint(255 * values), np.uint8))


def _tag_png(heatmaps: npt.NDArray[np.float32], tags: npt.NDArray[np.float32]) -> str:
    """Tags as colors, each joint's where its heatmap is the highest, as bright as that is."""
    size = (tags.shape[2], tags.shape[1])
    small = np.stack([cv2.resize(heatmap, size) for heatmap in heatmaps])
    joint = small.argmax(axis=0)
    if len(tags) == 1:
        joint = np.zeros_like(joint)
    value = np.take_along_axis(tags, joint[None], axis=0)[0]
    low, high = np.percentile(value, (2, 98))
    hue = np.clip((value - low) / max(high - low, 1e-6), 0, 1)
    bright = np.clip(small.max(axis=0), 0.05, 1)
    hsv = np.stack([170 * hue, np.full_like(hue, 220), 255 * bright], axis=2)
    return _data_address(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR))


def _data_address(image: npt.NDArray[Any]) -> str:
    _, data = cv2.imencode(".png", image)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _round(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(value, 4) for stage, value in seconds.items()}
