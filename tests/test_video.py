"""PoseDataset, videos and cameras through ``predict``: what is found, followed, drawn and kept."""

import csv
import json
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import higherhrnet
from higherhrnet import drawing, geometry
from higherhrnet.cli import main
from higherhrnet.drawing import color_of
from higherhrnet.evaluation import oks
from higherhrnet.evaluation.operating_point import OperatingPoint, calibrate, without_duplicates
from higherhrnet.inference import draw_predictions as annotate
from higherhrnet.inference import video, video_writer
from higherhrnet.inference.inputs import find_inputs
from higherhrnet.inference.prediction_files import NAMES, PredictionWriter
from higherhrnet.inference.tracking import OneEuro, Tracker
from higherhrnet.inference.video_writer import VideoWriter
from higherhrnet.io.images import read_image
from higherhrnet.methods.bottom_up.maps import HostMaps
from higherhrnet.poses import ABSENT, REFINED, SEEN, Poses
from higherhrnet.research import mot_metrics as identities
from higherhrnet.research.synthetic.dataset import SyntheticPeople
from higherhrnet.research.synthetic.video import SyntheticVideo
from higherhrnet.skeleton import COCO
from higherhrnet.visualization import save_image

from .shared import golden_json

SMALL = ["DATASET.INPUT_SIZE", "64", "TEST.FLIP_TEST", "False"]


def people_at(*places, size=80.0, seed=0):
    """A standing figure's pose at each place."""
    base = SyntheticPeople(1, size=128, people=(1, 1), occlusion=0, seed=seed).sample(0).poses
    base = base.select([0])
    one = base.warp(geometry.translation(*-base.xy[0].mean(axis=0)))
    scaled = one.warp(geometry.scaling(size / np.ptp(one.xy[0, :, 1])))
    parts = [scaled.warp(geometry.translation(*location)) for location in places]
    return Poses.concatenate(parts) if parts else Poses.empty(17)


@pytest.mark.parametrize("number", range(5))
def test_oks_nms_is_the_originals(number):
    case = golden_json("oks_nms.json")["sets"][number]
    keypoints = np.array(case["keypoints"]).reshape(-1, 17, 3)
    score, area = np.array(case["score"]), np.array(case["area"])
    everybody = (keypoints[..., :2], keypoints[..., 2], score, area, COCO.sigmas)
    for threshold in (0.9, 0.5):
        assert oks.oks_nms(*everybody, threshold) == case[f"oks_nms_{threshold}"]
        assert oks.oks_nms(*everybody, threshold, 0.2) == case[f"oks_nms_{threshold}_invis0.2"]
        assert oks.soft_oks_nms(*everybody, threshold) == case[f"soft_oks_nms_{threshold}"]
    first = np.argsort(score)[::-1][0]
    counted = np.ones((len(score), 17), bool)
    xy = keypoints[..., :2]
    alike = oks.similarity(xy[first], xy, (area[first] + area) / 2, COCO.sigmas, counted)
    np.testing.assert_allclose(alike, case["oks_of_highest_with_all"], atol=1e-9)


def test_a_fragment_on_somebody_else_is_a_duplicate():
    atomic_write = people_at((100, 100))
    seen = np.full((1, 17), REFINED, np.int8)
    seen[0, :5] = SEEN  # only a face was seen; refine filled the rest with the other's joints
    fragment = replace(atomic_write, visibility=seen, person_score=np.array([0.3]))
    other = replace(people_at((300, 100)), person_score=np.array([0.4]))
    kept = without_duplicates(Poses.concatenate([fragment, atomic_write, other]), COCO, 0.7)
    np.testing.assert_array_equal(kept.person_score, [1.0, 0.4])


