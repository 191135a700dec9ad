"""Kills, two processes in a folder, lying servers, lack of memory: nothing lost or believed."""

import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from higherhrnet.cli import main
from higherhrnet.datasets import prepare
from higherhrnet.errors import UserError, WriteError, lack_of
from higherhrnet.inference.prediction_files import read_done
from higherhrnet.io.download import download
from higherhrnet.io.images import decode
from higherhrnet.io.lock import lock_folder
from higherhrnet.models import model_zoo
from higherhrnet.models.model_zoo import check_weights_file
from higherhrnet.skeleton import SKELETONS

from .shared import ROOT, SHARED

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 8, TEST_IMAGES: 2}
TRAIN: {END_EPOCH: 3, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1,
        KEEP_CHECKPOINTS: 2}
"""

# Runs a training in forked children of one process, which has imported everything; each child
# kills itself before or after its N-th operation on a file of the run.
KILLER = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from higherhrnet.config import parse_config
from higherhrnet.factory.training import train
from higherhrnet.training import curves  # imports matplotlib
from torch.utils.tensorboard import SummaryWriter

base, config = Path(sys.argv[1]), parse_config(Path(sys.argv[2]).read_text(), quiet=True)

def instrument(folder, when, number, log):
    count = [0]
    def wrap(owner, name):
        original = getattr(owner, name)
        def changed(*words, **named):
            paths = [str(w) for w in words if isinstance(w, (str, Path))]
            mode = named.get("mode", words[1] if len(words) > 1 and name == "open" else "")
            mine = any(p.startswith(str(folder)) and "tensorboard" not in p for p in paths)
            if not mine or (name == "open" and not set(str(mode)) & set("wax")):
                return original(*words, **named)
            count[0] += 1
            me = count[0]
            if log is not None:
                log.append(f"{name} {Path(paths[0]).name}")
            if me == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*words, **named)
            if me == number and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(owner, name, changed)
    for name in ("replace", "unlink", "open", "write_text", "write_bytes"):
        wrap(Path, name)
    wrap(os, "link")
    wrap(torch, "save")

def run(folder, resume, when="", number=0, report=None):
    pid = os.fork()
    if not pid:
        try:
            log = [] if report else None
            instrument(folder, when, number, log)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            train(config, folder, "cpu", resume)
            if report:
                Path(report).write_text(json.dumps(log))
        except BaseException as error:
            (base / "errors.txt").open("a").write(f"{folder.name}: {error!r}\\n")
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

assert run(base / "whole", False, report=base / "operations.json") == 0
operations = json.loads((base / "operations.json").read_text())
numbers = range(1, len(operations) + 1, int(sys.argv[3]))
for number in numbers:
    for when in ("before", "after"):
        folder = base / f"{when}_{number:03d}"
        status = run(folder, False, when, number)
        assert os.WIFSIGNALED(status), (number, when, status)
        resume = (folder / "last.pth").is_file()
        status = run(folder, resume)
        assert status == 0, (number, when, status)
print(len(operations), "operations,", 2 * len(numbers), "kills")
"""


def kill_matrix(tmp_path, every):
    (tmp_path / "c.yaml").write_text(TINY)
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    base = tmp_path / "runs"
    base.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(base), str(tmp_path / "c.yaml"), str(every)],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    errors = base / "errors.txt"
    assert done.returncode == 0, (done.stderr[-2000:], errors.is_file() and errors.read_text())
    print(done.stdout)
    runs = sorted(p for p in base.iterdir() if p.is_dir())
    whole = state_of(base / "whole")
    alike = [run for run in runs if state_of(run) == whole]
    different = [(r.name, [a for a, b in zip(state_of(r), whole, strict=True) if a != b])
                 for r in runs if r not in alike]  # fmt: skip
    assert not different, different[:3]
    return len(alike) - 1


