"""Live input: images and streams of web servers, connections that break off, the live page."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from higherhrnet import UserError
from higherhrnet.cli import main
from higherhrnet.errors import WriteError
from higherhrnet.inference.inputs import find_inputs
from higherhrnet.inference.live_view import LiveView
from higherhrnet.inference.streams import Stream, _request, fetch_file, hide_password

from .shared import ROOT

PHOTO = (ROOT / "higherhrnet" / "assets" / "demo.jpg").read_bytes()
QUICK = ["DATASET.INPUT_SIZE", "64", "TEST.FLIP_TEST", "False", "TEST.SCALE_FACTOR", "[1.0]"]


def jpeg(number: int) -> bytes:
    image = np.full((64, 96, 3), 60, np.uint8)
    cv2.putText(image, str(number), (5, 50), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255))
    return cv2.imencode(".jpg", image)[1].tobytes()


class Handler(BaseHTTPRequestHandler):
    """/photo.jpg, /page, and /camera: a motion JPEG that breaks off after ten frames, twice."""

    connections = 0
    pause = 0.02

    def do_GET(self):
        if self.path.startswith("/secret.jpg"):
            token = base64.b64encode(b"me:p@ss").decode()
            if self.headers.get("Authorization") != f"Basic {token}":
                return self.send_error(401)
            self.path = "/photo.jpg"
        kinds = {
            "/photo.jpg": ("image/jpeg", PHOTO),
            "/page": ("text/html", b"<html>"),
            "/live.m3u8": ("application/vnd.apple.mpegurl", b"#EXTM3U"),
            "/get.php": ("video/mp4", b"no video"),
        }
        if self.path in kinds:
            kind, body = kinds[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path == "/camera" and type(self).connections < 4:
            type(self).connections += 1
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(10):
                data = jpeg(number)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(self.pause)
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.connections = 0
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as found:
        yield f"http://127.0.0.1:{found.server_port}"


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_addresses_are_inputs():
    found = find_inputs(["rtsp://camera/1", "https://x/y.jpg", "rtsp://camera/1"])
    assert found.addresses == ["rtsp://camera/1", "https://x/y.jpg"]
    assert found.has_videos


def test_an_image_of_a_web_server(server, tmp_path, capsys):
    words = ["predict", f"{server}/photo.jpg", "--output", str(tmp_path), *QUICK]
    assert main(words) == 0
    assert (tmp_path / "fetched" / "1_photo.jpg").read_bytes() == PHOTO
    assert (tmp_path / "1_photo_poses.jpg").is_file()
    assert "photo.jpg" in capsys.readouterr().out


def test_what_the_server_calls_it_decides(server, tmp_path):
    assert fetch_file(f"{server}/live.m3u8", tmp_path, 1) is None  # its parts are the stream
    assert fetch_file(f"{server}/get.php", tmp_path, 2).name == "2_get.php.mp4"


@pytest.mark.parametrize(
    ("path", "said"), [("/page", "web page"), ("/nothing", "404"), ("//", "404")]
)
def test_sentences(server, path, said, tmp_path, capsys):
    assert main(["predict", server + path, "--output", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_nobody_answers(tmp_path, capsys):
    pytest.importorskip("av")
    for address in ("http://127.0.0.1:9/x.jpg", "rtsp://me:secret@127.0.0.1:9/live"):
        assert main(["predict", address, "--output", str(tmp_path), *QUICK]) == 2
        said = capsys.readouterr().err
        assert "127.0.0.1:9" in said
        assert "secret" not in said


def test_a_stream_that_breaks_off_is_connected_to_again(server):
    pytest.importorskip("av")
    frames = list(Stream(f"{server}/camera", patience=2.0))
    assert Handler.connections == 4
    assert len(frames) > 12  # more than one connection has
    assert [f.number for f in frames] == sorted({f.number for f in frames})
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    assert frames[0].image.shape == (64, 96, 3)


def test_only_the_newest_frame_is_given(server, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(Handler, "connections", 3)
    seen = []
    for frame in Stream(f"{server}/camera", patience=0.1):
        seen.append(frame.number)
        time.sleep(0.1)
    assert len(seen) < 8
    assert seen[-1] == 9


def test_a_camera_of_the_network_is_predicted_and_shown(server, tmp_path, capsys, monkeypatch):
    pytest.importorskip("av")
    words = ["predict", f"{server}/camera", "--output", str(tmp_path), "--live", "0", *QUICK]
    shown = []

    def watch():
        deadline = time.time() + 30
        while time.time() < deadline and not shown:
            line = capsys.readouterr().out
            if "live: http://" in line:
                address = line.partition("live: ")[2].split()[0]
                with urllib.request.urlopen(address + "stream", timeout=30) as stream:
                    shown.append(stream.read(2000))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    monkeypatch.setattr(Stream.__init__, "__defaults__", (1.0,))
    assert main(words) == 0
    watcher.join()
    assert b"--frame" in shown[0]
    assert b"\xff\xd8" in shown[0]
    images = json.loads((tmp_path / "predictions.json").read_text())["images"]
    assert len(images) > 5
    assert images[0]["file_name"] == f"{server}/camera"
    assert list(tmp_path.glob("*_poses.mp4"))


def test_the_live_page():
    with LiveView(0) as view:
        view.show(np.full((32, 32, 3), 200, np.uint8))
        with urllib.request.urlopen(view.address) as page:
            assert b"stream" in page.read()
        with urllib.request.urlopen(view.address + "stream") as stream:
            assert b"image/jpeg" in stream.read(60)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(view.address + "etc/passwd")
        with pytest.raises(WriteError, match="--live"):
            LiveView(int(view.address.rstrip("/").rpartition(":")[2]))


def test_files_of_two_cameras_stay_apart(server, tmp_path):
    one, two = (fetch_file(f"{server}/photo.jpg", tmp_path, number) for number in (1, 2))
    assert one != two
    assert one.read_bytes() == two.read_bytes() == PHOTO
    assert fetch_file("rtsp://nowhere", tmp_path, 1) is None
    assert fetch_file(f"{server}/camera", tmp_path, 1) is None
    with pytest.raises(UserError, match="cannot be read"):
        fetch_file("http://127.0.0.1:9/", tmp_path, 1)


def test_one_address_that_fails_stops_no_others(server, tmp_path, capsys):
    words = ["predict", "http://127.0.0.1:9/x.jpg", f"{server}/photo.jpg", "--show", "none"]
    words += ["--output", str(tmp_path / "o"), "--device", "cpu", "--preset", "fast"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "in 1 image" in said.out
    assert "127.0.0.1:9/x.jpg" in said.err


def test_a_password_is_not_sent_on():
    request = _request("http://me:secret@127.0.0.1/a.jpg")
    assert "Authorization" in request.unredirected_hdrs
    assert not request.headers


def test_passwords_are_sent_and_hidden(server, tmp_path, capsys):
    address = server.replace("://", "://me:p%40ss@")
    assert fetch_file(f"{address}/secret.jpg", tmp_path, 1).read_bytes() == PHOTO
    with pytest.raises(UserError, match="401") as error:
        fetch_file(f"{server}/secret.jpg?password=p@ss", tmp_path, 1)
    assert "p@ss" not in str(error.value)
    for hidden in ("rtsp://me:pa@ss@cam/1", "rtsp://me:pa/ss@cam/1", "rtsp://me:secret@cam/1"):
        assert hide_password(hidden) == "rtsp://cam/1"