def test_people_whose_joints_lie_in_a_line_are_compared_too():
    joints = np.zeros((1, 17, 3))
    joints[0, [5, 7, 9]] = [(20, 50, 2), (40, 50, 2), (60, 50, 2)]  # a horizontal arm
    for people in (joints, joints * (np.arange(17) == 7)[None, :, None]):  # and one joint
        tracker = Tracker(COCO)
        poses = Poses.from_annotations(people)
        numbers = []
        for frame in range(5):
            warp_annotations = poses.warp(geometry.translation(3 * frame, 0))
            numbers += tracker.update(warp_annotations, frame / 25).track.tolist()
        assert numbers == [0] * 5
        twice = Poses.concatenate([poses, poses.warp(geometry.translation(0, 1))])
        assert len(without_duplicates(twice, COCO, 0.7)) == 1


def coco_of(people, image_id, start):
    return [
        {
            "id": start + n,
            "image_id": image_id,
            "iscrowd": 0,
            "keypoints": np.concatenate([xy, np.full((17, 1), 2)], 1).ravel().tolist(),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
        }
        for n, (xy, box) in enumerate(zip(people.xy, people.boxes, strict=True))
    ]


def test_calibration_finds_the_limit_between_right_and_wrong():
    ground_truth = people_at((100, 100), (300, 100), (500, 100), (700, 100))
    ghosts = people_at((100, 300), (300, 300), (500, 300))
    found = Poses.concatenate([ground_truth, ghosts])
    found = replace(found, person_score=np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.25]))
    annotations = {"annotations": coco_of(ground_truth, 7, 1)}
    # In order: right, right, right, ghost, ghost, ghost, right.
    point = calibrate({7: found}, annotations, COCO, 0.8)
    assert point.person == pytest.approx(0.7, abs=1e-3)
    assert point.precision == 1.0
    assert point.recall == 0.75
    assert len(point.apply(found, COCO)) == 3
    point = calibrate({7: found}, annotations, COCO, 0.7)
    assert point.person == pytest.approx(0.6, abs=1e-3)
    assert point.precision == 0.75
    assert OperatingPoint(**point.to_dict()) == point
    # A ghost in a region that is nobody's business does not count.
    crowd = {"id": 9, "image_id": 7, "iscrowd": 1, "keypoints": [0] * 51, "area": 1.0}
    crowd["bbox"] = [0, 200, 800, 200]
    annotations["annotations"].append(crowd)
    point = calibrate({7: found}, annotations, COCO, 0.8)
    assert (point.precision, point.recall) == (1.0, 1.0)


def test_joints_have_a_limit_of_their_own():
    ground_truth = people_at((100, 100))
    score = np.linspace(0.95, 0.15, 17)[None]
    xy = ground_truth.xy.copy()
    xy[0, 12:] += 60  # the least sure joints are wrong
    found = replace(ground_truth, xy=xy, score=score)
    point = calibrate({1: found}, {"annotations": coco_of(ground_truth, 1, 1)}, COCO, 0.99)
    shown = point.apply(found, COCO)
    assert (shown.visibility[0, :12] > ABSENT).all()
    assert (shown.visibility[0, 12:] == ABSENT).all()


def test_filled_joints_have_a_stricter_limit():
    """Refine finds heat for legs that are out of the image; nobody annotated them."""
    ground_truth = people_at((100, 100))
    visibility = np.full((1, 17), SEEN, np.int8)
    visibility[0, 11:] = REFINED
    score = np.full((1, 17), 0.2)
    score[0, 13:] = 0.4  # the invented ones are even hotter
    found = replace(ground_truth, visibility=visibility, score=score)
    (record,) = coco_of(ground_truth, 1, 1)
    record["keypoints"][3 * 13 + 2 :: 3] = [0] * 4
    annotations = {"annotations": [record]}
    point = calibrate({1: found}, annotations, COCO, 0.9)
    shown = point.apply(found, COCO).visibility[0]
    assert (shown[:11] == SEEN).all()
    visibility[0, 11:13] = SEEN  # now no filled joint is right
    point = calibrate({1: replace(found, visibility=visibility)}, annotations, COCO, 0.9)
    shown = point.apply(replace(found, visibility=visibility), COCO).visibility[0]
    assert (shown[:13] == SEEN).all()
    assert (shown[13:] == ABSENT).all()