def state_of(run):
    last = torch.load(run / "last.pth", weights_only=True)
    weights = [float(t.double().sum()) for t in last["model"].values()]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    figures = [(r["epoch"], r["loss"], r.get("AP")) for r in log]
    names = sorted(p.name for p in run.iterdir())
    with safe_open(run / "best.safetensors", "pt") as file:
        best = (
            file.metadata(),
            [float(file.get_tensor(n).double().sum()) for n in sorted(file.keys())],
        )
    return weights, figures, names, best, last["progress"]["best"]


def test_a_training_killed_at_any_file_operation_goes_on(tmp_path):
    """Two of its operations; all of them in the slow test."""
    assert kill_matrix(tmp_path, 27) >= 4


@pytest.mark.slow
def test_a_training_killed_at_every_file_operation_goes_on(tmp_path):
    assert kill_matrix(tmp_path, 1) >= 50


def images(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)


def predict(folder, out, *words):
    command = ["predict", str(folder), "--output", str(out), "--device", "cpu", "--raw", *words]
    return [*command, "DATASET.INPUT_SIZE", "64", "TEST.SCALE_FACTOR", "[1]"]


def test_a_killed_prediction_goes_on(tmp_path, capsys):
    images(tmp_path / "in", 90)
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert main(predict(tmp_path / "in", whole, "--show", "none")) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "higherhrnet", *predict(tmp_path / "in", out)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    part = out / ".predictions.0.images.partial"
    while process.poll() is None and not (part.is_file() and part.read_bytes().count(b"\n") > 4):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(read_done(out, SKELETONS["coco"].joints))
    assert 5 <= before < 90
    assert not (out / "predictions.json").exists()
    capsys.readouterr()
    assert main(predict(tmp_path / "in", out, "--skip-done", "--show", "none")) == 0
    assert f"{before} of 90 images were predicted before" in capsys.readouterr().out
    for name in ("predictions.json", "results.json", "predictions.csv"):
        assert (out / name).read_text() == (whole / name).read_text(), name
    assert not list(out.glob(".*"))
    assert main(predict(tmp_path / "in", out, "--skip-done", "--show", "none")) == 0
    assert "90 of 90 images were predicted before" in capsys.readouterr().out
    with pytest.raises(UserError, match="17 other joints; choose another --output"):
        read_done(out, SKELETONS["crowdpose"].joints)
    assert main([*predict(tmp_path / "in", out, "--skip-done"), "TEST.FLIP_TEST", "False"]) == 2
    assert "by another network or with other settings" in capsys.readouterr().err
    images(tmp_path / "more", 3)  # more inputs, other numbers
    words = predict(tmp_path / "more", out, "--skip-done", "--show", "none")
    assert main([*words[:2], str(tmp_path / "in"), *words[2:]]) == 0
    content = json.loads((out / "predictions.json").read_text())
    assert [i["id"] for i in content["images"]] == list(range(1, 94))
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])


def test_two_processes_do_not_write_into_one_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "c.yaml").write_text(TINY)
    images(tmp_path / "in", 1)
    out = tmp_path / "out"
    train = ["train", str(tmp_path / "c.yaml"), "--output", str(out), "--device", "cpu"]
    valid = ["valid", str(tmp_path / "c.yaml"), "--output", str(out), "--device", "cpu"]
    for work, words in (
        ("training", train),
        ("prediction", predict(tmp_path / "in", out)),
        ("validation", [*valid, "--weights", "higherhrnet_w18_mini", "MODEL.WIDTH", "18",
                        "MODEL.NUM_MODULES", "[1, 4, 3]", "MODEL.NUM_BLOCKS", "4",
                        "MODEL.NUM_BASIC_BLOCKS", "4"]),
    ):  # fmt: skip
        with lock_folder(out, work):
            assert main(words) == 2, work
            error = capsys.readouterr().err
            assert f"another {work} is writing into '{out}' (process {os.getpid()} on" in error
        assert not list(out.glob(".*"))
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with lock_folder(out, "training"):
        main(train)
    assert "one of 4 Slurm tasks" in capsys.readouterr().err
    assert main(train) == 0


