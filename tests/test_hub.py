"""Checkpoints on the Hugging Face Hub, against a server of the test's own; torch.hub."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch

from higherhrnet.cli import main
from higherhrnet.errors import UserError
from higherhrnet.models.hub import split_address

from .shared import ROOT

pytest.importorskip("huggingface_hub")
WEIGHTS = ROOT / "higherhrnet" / "weights" / "higherhrnet_w18_mini.safetensors"
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as making, filling and reading a repository takes."""

    files: ClassVar[dict[str, bytes]] = {}
    stored: ClassVar[dict[str, bytes]] = {}
    made: ClassVar[list[dict]] = []
    token = "secret"

    def log_message(self, *_):
        pass

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        data = self.body()
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            return self.answer({"error": "log in"}, 401)
        if self.path == "/api/repos/create":
            self.made.append(json.loads(data))
            return self.answer({"url": f"{self.address}/me/mice", "name": "me/mice"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            return self.answer({"files": [
                {"path": f["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if f["size"] > 10**6 else "regular"}
                for f in json.loads(data)["files"]
            ]})  # fmt: skip
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.address}/lfs/{o['oid']}"}}}
                for o in json.loads(data)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if self.path.endswith("/commit/main"):
            for line in data.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.files[value["path"]] = self.stored[value["oid"]]
            return self.answer({"commitUrl": f"{self.address}/me/mice/commit/{COMMIT}",
                                "commitOid": COMMIT})  # fmt: skip
        return self.answer({"error": self.path}, 404)

    def do_PUT(self):
        self.stored[self.path.rpartition("/")[2]] = self.body()
        self.answer(b"")

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if len(parts) > 4 and parts[2] == "resolve":
            name = "/".join(parts[4:])
            if "/".join(parts[:2]) != "me/mice":
                return self.answer(b"", 404, X_Error_Code="RepoNotFound")
            if parts[3] not in ("main", COMMIT):
                return self.answer(b"", 404, X_Error_Code="RevisionNotFound")
            if name not in self.files:
                return self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            data = self.files[name]
            tag = hashlib.sha256(data).hexdigest()
            return self.answer(data, X_Repo_Commit=COMMIT, ETag=f'"{tag}"')
        if self.path.startswith("/api/models/me/mice"):
            return self.answer({"id": "me/mice", "sha": COMMIT, "siblings": []})
        return self.answer({"error": self.path}, 404)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path):
    """A running server, and how to run a command with it for the Hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.address = f"http://127.0.0.1:{server.server_port}"
    Hub.files, Hub.stored, Hub.made = {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ, "HF_ENDPOINT": Hub.address, "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    environment.pop("HIGHERHRNET_OFFLINE", None)  # another test's --offline

    def run(*words: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env={**environment, **more},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    yield run
    server.shutdown()


def test_addresses():
    assert split_address("hf://me/mice") == ("me/mice", "model.safetensors", None)
    assert split_address("hf://me/mice/a/b.pth@v2") == ("me/mice", "a/b.pth", "v2")
    for wrong in ("hf://", "hf://mice", "hf:///mice"):
        with pytest.raises(UserError, match="not of the form hf://user/model"):
            split_address(wrong)


def test_push_and_load(hub, tmp_path):
    push = ("-m", "higherhrnet", "weights", "push", "higherhrnet_w18_mini", "me/mice")
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"metrics": {"AP": 0.3502, "AR": 0.4}}))
    refused = hub(*push)
    assert refused.returncode == 2
    assert "does not let you write to 'me/mice'" in refused.stderr
    done = hub(*push, "--license", "mit", "--metrics", str(metrics), HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert "higherhrnet.load('hf://me/mice')" in done.stdout
    assert sorted(Hub.files) == ["README.md", "config.yaml", "model.safetensors", "skeleton.yaml"]
    assert Hub.files["model.safetensors"] == WEIGHTS.read_bytes()
    card = Hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: higherhrnet\n")
    assert "value: 35.02" in card
    assert "HigherHRNet-W18, bottom-up" in card
    assert "left_shoulder" in card
    photo = str(ROOT / "higherhrnet" / "assets" / "demo.jpg")
    predict = ("-m", "higherhrnet", "predict", photo, "--preset", "fast", "--show", "none")
    found = hub(*predict, "--weights", "hf://me/mice@main")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "output" / "predict" / "predictions.json").is_file()
    # Offline from the cache, and in Python.
    Hub.files.clear()
    code = "import higherhrnet; print(higherhrnet.load('hf://me/mice', device='cpu').method)"
    offline = hub("-c", code, HIGHERHRNET_OFFLINE="1")
    assert offline.stdout.strip() == "bottom-up", offline.stderr


@pytest.mark.parametrize(
    ("address", "told", "status", "environment"),
    [
        ("hf://you/none", "the Hub has no such repository", 2, {}),
        ("hf://me/mice@v9", "the Hub has no such revision", 2, {}),
        ("hf://me/mice/other.pth", "the Hub has no such file", 2, {}),
        ("hf://me/mice", "the network is forbidden", 2, {"HIGHERHRNET_OFFLINE": "1"}),
        pytest.param(  # the Hub's library tries again for half a minute
            "hf://me/mice",
            "cannot be fetched",
            1,
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_hub_has_not(hub, address, told, status, environment):
    done = hub("-m", "higherhrnet", "weights", "inspect", address, **environment)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_card_needs_no_server(capsys):
    words = ["weights", "push", "hrnet_w18_mini", "me/mice", "--card-only"]
    assert main(words) == 0
    assert "HRNet-W18, top-down" in capsys.readouterr().out


def test_torch_hub_entries():
    loaded = torch.hub.load(str(ROOT), "predictor", source="local", device="cpu", preset="fast")
    assert loaded.method == "bottom-up"
    network = torch.hub.load(str(ROOT), "network", "hrnet_w18_mini", source="local", device="cpu")
    assert network(torch.zeros(1, 3, 64, 64)).heatmaps[0].shape == (1, 17, 16, 16)