@pytest.mark.parametrize("found", [{}, {1: Poses.empty(17)}])
def test_calibration_with_nobody_found(found):
    point = calibrate(found, {"annotations": coco_of(people_at((9, 9)), 1, 1)}, COCO, 0.8)
    assert (point.precision, point.recall) == (0.0, 0.0)


def test_people_keep_their_numbers_while_they_walk_and_pause():
    tracker = Tracker(COCO)
    for frame in range(50):
        time = frame / 25
        poses = people_at((100 + 2 * frame, 100), (400 - 2 * frame, 220), seed=3)
        poses = poses.select([1, 0] if frame % 2 else [0, 1])
        if 20 <= frame < 30:  # one is out of sight for less than a second
            poses = poses.select(np.flatnonzero(poses.xy[:, 0, 1] < 160))
        followed = tracker.update(poses, time)
        expected = [0 if y < 160 else 1 for y in poses.xy[:, 0, 1]]
        assert followed.track.tolist() == expected, frame
    later = tracker.update(people_at((200, 100)), 10.0)
    assert later.track.tolist() == [2]  # whoever this is, nobody was seen for eight seconds


def test_a_time_that_does_not_rise_costs_nobody_the_number():
    tracker = Tracker(COCO, smoothing=OneEuro())
    for frame, time in enumerate((0.0, 0.04, 0.08, 0.08, 0.12, 0.16, 0.16)):
        assert tracker.update(people_at((100 + frame, 100)), time).track.tolist() == [0]


def test_tags_tell_people_apart_who_stand_in_one_place():
    tracker = Tracker(COCO, tag_weight=1.0)
    two = people_at((100, 100), (108, 100))
    tags = np.array([[0.0], [3.0]])
    assert tracker.update(replace(two, tag=tags), 0.0).track.tolist() == [0, 1]
    swap_sides = replace(two, tag=tags[::-1].copy())
    assert tracker.update(swap_sides, 0.04).track.tolist() == [1, 0]


def test_smoothing_quietens_the_still_and_follows_the_fast():
    rng = np.random.default_rng(0)
    still, fast, raw = [], [], []
    for speed, places in ((0.0, still), (200.0, fast)):
        tracker = Tracker(COCO, smoothing=OneEuro())
        for frame in range(100):
            poses = people_at((100 + speed * frame / 25, 100))
            noisy = replace(poses, xy=poses.xy + rng.normal(0, 1.5, poses.xy.shape))
            if not speed:
                raw.append(noisy.xy[0] - poses.xy[0])
            places.append(tracker.update(noisy, frame / 25).xy[0] - poses.xy[0])
    assert np.std(still[20:]) < 0.5 * np.std(raw[20:])
    assert abs(np.mean(fast[20:])) < 5.0  # pixels behind, of a body of 80 px at 200 px a second


def test_switches_are_counted():
    ground_truth = replace(people_at((100, 100), (300, 100)), track=np.array([1, 2]))
    same = replace(ground_truth, track=np.array([5, 6]))
    changed = replace(ground_truth, track=np.array([6, 5]))
    counts = identities.count_identities(
        [(same, ground_truth), (same, ground_truth), (changed, ground_truth)], COCO
    )
    # The first sight of a number is no switch.
    assert (counts.people, counts.found, counts.wrong, counts.switches) == (6, 6, 0, 2)
    missed = identities.count_identities([(same.select([0]), ground_truth)], COCO)
    assert missed.mota == 0.5