HOSTILE = SHARED / "cases" / "hostile"
CONFIG = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"


def check_set(name):
    file = HOSTILE / f"{name}.json"
    return ["data", "check", CONFIG, "DATASET.ROOT", HOSTILE, "DATASET.IMAGE_DIR", "pics",
            "DATASET.TRAIN", file.name, "DATASET.TEST", file.name]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", HOSTILE / "huge.png"], "has 30000x30000 pixels; from 1 to 268 million"),
        (["data", "stats", HOSTILE / "laughs.yaml"], "its aliases stand for more than 200000"),
        (["data", "stats", CONFIG, "DATASET.SKELETON", HOSTILE / "inf.yaml"], "inf.yaml': cannot"),
        (["weights", "inspect", HOSTILE / "float4.safetensors"], "float4_e2m1fn_x2, which is not"),
        (["weights", "inspect", HOSTILE / "stride0.pth"], "claims more numbers than the file"),
        (["weights", "inspect", HOSTILE / "scalar.pth"], "holds no HRNet that is known here"),
        (check_set("id_list"), "'id' cannot be [1]"),
        (check_set("rle_none"), "'counts' of its segmentation cannot be NoneType"),
        (check_set("area_huge"), "'area' cannot be"),
    ],
)
def test_the_given_hostile_files_get_a_sentence(tmp_path, capsys, words, sentence):
    output = ["--output", tmp_path] if words[0] == "predict" else []
    assert main([str(word) for word in [*words, *output]]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert len(error.splitlines()) == 1


@pytest.mark.data
def test_given_archives_are_not_complete(tmp_path, capsys):
    for name, sentence in (("prep_lzma", "is damaged"), ("prep_damaged", "is damaged")):
        shutil.copytree(HOSTILE / name, tmp_path / name)
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            path.chmod(0o755)
        words = ["data", "prepare", "crowdpose", str(tmp_path / name), "--offline"]
        assert main(words) == 2
        assert sentence in capsys.readouterr().err
        (tmp_path / name / "images.zip").unlink()
        assert main(words) == 2
        assert "images.zip' is missing" in capsys.readouterr().err


@pytest.mark.data
def test_a_sound_that_ffmpeg_does_not_know_is_left_out(tmp_path, capsys):
    pytest.importorskip("av")
    images(tmp_path / "in", 1)
    words = predict(tmp_path / "in", tmp_path / "out")
    assert main([*words[:2], str(HOSTILE / "unknown_sound.mp4"), *words[2:]]) == 0
    assert "of an unknown codec) cannot be kept" in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {Path(i["file_name"]).name for i in content["images"]} >= {"000.png"}
    assert any("frame" in image for image in content["images"])


def test_a_bug_in_one_image_loses_no_others(tmp_path, monkeypatch):
    from higherhrnet.poses import Poses

    images(tmp_path / "in", 3)
    drawn = []

    def draw(self, image, skeleton):
        drawn.append(1)
        if len(drawn) == 2:
            raise ZeroDivisionError("a bug")
        return image

    monkeypatch.setattr(Poses, "draw", draw)
    with pytest.raises(ZeroDivisionError):
        main(predict(tmp_path / "in", tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(content["images"]) >= 2


def test_a_backend_that_matplotlib_does_not_know(tmp_path):
    code = "import higherhrnet.training.curves, higherhrnet.research.ablation.plots; print('done')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "bogus"},
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


# Servers that lie


@pytest.fixture
def lying():
    """A server whose answer is set by hand: status, headers, body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answer = (200, {}, b"")
        asked: list = []  # noqa: RUF012

        def do_GET(self):
            status, headers, body = self.answer
            self.asked.append(dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}/x.safetensors"
    yield Handler
    server.shutdown()


WHOLE = save({"a": torch.ones(300)})
LIES = {
    "a web page": ((200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>"), "a web page"),
    "nothing": ((200, {}, b""), "is empty"),
    "a page without its type": ((200, {}, b"<html>no such file</html>"), "no whole weights file"),
    "cut short without a length": ((200, {}, WHOLE[:-9]), "no whole weights file"),
    "cut short with a length": ((200, {"Content-Length": "9999"}, WHOLE), "broke off"),
    "a part nobody asked for": ((206, {"Content-Range": "bytes 9-99/100"}, WHOLE), "not asked for"),
    "packed": ((200, {"Content-Encoding": "gzip"}, WHOLE), "packed (gzip)"),
    "a status of its own": ((203, {}, WHOLE), "status 203"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_is_not_believed(tmp_path, lying, monkeypatch, lie):
    lying.answer, sentence = LIES[lie]
    name = "timm/hrnet_w18"
    entry = model_zoo.ZooEntry("x.safetensors", "x", 1, "MIT", lying.url)
    monkeypatch.setitem(model_zoo.MODEL_ZOO, name, entry)
    monkeypatch.setenv(model_zoo.CACHE, str(tmp_path))
    monkeypatch.delenv(model_zoo.OFFLINE, raising=False)
    with pytest.raises((UserError, WriteError)) as error:
        model_zoo.fetch_weights(name)
    assert sentence in str(error.value)
    assert not (tmp_path / "x.safetensors").exists()
    assert lying.asked[-1]["Accept-Encoding"] == "identity"


def test_what_was_accepted_is_remembered(tmp_path, lying, monkeypatch, capsys):
    entry = model_zoo.ZooEntry("x.safetensors", "x", 1, "MIT", lying.url)
    monkeypatch.setitem(model_zoo.MODEL_ZOO, "timm/hrnet_w18", entry)
    monkeypatch.setenv(model_zoo.CACHE, str(tmp_path))
    monkeypatch.delenv(model_zoo.OFFLINE, raising=False)
    lying.answer = (200, {}, WHOLE)
    assert main(["weights", "fetch", "timm/hrnet_w18"]) == 0
    assert (tmp_path / "x.safetensors.sha256").read_text().endswith("  x.safetensors\n")
    (tmp_path / "x.safetensors").unlink()
    capsys.readouterr()
    lying.answer = (200, {}, save({"a": torch.zeros(300)}))
    assert main(["weights", "fetch", "timm/hrnet_w18"]) == 0
    assert "'x.safetensors' is not what it was: its SHA-256 is" in capsys.readouterr().err


def test_only_web_servers_are_asked(tmp_path):
    for url in ("file:///etc/passwd", "ftp://x/y", "data:,x"):
        with pytest.raises(UserError, match="no address of a web server"):
            download(url, tmp_path / "x")


def test_weights_files_are_known_by_their_beginning_and_end(tmp_path):
    torch.save({"a": torch.ones(300)}, tmp_path / "zip.pth")
    torch.save({"a": torch.ones(300)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("zip.pth", "old.pth"):
        check_weights_file(tmp_path / name, ".pth")
    cut = (tmp_path / "zip.pth").read_bytes()[:-50]
    (tmp_path / "cut.pth").write_bytes(cut)
    with pytest.raises(UserError, match="no whole weights file"):
        check_weights_file(tmp_path / "cut.pth", ".pth")


# Archives and images


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF", "GIF"])
def test_sizes_are_looked_at_before_decoding_in_every_format(kind):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(stream, kind)
    data, big = stream.getvalue(), 40_000
    small, large = {
        "JPEG": (b"\x00\x08\x00\x08\x03", b"%b\x03" % (2 * big.to_bytes(2, "big"))),
        "BMP": (2 * b"\x08\0\0\0", 2 * big.to_bytes(4, "little")),
        "TIFF": (b"", b""),
        "GIF": (b"GIF87a\x08\0\x08\0", b"GIF87a" + 2 * big.to_bytes(2, "little")),
    }[kind]
    if kind == "TIFF":
        for tag in (256, 257):  # width and height, short or long
            at = data.index(tag.to_bytes(2, "little"), 4)
            data = data[: at + 2] + b"\4\0\1\0\0\0" + big.to_bytes(4, "little") + data[at + 12 :]
    else:
        assert small in data
        data = data.replace(small, large)
    with pytest.raises(UserError, match=r"million (pixels|are read)"):
        decode(data, "x")


def test_a_damaged_archive_is_not_complete_when_it_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    names = [f"images/{number}.jpg" for number in range(20)]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name in names:
            archive.writestr(name, os.urandom(2000))
    content = bytearray((folder / "images.zip").read_bytes())
    content[22_000:22_050] = bytes(50)
    (folder / "images.zip").write_bytes(content)
    listed = {"images": [{"id": n, "file_name": Path(name).name} for n, name in enumerate(names)]}
    (folder / "a.json").write_text(json.dumps(listed))
    recipe = prepare.Recipe(
        (prepare.Archive("images.zip", "images"),), "by hand", {"a.json": 20}, {"a.json": "images"}
    )
    monkeypatch.setitem(prepare.RECIPES, "mine", recipe)
    with pytest.raises(UserError, match=r"is damaged.*fetch it again"):
        prepare.prepare("mine", folder)
    (folder / "images.zip").unlink()
    with pytest.raises(UserError, match=r"'.*images.zip' is missing"):
        prepare.prepare("mine", folder)
    (folder / ".images.zip.unpacking").unlink()
    for path in list((folder / "images").iterdir())[:3]:
        path.unlink()
    with pytest.raises(UserError, match=r"lacks \d+ of the 20 images"):
        prepare.prepare("mine", folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_archives_that_cannot_be_unpacked_get_a_sentence(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.jpg", bytes(5000))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[45:60] = bytes(15)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        prepare.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_data_check_opens_images_if_asked(tmp_path, capsys):
    from .test_brought_files import coco_file

    (tmp_path / "a.json").write_text(json.dumps(coco_file(tmp_path)))
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:5000])
    (tmp_path / "c.yaml").write_text(f"DATASET: {{ROOT: {tmp_path}, TRAIN: a.json, TEST: a.json}}")
    words = ["data", "check", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")]
    assert main(words) == 0
    assert "images were not opened; --images decodes all of them" in capsys.readouterr().out
    assert main([*words, "--images"]) == 2
    assert "1 image that cannot be read: image" in capsys.readouterr().err


# What a machine lacks


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't "
                      "allocate memory: you tried to allocate 400000000000 bytes"), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (RuntimeError("shapes do not fit"), ""),
        (ValueError("not enough memory"), ""),
    ],
)  # fmt: skip
def test_what_the_machine_lacks(error, lack):
    assert lack_of(error) == lack


def test_a_lack_of_memory_gets_a_sentence(tmp_path, capsys, monkeypatch):
    images(tmp_path / "in", 1)
    (tmp_path / "c.yaml").write_text(TINY)
    huge = lambda *_, **__: torch.empty(2**50)  # noqa: E731
    monkeypatch.setattr("higherhrnet.models.pose_model.PoseModel.forward", huge, raising=False)
    monkeypatch.setattr("higherhrnet.models.higher_hrnet.HigherHRNet.forward", huge)
    out = tmp_path / "out"
    assert main(predict(tmp_path / "in", out)) == 1
    assert "there is not enough memory. Set TEST.BATCH_SIZE" in capsys.readouterr().err
    words = ["train", str(tmp_path / "c.yaml"), "--output", str(out), "--device", "cpu"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "not enough memory. Set TRAIN.MICRO_BATCH_SIZE lower" in error
    assert "with --resume" in error


@pytest.mark.slow
def test_hostile_files_get_a_sentence():
    from higherhrnet.research.bench.hostile import hostile_rows

    for row in hostile_rows():
        assert row["exit"] == 2, row
        assert row["said"], row
        assert row["said"] != "a traceback", row
        assert row["peak MB"] < 2000, row
