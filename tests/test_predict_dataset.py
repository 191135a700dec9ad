"""Very many images into Parquet files: every image once, whatever is killed."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

import higherhrnet
from higherhrnet.cli import main
from higherhrnet.errors import UserError
from higherhrnet.inference.image_sources import list_units
from higherhrnet.inference.parquet_files import read_poses
from higherhrnet.research.synthetic.dataset import SyntheticPeople

from .shared import ROOT

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
FAST = ["--preset", "fast", "--device", "cpu", "DATASET.INPUT_SIZE", "128"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
               "RAY_DEDUP_LOGS": "0"}  # fmt: skip


def write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    people = SyntheticPeople(count, size=96, people=(1, 2))
    files = []
    for number in range(count):
        files.append(folder / f"{number:04d}.png")
        cv2.imwrite(str(files[-1]), people.draw(number).image[:, :, ::-1])
    return files


def write_tar(file: Path, images: list[Path]) -> None:
    with tarfile.open(file, "w") as archive:
        for image in images:
            archive.add(image, image.name)
            info = tarfile.TarInfo(f"{image.stem}.json")
            archive.addfile(info, BytesIO())


def rows_of(folder: Path) -> list[dict]:
    return [
        row
        for file in sorted(folder.glob("*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("many") / "images", 24)


def test_folders_tars_lists_and_stores(images, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    write_tar(tmp_path / "shard-000.tar", images[:3])
    write_tar(tmp_path / "shard-001.tar", images[3:5])
    (tmp_path / "list.txt").write_text("\n".join(map(str, images[5:8])) + "\n")
    store = fsspec.filesystem("memory")
    for image in images[8:10]:
        store.pipe(f"/bucket/deep/{image.name}", image.read_bytes())
    store.pipe("/bucket/deep/readme.txt", b"no image")
    units = list_units(
        [f"{tmp_path}/shard-{{000..001}}.tar", f"@{tmp_path / 'list.txt'}", "memory://bucket"], 3
    )
    assert [unit.archive for unit in units[:2]] == [
        str(tmp_path / f"shard-00{n}.tar") for n in range(2)
    ]
    assert [len(unit.images) for unit in units[2:]] == [3, 2]
    named = [name for unit in units for name, _ in unit.read()]
    assert len(named) == 10
    assert named[0] == f"{tmp_path / 'shard-000.tar'}/{images[0].name}"
    assert named[-1] == f"memory:///bucket/deep/{images[9].name}"
    assert all(isinstance(data, bytes) for unit in units for _, data in unit.read())
    names = {unit.name for unit in units}
    assert len(names) == len(units)
    assert names == {
        unit.name
        for unit in list_units(  # the same, whoever lists them
            [f"{tmp_path}/shard-{{000..001}}.tar", f"@{tmp_path / 'list.txt'}", "memory://bucket"],
            3,
        )
    }
    for source in (tmp_path / "none", "memory://nothing", f"@{tmp_path / 'no.txt'}", tmp_path):
        with pytest.raises(UserError):
            list_units(source if source != tmp_path else f"{tmp_path}/*.gif")


def test_the_same_people_as_one_by_one_and_once_each(images, tmp_path, capsys):
    folder = images[0].parent
    write_tar(tmp_path / "a.tar", images[:4])
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:200])
    words = ["predict-dataset", str(folder), str(tmp_path / "a.tar"), str(broken), "--output",
             str(tmp_path / "out"), "--unit-size", "10", *FAST]  # fmt: skip
    assert main(words) == 0  # one is damaged, and will stay so
    assert "1 damaged; 4 Parquet files" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["image"] for row in rows}) == 29
    (bad,) = [row for row in rows if row["error"]]
    assert bad["image"] == str(broken)
    assert "broken.png' is truncated" in bad["error"]
    found = dict(read_poses(tmp_path / "out"))
    predictor = higherhrnet.load(device="cpu", preset="fast", overrides=["DATASET.INPUT_SIZE", 128])
    for image in images[::5]:
        expected = predictor(image)
        np.testing.assert_allclose(found[str(image)].xy, expected.xy, atol=1e-3)
        np.testing.assert_array_equal(found[str(image)].visibility, expected.visibility)
        assert found[str(image)].skeleton == predictor.skeleton
    # Again: nothing is left to do. With another preset it is another run.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.parquet")}
    assert main(words) == 0
    assert "0 images (29 were there before)" in capsys.readouterr().out
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("*.parquet")}
    assert main([*words, "TEST.FLIP_TEST", "True"]) == 2
    assert "with other settings; choose another --output" in capsys.readouterr().err


def test_names_that_are_no_utf8(images, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        (folder / os.fsdecode(b"x\xff.png")).write_bytes(images[0].read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    words = ["predict-dataset", str(folder), "--output", str(tmp_path / "o"), "--preset", "fast"]
    for told in ("in 1 image", "1 were there before"):  # and is not done again
        assert main([*words, "--device", "cpu"]) == 0
        assert told in capsys.readouterr().out
    ((name, _),) = read_poses(str(tmp_path / "o"))
    assert name.endswith("x\\udcff.png")


def test_what_cannot_be_predicted_gets_a_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("a.png")
    for words, told in (
        ([str(tmp_path / "empty")], "holds no images"),
        ([str(tmp_path / "none")], "none' does not exist"),
        (
            [str(tmp_path), "--weights", "hrnet_w18_mini", "TEST.BBOX_SOURCE", "ground_truth"],
            "these images are not annotated",
        ),
        (["nothing://x/y"], "cannot be opened"),
        ([str(ROOT / "higherhrnet" / "assets"), "none/*.jpg"], "'none/*.jpg' holds no images"),
        ([str(tmp_path / "list.txt")], "as a list of images write @"),
    ):
        output = ["--output", str(tmp_path / "out"), "--device", "cpu"]
        assert main(["predict-dataset", *words, *output]) == 2
        assert told in capsys.readouterr().err


def test_boxes_of_another_detector_are_another_run(images, tmp_path, capsys):
    words = ["predict-dataset", str(images[0]), "--weights", "hrnet_w18_mini", "--output",
             str(tmp_path / "out"), "--device", "cpu"]  # fmt: skip
    assert main(words) == 0  # the bundled detector finds them
    assert main(words) == 0
    assert main([*words, "TEST.BBOX_SOURCE", "higherhrnet_w18_mini"]) == 2
    assert "with other settings; choose another --output" in capsys.readouterr().err


def test_what_could_not_be_read_is_tried_again(images, tmp_path, capsys, monkeypatch):
    """A store that did not answer, an archive that was still being copied: not lost, not twice."""
    whole = tmp_path / "s.tar"
    write_tar(whole, images[:6])
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 3])
    words = ["predict-dataset", str(whole), *map(str, images[6:9]), "--output",
             str(tmp_path / "out"), *FAST]  # fmt: skip
    real = Path.read_bytes

    def read(self):
        if self == images[7]:
            raise OSError("no answer")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"archive '{whole}' breaks off" in told
    assert "2 images or archives could not be read now" in told
    assert len(rows_of(tmp_path / "out")) == 2
    monkeypatch.undo()
    whole.write_bytes(data)
    assert main(words) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["image"] for row in rows}) == 9
    monkeypatch.chdir(tmp_path)  # the same folder by other names
    many = [str(images[0].parent), os.path.relpath(images[0].parent), str(images[0])]
    assert sum(len(unit.images) for unit in list_units(many)) == 24


def start(folder: Path, *more: str) -> subprocess.Popen:
    words = ["predict-dataset", "images", "--output", "out", "--unit-size", "4", *FAST, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "higherhrnet", *words], cwd=folder, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_files(folder: Path, process: subprocess.Popen, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.parquet"))) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def check_once_each(folder: Path, count: int) -> None:
    rows = rows_of(folder / "out")
    assert sorted(Path(row["image"]).name for row in rows) == [f"{n:04d}.png" for n in range(count)]
    assert not any(row["error"] for row in rows)
    assert not list((folder / "out").glob(".*.partial"))


def test_a_killed_process_of_torchrun_loses_nothing(tmp_path):
    from .test_launch import workers_of

    write_images(tmp_path / "images", 120)
    process = start(tmp_path, "--gpus", "2", "--restarts", "2")
    wait_for_files(tmp_path / "out", process, 4)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told[-3000:]
    check_once_each(tmp_path, 120)


@pytest.mark.slow
def test_a_killed_worker_of_ray_loses_nothing(tmp_path):
    pytest.importorskip("ray")
    write_images(tmp_path / "images", 160)
    process = start(tmp_path, "--ray", "--workers", "2")
    wait_for_files(tmp_path / "out", process, 3)
    workers = [
        pid for pid in map(int, filter(str.isdecimal, (p.name for p in Path("/proc").iterdir())))
        if is_ray_worker(pid, process.pid)
    ]  # fmt: skip
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0, told[-3000:]
    check_once_each(tmp_path, 160)


def is_ray_worker(pid: int, driver: int) -> bool:
    """A process in which Ray maps batches, below the driver."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        while pid not in (driver, 0, 1):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return False
    return "ray::" in title and "Map" in title and pid == driver


def test_simulated_workers_saturate_where_the_store_or_the_scheduler_does():
    from higherhrnet.research.bench.dataset import Parts, simulate

    parts = Parts(image=0.1, image_bytes=1e5, load=5, dispatch=0.01, plan=0, row_bytes=800)

    def run(workers: int, store: float = 1e9, dispatch: float = 0.01, failures: float = 0.0):
        from dataclasses import replace

        return simulate(replace(parts, dispatch=dispatch), workers, 100_000, 100, store, failures)

    one = run(1)
    assert one["images/s"] == pytest.approx(10, rel=0.02)
    assert run(8)["images/s"] == pytest.approx(80, rel=0.02)
    narrow = run(64, store=1e7)  # 100 images/s, as much as ten workers take
    assert narrow["images/s"] == pytest.approx(100, rel=0.05)
    assert narrow["limited by"] == "store"
    slow = run(64, dispatch=1.0)
    assert slow["images/s"] == pytest.approx(100, rel=0.05)
    assert slow["limited by"] == "scheduler"
    dying = run(8, failures=60.0)  # a minute each, of units that take ten seconds
    assert dying["workers died"] > 10
    assert 60 < dying["images/s"] < 78