def test_inputs_are_sorted_by_kind(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    found = find_inputs([str(tmp_path), "camera:2", str(tmp_path / "b.jpg")])
    assert [p.name for p in found.images] == ["a.PNG", "b.jpg"]
    assert [p.name for p in found.videos] == ["c.mp4"]
    assert found.cameras == [2]
    twice = find_inputs([str(tmp_path / "b.jpg"), str(tmp_path / "." / ".." / tmp_path.name)])
    assert [p.name for p in twice.images] == ["b.jpg", "a.PNG"]


def test_records_of_several_processes_become_one_file(tmp_path):
    poses = replace(people_at((50, 50)), track=np.array([4]))
    with PredictionWriter(tmp_path, COCO, 1, 2) as second:
        second.add(2, "b.jpg", (90, 120), Poses.empty(17))
        second.add(4, "clip.mp4", (90, 120), poses, seconds=0.5, frame=12)
        second.flush()
        with PredictionWriter(tmp_path, COCO, 0, 2) as first:
            first.add(1, "a.jpg", (90, 120), poses)
            first.add(3, 'odd",\nname.jpg', (90, 120), poses)
            first.flush()
            first.finish()
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4]
    assert [record["id"] for record in content["annotations"]] == [1, 2, 3]
    assert [record["image_id"] for record in content["annotations"]] == [1, 3, 4]
    assert content["annotations"][2]["track_id"] == 4
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * int((poses.visibility > ABSENT).sum())
    assert list(dict.fromkeys(row["image"] for row in rows)) == ["1", "3", "4"]
    assert rows[len(rows) // 2]["file"] == 'odd",\nname.jpg'
    assert rows[-1]["seconds"] == "0.5000"
    assert rows[-1]["frame"] == "12"
    assert content["images"][3] | {"frame": 12, "seconds": 0.5} == content["images"][3]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [record["image_id"] for record in results] == [1, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)


def test_labels_do_not_cover_each_other():
    for y in (150, 5):  # there is room above, or only below
        image, taken = np.zeros((200, 300, 3), np.uint8), []
        for number in range(8):
            taken.append(drawing.write(image, str(number), 140 + 5 * number, y, taken=taken))
        for one, other in combinations(taken, 2):
            beside = one[2] < other[0] or other[2] < one[0]
            assert beside or one[3] < other[1] or other[3] < one[1]
    two = replace(people_at((60, 60), (64, 62)), track=np.array([0, 1]))
    blank = np.zeros((160, 160, 3), np.uint8)
    frames = [
        replace(two, person_score=np.array(scores)).draw(blank, COCO)
        for scores in ((0.5, 0.49), (0.49, 0.5))
    ]
    assert (frames[0][:25] == frames[1][:25]).all()  # the numbers stay where they are
    everything = [(0, 0, 299, 199)]  # no room: it stays where it belongs
    here = drawing.write(image, "8", 150, 90)
    assert drawing.write(image, "8", 150, 90, taken=everything) == here


def test_poses_export_and_draw_themselves():
    poses = replace(people_at((60, 60)), track=np.array([3]))
    rows = poses.to_rows(COCO)
    assert {row["joint"] for row in rows} <= set(COCO.joints)
    assert rows[0]["track"] == 3
    blank = np.full((120, 120, 3), 128, np.uint8)
    drawn = poses.draw(blank, COCO)
    assert (blank == 128).all()
    assert (drawn != 128).any()
    assert (drawn == color_of(3)).all(axis=2).any()


def test_drawn_walkers_are_the_same_every_time():
    first, second = (list(SyntheticVideo(3, seconds=0.4, size=128)) for _ in range(2))
    assert len(first) == 10
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.poses.track, b.poses.track)
    warp_annotations = first[-1].poses.xy[0] - first[0].poses.xy[0]
    assert 0 < np.abs(warp_annotations).max() < 40


# Videos need PyAV.


@pytest.fixture
def clip(tmp_path):
    pytest.importorskip("av")
    return write_clip(tmp_path / "clip.mp4")


def write_clip(path, frames=12, turned=0, sound=True):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        tone = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number in range(frames):
            image = np.zeros((64, 96, 3), np.uint8)
            image[:20, :30] = (250, 20, 20)  # red corner, top left
            image[40:, 3 * number :] = min(20 * number, 255)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone:
            for start in range(0, frames * 1600, 1024):
                wave = np.sin(np.arange(start, start + 1024) / 10)[None].astype(np.float32)
                samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16000, start
                container.mux(tone.encode(samples))
            container.mux(tone.encode())
    return path


