"""The server: people for images, sentences for rubbish, and no client in the way of another."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from higherhrnet import load
from higherhrnet.io.images import read_image

from .shared import ROOT

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from higherhrnet.errors import UserError
from higherhrnet.inference.predictor import Scene
from higherhrnet.serve import batching
from higherhrnet.serve.app import build_app
from higherhrnet.serve.batching import BatchQueue, QueueFullError
from higherhrnet.serve.models import serve_model
from higherhrnet.serve.requests import Limits

PHOTO = (ROOT / "higherhrnet" / "assets" / "demo.jpg").read_bytes()
SMALL = ["TEST.PRECISION", "fp32", "DATASET.INPUT_SIZE", 128, "TEST.ZOOM_SIZES", []]
LIMITS = Limits(
    queue=4, body=1 << 20, video=1 << 20, pixels=1_000_000, inputs=2_000_000, seconds=20, clients=2
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return serve_model("higherhrnet_w18_mini", "cpu", SMALL)


@pytest.fixture(scope="module")
def client(model):
    with TestClient(build_app([model], LIMITS)) as client:
        yield client


def test_the_people_of_an_image(client):
    body = client.post("/predict?min_score=0.05", content=PHOTO).json()
    expected = load("higherhrnet_w18_mini", "cpu", SMALL)
    expected.operating_point = replace(expected.operating_point, person=0.05)
    poses = expected(read_image(ROOT / "higherhrnet" / "assets" / "demo.jpg"))
    poses = poses.select(np.argsort(-poses.person_score, kind="stable"))
    assert body["image"] == {"width": 640, "height": 360}
    assert len(body["people"]) == len(poses) > 0
    for person, found in enumerate(body["people"]):
        keypoints = np.array(found["keypoints"]).reshape(17, 3)
        np.testing.assert_allclose(keypoints[:, :2], poses.xy[person], atol=1e-3)
        assert found["score"] == pytest.approx(poses.person_score[person], abs=1e-4)
        np.testing.assert_allclose(found["bbox"], poses.boxes[person], atol=1e-2)
    assert body["seconds"]["total"] >= body["seconds"]["forward"] > 0


def test_forms_presets_and_fields(client):
    form = {"file": ("photo.jpg", PHOTO, "image/jpeg")}
    body = client.post("/predict?preset=fast&fields=score,heatmap,tag_map", files=form).json()
    assert {key for person in body["people"] for key in person} <= {"category_id", "score"}
    assert "seconds" not in body
    for name in ("heatmap", "tag_map"):
        data = body[name].removeprefix("data:image/png;base64,").encode()
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), -1)
        assert image is not None
        assert abs(image.shape[1] / image.shape[0] - 640 / 360) < 0.1
    everyone = client.post("/predict?raw=true&fields=score", content=PHOTO).json()["people"]
    assert len(everyone) >= len(client.post("/predict", content=PHOTO).json()["people"])


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("", b"", 422, "no image"),
        ("", b"hello", 422, "send JPEG, PNG or WebP"),
        ("", PHOTO[:5000], 422, "truncated"),
        ("", b"x" * (2 << 20), 413, "1,048,576 bytes"),
        ("?presett=fast", PHOTO, 400, "presett"),
        ("?preset=slow", PHOTO, 400, "slow"),
        ("?fields=keypoints,all", PHOTO, 400, "'all'"),
        ("?min_score=high", PHOTO, 400, "high"),
        ("?min_score=nan", PHOTO, 400, "nan"),
        ("?method=top-down", PHOTO, 400, "top-down"),
        ("?raw=maybe", PHOTO, 400, "maybe"),
    ],
)
def test_sentences(client, query, body, status, said):
    response = client.post(f"/predict{query}", content=body)
    assert response.status_code == status
    assert said in response.json()["error"]
    assert client.get("/healthz").json()["queue"] == 0


def test_a_claim_of_many_pixels_is_refused_before_decoding(client):
    data = cv2.imencode(".png", np.zeros((1100, 1000), np.uint8))[1].tobytes()
    response = client.post("/predict", content=data)
    assert response.status_code == 422
    assert "takes 1,000,000" in response.json()["error"]


def test_a_long_and_narrow_image_is_refused(client):
    data = cv2.imencode(".png", np.zeros((20, 2000, 3), np.uint8))[1].tobytes()
    response = client.post("/predict", content=data)
    assert response.status_code == 422
    assert "narrow" in response.json()["error"]


def test_a_large_form_does_not_take_long(client):
    head = {"content-type": "multipart/form-data; boundary=x"}
    for part in (b"\n", b"--x\r\n\r\n", b"a: b\r\n", b"Content-Type: multipart/mixed\r\n\r\n"):
        start = time.perf_counter()
        response = client.post("/predict", content=part * ((900 << 10) // len(part)), headers=head)
        assert response.status_code in (400, 422)
        assert time.perf_counter() - start < 2


def test_a_broken_form(client):
    head = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\n\r\nno file\r\n--x--", b"\xff" * 100):
        response = client.post("/predict", content=body, headers=head)
        assert response.status_code == 400
        assert "form" in response.json()["error"]


def test_no_paths_and_no_addresses(client):
    for body in (b"/etc/passwd", b"file:///etc/passwd", b"http://localhost/x.jpg"):
        assert client.post("/predict", content=body).status_code == 422
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def video(tmp_path, frames: int = 6) -> bytes:
    av = pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(5))
        stream.width, stream.height = 320, 180
        image = cv2.resize(cv2.imdecode(np.frombuffer(PHOTO, np.uint8), 1), (320, 180))
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(image, 2 * number, axis=1), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_video_line_by_line(client, tmp_path):
    response = client.post("/predict/video?min_score=0.05", content=video(tmp_path))
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    assert lines[1]["time"] == pytest.approx(0.2)
    tracks = [{person["track"] for person in line["people"]} for line in lines]
    assert tracks[-1] & tracks[0]
    broken = client.post("/predict/video", content=b"no video" * 100)
    assert broken.status_code == 422
    assert "/tmp" not in broken.text
    again = client.post("/predict/video", content=video(tmp_path, 2))
    assert len(again.text.splitlines()) == 2


def test_a_camera(client):
    with client.websocket_connect("/live?min_score=0.05") as socket:
        for _ in range(2):
            socket.send_bytes(PHOTO)
            found = socket.receive_json()
            assert found["people"]
        assert all(person["track"] >= 0 for person in found["people"])
        socket.send_bytes(b"rubbish")
        assert "JPEG" in socket.receive_json()["error"]
        socket.send_bytes(PHOTO)
        assert socket.receive_json()["people"]


def test_so_many_cameras(client):
    with client.websocket_connect("/live"), client.websocket_connect("/live"):
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/live"):
            pass
        assert refused.value.code == 1013
    with client.websocket_connect("/live?preset=fast") as socket:  # there is room again
        socket.send_text("no bytes")
        assert socket.receive()["code"] == 1008


def test_silence_ends_a_camera(model):
    app = build_app([model], replace(LIMITS, seconds=0.3))
    with TestClient(app) as client, client.websocket_connect("/live") as socket:
        assert socket.receive()["code"] == 1008


def test_a_large_video_is_refused(client, tmp_path, monkeypatch):
    monkeypatch.setattr("higherhrnet.inference.video.VideoFile.shape", (4000, 4000), raising=False)
    data = video(tmp_path, 2)
    client.app.state.service._limits = replace(LIMITS, pixels=1000)
    try:
        response = client.post("/predict/video", content=data)
    finally:
        client.app.state.service._limits = LIMITS
    assert response.status_code == 422
    assert "320x180" in response.json()["error"]
    assert client.post("/predict/video", content=data).status_code == 200  # the place is free


def test_an_image_given_up_at_the_last_moment_ends_nothing(model):
    queue = BatchQueue(batch_size=1, workers=1, capacity=9)
    image = np.full((64, 64, 3), 90, np.uint8)
    predictor = model.predictors["fast"]

    class Unlucky(Future):
        def set_result(self, result):
            self.cancel()
            super().set_result(result)

    original = batching.Future
    batching.Future = Unlucky
    try:
        given_up = queue.submit(predictor, lambda: image)
        with pytest.raises(CancelledError):
            given_up.result(30)
    finally:
        batching.Future = original
    assert queue.submit(predictor, lambda: image).result(30).shape == (64, 64)
    queue.close()


def test_metrics_and_interface(client):
    client.post("/predict", content=PHOTO)
    text = client.get("/metrics").text
    assert 'higherhrnet_requests_total{kind="image",outcome="answered"}' in text
    assert "higherhrnet_queue_images 0.0" in text
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    routes = {"/predict", "/predict/video", "/model", "/healthz", "/metrics"}
    assert set(document["paths"]) == routes
    described = client.get("/model").json()[0]
    assert described["presets"][0] == "default"
    assert len(described["skeleton"]["sides"]) == 17
    page = client.get("/")
    assert page.status_code == 200
    for part in ("app.js", "draw.js", "style.css"):
        assert client.get(f"/page/{part}").status_code == 200


class SlowPredictor:
    """Stands for a network that is busy until it is let go."""

    def __init__(self, predictor) -> None:
        self.predictor, self.go, self.sizes = predictor, threading.Event(), []

    def __getattr__(self, name):
        return getattr(self.predictor, name)

    def forward(self, prepared, stats):
        self.go.wait(30)
        self.sizes.append(len(prepared))
        return self.predictor.forward(prepared, stats)


def test_a_full_queue_refuses_and_then_batches(model):
    slow = SlowPredictor(model.predictors["fast"])
    queue = BatchQueue(batch_size=2, workers=1, capacity=5)
    image = np.full((64, 64, 3), 90, np.uint8)
    futures = [queue.submit(slow, lambda: image) for _ in range(5)]
    with pytest.raises(QueueFullError):
        queue.submit(slow, lambda: image)
    assert futures[4].cancel()  # a client that went away
    slow.go.set()
    assert all(future.result(30).shape == (64, 64) for future in futures[:4])
    assert max(slow.sizes) == 2
    assert sum(slow.sizes) == 4
    queue.close()
    assert queue.inside == 0
    with pytest.raises(QueueFullError):
        queue.submit(slow, lambda: image)


def test_what_one_client_sends_does_not_touch_another(model):
    queue = BatchQueue(batch_size=4, workers=2, capacity=40)
    predictor = model.predictors["fast"]
    image = read_image(ROOT / "higherhrnet" / "assets" / "demo.jpg")

    def bug() -> np.ndarray:
        raise ZeroDivisionError

    good = [queue.submit(predictor, lambda: image) for _ in range(6)]
    bad = [queue.submit(predictor, bug) for _ in range(6)]
    expected = predictor.predict(image)[0]
    for future in good:
        np.testing.assert_allclose(future.result(60).poses.xy, expected.xy, atol=1e-3)
    for future in bad:
        with pytest.raises(ZeroDivisionError):
            future.result(60)
    queue.close()


def test_an_image_that_no_detector_takes_fails_alone(model):
    class Picky(SlowPredictor):
        def forward(self, prepared, stats):
            if any(item.shape == (40, 64) for item in prepared):
                raise UserError("too long and narrow")
            return super().forward(prepared, stats)

    picky = Picky(model.predictors["fast"])
    queue = BatchQueue(batch_size=3, workers=1, capacity=9)
    images = [np.full((side, 64, 3), 90, np.uint8) for side in (42, 40, 42)]
    futures = [queue.submit(picky, lambda image=image: image) for image in images]
    picky.go.set()
    assert futures[0].result(30).shape == futures[2].result(30).shape == (42, 64)
    with pytest.raises(UserError, match="long and narrow"):
        futures[1].result(30)
    queue.close()


def test_boxes_are_found_by_what_the_user_names():
    top_down = serve_model("hrnet_w18_mini", "cpu", [])
    finder = top_down.predictors["default"].detector
    named = serve_model("hrnet_w18_mini", "cpu", ["TEST.BBOX_SOURCE", "higherhrnet_w18_mini"])
    assert type(named.predictors["default"].detector) is not type(finder)
    prepared = named.predictors["default"].prepare(Scene(np.zeros((40, 64, 3), np.uint8)))
    assert prepared.pixels == 40 * 64  # before anybody is found, too


def test_full_and_slow_over_http(model):
    slow = SlowPredictor(model.predictors["default"])
    served = replace(model, predictors={"default": slow})
    limits = replace(LIMITS, queue=1, seconds=1.0)
    with TestClient(build_app([served], limits)) as client:
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/predict", content=PHOTO))
        )
        first.start()
        deadline = time.time() + 20
        while client.get("/healthz").json()["queue"] == 0 and time.time() < deadline:
            time.sleep(0.01)
        refused = client.post("/predict", content=PHOTO)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        first.join()
        assert answers[0].status_code == 504
        slow.go.set()


@pytest.mark.slow
def test_under_load(tmp_path):
    from higherhrnet.cli import main

    words = ["bench", "serve", "--clients", "16", "--requests", "300", "--broken", "0.1"]
    words += ["--json", str(tmp_path / "load.json")]
    assert main([*words, "DATASET.INPUT_SIZE", "128", "TEST.FLIP_TEST", "False"]) == 0
    (row,) = json.loads((tmp_path / "load.json").read_text())["rows"]
    assert row["lost"] == row["wrong"] == row["exit"] == 0
    assert row["200"] + row["422"] == 300
    assert row["MiB late"] < 1.2 * row["MiB early"] + 50
