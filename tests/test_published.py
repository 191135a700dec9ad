"""Published checkpoints: by name, from a server that breaks off, checked, cached, or not at all."""

import hashlib
import http.server
import threading
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from higherhrnet import load
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.errors import UserError
from higherhrnet.models import model_zoo as published
from higherhrnet.models import weights
from higherhrnet.models.model_zoo import MODEL_ZOO
from tests.build import build_model

NAME = "mmpose/higherhrnet_w32_512"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A published checkpoint on a server of our own; ``asked`` lists the ranges asked for."""
    text = "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}"
    network = build_model(parse_config(text), 17)
    state = {f"backbone.{k}": v for k, v in network.state_dict().items()}
    file = tmp_path / "server" / "tiny.pth"
    file.parent.mkdir()
    torch.save({"state_dict": state}, file)
    content = file.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        asked: ClassVar[list[str | None]] = []
        shown = content

        def do_GET(self):
            wanted = self.headers.get("Range")
            self.asked.append(wanted)
            start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                last = len(self.shown) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
            self.send_header("Content-Length", str(len(self.shown) - start))
            self.end_headers()
            self.wfile.write(self.shown[start:])

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(published.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(published.OFFLINE, raising=False)
    url = f"http://127.0.0.1:{server.server_port}/tiny.pth"
    digest = hashlib.sha256(content).hexdigest()[:8]
    entry = replace(MODEL_ZOO[NAME], file="tiny.pth", url=url, sha256=digest)
    monkeypatch.setitem(MODEL_ZOO, NAME, entry)
    yield Handler
    server.shutdown()


def test_a_name_is_fetched_once_and_loads(served, tmp_path):
    for _ in range(2):
        predictor = load(NAME, "cpu", ["DATASET.INPUT_SIZE", "64"])
    assert len(predictor.skeleton) == 17
    assert served.asked == [None]
    assert sorted(f.name for f in (tmp_path / "cache").glob("tiny*"))[::-1] == [
        "tiny.pth.sha256",
        "tiny.pth",
    ]


def test_a_broken_off_download_goes_on(served, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tiny.pth.partial").write_bytes(served.shown[:1000])
    assert weights.read_checkpoint(published.fetch_weights(NAME)).state
    assert served.asked == ["bytes=1000-"]


def test_a_damaged_file_never_counts(served, tmp_path):
    served.shown = served.shown[:-1] + b"?"
    with pytest.raises(UserError, match=r"has sha256 .*it is damaged"):
        published.fetch_weights(NAME)
    assert not list((tmp_path / "cache").glob("tiny*"))


def test_offline_says_where_to_get_it(served, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(published.OFFLINE, "")  # --offline sets it: restored at the end
    assert main(["weights", "fetch", NAME, "--offline"]) == 2
    said = capsys.readouterr().err
    assert "the network is forbidden; fetch http://127.0.0.1" in said
    assert len(said.splitlines()) == 1
    assert served.asked == []


def test_what_only_browsers_get(served, capsys):
    assert main(["weights", "fetch", "official/higherhrnet_w32_512"]) == 2
    said = capsys.readouterr().err
    assert "handed out to browsers only: find pose_higher_hrnet_w32_512.pth at https://" in said
    assert main(["weights", "fetch", "hrnet_w18_mini"]) == 2
    assert "comes with the package" in capsys.readouterr().err
    assert main(["weights", "fetch", "mmpose/higherhrnet_w32_513"]) == 2
    assert f"did you mean '{NAME}'?" in capsys.readouterr().err


def test_the_list_names_all(served, capsys):
    assert main(["weights", "list"]) == 0
    said = capsys.readouterr().out
    for name, entry in MODEL_ZOO.items():
        assert name in said
        assert entry.what in said
        assert entry.url or entry.page
        assert len(entry.sha256) in (0, 8)