@pytest.mark.parametrize("kind", ["avi", pytest.param("mkv", marks=pytest.mark.slow)])
def test_a_video_that_breaks_off_is_said_to(tmp_path, capsys, kind):
    """Less came than the file announces (Matroska counts no frames); what came is kept."""
    av = pytest.importorskip("av")
    atomic_write, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    noise = np.random.default_rng(0)
    with av.open(str(atomic_write), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(20):
            image = noise.integers(0, 255, (64, 96, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    content = atomic_write.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    assert main(["predict", str(cut), "--output", str(out), "--show", "none"]) == 2
    said = capsys.readouterr()
    assert f"cut.{kind}' breaks off after" in said.err
    listed = json.loads((out / "predictions.json").read_text())["images"]
    assert (" of 20 frames" if kind == "avi" else " of 2.0 seconds") in said.err
    assert 0 < len(listed) < 20
    assert main(["predict", str(atomic_write), "--output", str(out), "--show", "none"]) == 0


def described(path):
    import av

    with av.open(str(path)) as container:
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        packets = (
            [p for p in container.demux(audio=0) if p.dts is not None]
            if container.streams.audio
            else []
        )
    return frames, len(packets)


def test_a_video_keeps_its_times_and_sound(clip, tmp_path):
    assert main(["predict", str(clip), "--output", str(tmp_path / "out"), *SMALL]) == 0
    frames, sound = described(tmp_path / "out" / "clip_poses.mp4")
    np.testing.assert_allclose([time for time, _ in frames], np.arange(12) / 10, atol=1e-3)
    assert frames[0][1].shape == (64, 96, 3)
    assert sound == described(clip)[1] > 10
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [round(image["seconds"], 2) for image in content["images"]] == [
        n / 10 for n in range(12)
    ]


def test_two_clips_one_behind_the_other_are_one(tmp_path):
    pytest.importorskip("av")
    once = write_clip(tmp_path / "once.ts")
    twice = tmp_path / "twice.ts"
    twice.write_bytes(once.read_bytes() * 2)
    assert main(["predict", str(twice), "--output", str(tmp_path / "out"), *SMALL]) == 0
    frames, sound = described(tmp_path / "out" / "twice_poses.mp4")
    times = np.array([time for time, _ in frames])
    assert len(times) == 24
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.02)
    assert sound >= 2 * described(once)[1] - 2 > 20  # it ends with the images


def test_a_turned_video_comes_upright(tmp_path):
    pytest.importorskip("av")
    clip = write_clip(tmp_path / "phone.mp4", turned=90, sound=False)
    nobody = ["--min-score", "9", *SMALL]  # so that only the clip itself is seen
    assert main(["predict", str(clip), "--output", str(tmp_path / "out"), *nobody]) == 0
    frames, sound = described(tmp_path / "out" / "phone_poses.mp4")
    image = frames[0][1]
    assert image.shape == (96, 64, 3)
    # Turned a quarter counter-clockwise, the top left corner comes to be the bottom left.
    assert image[-10, 10, 0] > 180 > image[10, 10, 0]
    assert sound == 0


def test_a_broken_middle_is_reported_and_the_rest_is_kept(tmp_path, capsys):
    pytest.importorskip("av")
    clip = write_clip(tmp_path / "torn.mp4", frames=60, sound=False)
    content = bytearray(clip.read_bytes())
    middle = content.find(b"mdat") + 1500
    content[middle : middle + 400] = bytes(400)
    clip.write_bytes(content)
    status = main(["predict", str(clip), "--output", str(tmp_path / "out"), *SMALL])
    error = capsys.readouterr().err
    frames, _ = described(tmp_path / "out" / "torn_poses.mp4")
    assert len(frames) > 20
    assert status == 2
    assert "torn.mp4', frame" in error


@pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
def test_what_is_no_video_gets_a_sentence_and_the_rest_is_done(tmp_path, capsys, content):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(content)
    save_image(tmp_path / "b.png", np.zeros((64, 64, 3), np.uint8))
    status = main(["predict", str(tmp_path), "--output", str(tmp_path / "out"), *SMALL])
    assert status == 2
    assert "a.mp4' cannot be read" in capsys.readouterr().err
    assert (tmp_path / "out" / "b_poses.jpg").is_file()
    assert not (tmp_path / "out" / "a_poses.mp4").exists()


def test_nothing_is_drawn_where_nothing_is_wanted(clip, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(clip), "--output", str(out), "--show", "none", *SMALL]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)


def test_ctrl_c_closes_the_video_properly(clip, tmp_path, monkeypatch, capsys):
    class Interrupting(Tracker):
        def update(self, poses, time):
            if time > 0.55:
                raise KeyboardInterrupt
            return super().update(poses, time)

    monkeypatch.setattr(annotate, "Tracker", Interrupting)
    assert main(["predict", str(clip), "--output", str(tmp_path / "out"), *SMALL]) == 130
    frames, _ = described(tmp_path / "out" / "clip_poses.mp4")
    assert len(frames) == 6
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(content["images"]) == 6
    assert "clip.mp4: 6 frames" in capsys.readouterr().out


def test_sound_that_mp4_cannot_hold_is_left_out(tmp_path, capsys):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        tone = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, 1600), np.int16), format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts = 16000, 1600 * number
            container.mux(tone.encode(samples))
        container.mux(stream.encode())
    out = tmp_path / "out"
    words = ["predict", str(tmp_path / "a.avi"), "--output", str(out), "--smooth", "--no-track"]
    assert main([*words, *SMALL]) == 0
    frames, sound = described(out / "a_poses.mp4")
    assert (len(frames), sound) == (5, 0)
    assert "its sound (pcm_s16le) cannot be kept" in capsys.readouterr().err


def test_sound_moves_with_the_first_frame(tmp_path):
    """Where decoding starts later than the file, after a cut between key frames, sound from before
    is left out and the rest stays beside its images."""
    av = pytest.importorskip("av")
    source = write_clip(tmp_path / "a.mp4", frames=20)

    def sound(path):
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(audio=0) if p.pts is not None]
            return [(float(p.pts * p.time_base), bytes(p)) for p in packets]

    with VideoWriter(tmp_path / "b.mp4", Fraction(10), source) as writer:
        writer.origin = 1.0
        for number in range(10):
            writer.add(np.zeros((64, 96, 3), np.uint8), number / 10)
    there = sound(source)
    moves = [
        time - now
        for now, packet in sound(tmp_path / "b.mp4")
        for time, other in there
        if packet == other and [p for _, p in there].count(packet) == 1
    ]
    assert len(moves) > 5
    np.testing.assert_allclose(moves, 1.0, atol=0.01)


def test_a_frame_of_another_size_is_fitted_in(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        writer.add(np.full((64, 96, 3), 200, np.uint8), 0.0)
        writer.add(np.full((96, 64, 3), 200, np.uint8), 0.1)
    (_, wide), (_, high) = described(tmp_path / "a.mp4")[0]
    assert wide.shape == high.shape == (64, 96, 3)
    assert wide[32, 2].min() > 150
    assert high[32, 2].max() < 60  # black beside the narrow one
    assert high[32, 48].min() > 150


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    write_clip(tmp_path / "12:30.mp4", sound=False)
    monkeypatch.chdir(tmp_path)
    assert len(list(video.VideoFile(Path("12:30.mp4")))) == 12


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_either_encoder_writes_any_time(tmp_path, monkeypatch, codec):
    pytest.importorskip("av")
    monkeypatch.setattr(video_writer, "_CODECS", (codec,))
    with VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        for number in range(4):
            writer.add(np.zeros((63, 95, 3), np.uint8), 0.037 * number**1.5)
    frames, _ = described(tmp_path / "a.mp4")
    assert frames[0][1].shape == (64, 96, 3)
    np.testing.assert_allclose([t for t, _ in frames], 0.037 * np.arange(4) ** 1.5, atol=1e-3)


def test_a_missing_camera_gets_a_sentence(tmp_path, capsys):
    assert main(["predict", "camera:93", "--output", str(tmp_path), *SMALL]) == 2
    assert "camera 93 cannot be opened" in capsys.readouterr().err


def test_heatmaps_are_drawn(tmp_path):
    save_image(tmp_path / "a.png", np.zeros((64, 96, 3), np.uint8))
    out = tmp_path / "out"
    words = ["predict", str(tmp_path / "a.png"), "--output", str(out), "--show", "heatmaps"]
    assert main([*words, *SMALL]) == 0
    assert not (out / "a_poses.jpg").exists()
    sheet = read_image(out / "a_heatmaps.jpg")
    assert sheet.shape[1] == 6 * 244


def test_raw_shows_more_than_the_operating_point(tmp_path):
    image = SyntheticPeople(1, size=256, people=(3, 3)).draw(0).image
    save_image(tmp_path / "a.png", image)
    counts = []
    for more in ([], ["--raw"], ["--min-score", "9"]):
        out = tmp_path / f"out{len(counts)}"
        size = ["DATASET.INPUT_SIZE", "256"]
        assert main(["predict", str(tmp_path / "a.png"), "--output", str(out), *more, *size]) == 0
        content = json.loads((out / "predictions.json").read_text())
        counts.append(len(content["annotations"]))
    assert counts[1] > counts[0] > counts[2] == 0


def test_maps_lie_over_the_image_where_its_people_are():
    """What the protocol puts beside an image is not squeezed into it."""
    ready = higherhrnet.load(device="cpu", overrides=["DATASET.INPUT_SIZE", "128"])
    image, maps_shape = (270, 480), (128, 256)
    to_image = ready.augmentation.to_image(image, maps_shape)
    maps = HostMaps(np.zeros((17, *maps_shape), np.float32), np.zeros((2, 17, 32, 64), np.float32))
    maps.heatmaps[0, 60, 40] = 1
    heat, tags = ready.overlay(maps, image)
    y, x = np.unravel_index(heat[0].argmax(), heat[0].shape)
    shown = np.array([x, y]) * (480 / heat.shape[2])
    expected = geometry.apply(to_image, np.array([[40.0, 60.0]]))[0]
    np.testing.assert_allclose(shown, expected, atol=3)
    assert tags.shape[0] == 17
    assert heat.shape[2] / heat.shape[1] == pytest.approx(480 / 270, rel=0.02)


def test_the_dense_maps_are_as_large_as_the_sheet_needs():
    maps = HostMaps(np.zeros((17, 8, 12), np.float32), np.zeros((2, 17, 4, 6), np.float32))
    assert maps.dense_heatmaps().shape == (17, 8, 12)
    assert maps.dense_tags().shape == (17, 4, 6)


def test_a_frame_out_of_place_moves_nobody_behind_it(clip, monkeypatch):
    """Times of frames: none, twice the same, and one that goes back a little."""
    times = iter([1.4, 1.5, None, 1.7, 1.7, 1.65, 2.0, *np.arange(12) + 2.1])
    read = video.VideoFile(clip)
    packets = read._container.demux(read._stream)

    def packet(one):
        frames = one.decode()
        warp_annotations = [
            SimpleNamespace(time=next(times), to_ndarray=f.to_ndarray, is_corrupt=False)
            for f in frames
        ]
        return SimpleNamespace(decode=lambda: warp_annotations)

    container = SimpleNamespace(demux=lambda _: map(packet, packets), close=read._container.close)
    monkeypatch.setattr(read, "_container", container)
    seen = [frame.time for frame in read][:7]
    np.testing.assert_allclose(seen, [0, 0.1, 0.2, 0.3, 0.301, 0.302, 0.6], atol=1e-6)
