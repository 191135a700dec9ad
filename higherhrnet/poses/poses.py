"""Poses: the people of one image, annotated or predicted.

The same value type carries ground truth and predictions, so that warps, flips, drawing and
COCO records are written once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import drawing, geometry
from ..errors import UserError
from ..geometry import Affine
from ..skeleton import Skeleton

Image = npt.NDArray[np.uint8]

_ARRAYS = ("xy", "score", "person_score", "visibility", "tag", "track")
ABSENT, REFINED, SEEN = 0, 1, 2
"""Visibility of a joint. Annotated: unlabeled, labeled but hidden, visible. Predicted: missing,
filled in from the heatmap by refine, found as a peak."""


def is_labeled(record: Mapping[str, Any]) -> bool:
    """Whether a COCO annotation has at least one labeled joint; see :func:`labeled_joints`."""
    return bool(max(record["keypoints"][2::3], default=0) > 0)


def labeled_joints(keypoints: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of the joints (..., 3) x, y, v are annotated: those with v above 0, also where v is a
    confidence or a fraction (COCO-WholeBody, pseudo-labels)."""
    labeled: npt.NDArray[np.bool_] = np.asarray(keypoints)[..., 2] > 0
    return labeled


def visibility_of(keypoints: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """ABSENT, REFINED (labeled but hidden: v is 1) or SEEN for joints (..., 3) x, y, v."""
    hidden = np.asarray(keypoints)[..., 2] == 1
    shown = np.where(hidden, REFINED, SEEN)
    return np.where(labeled_joints(keypoints), shown, ABSENT).astype(np.int8)


def people_by_image(annotations: Mapping[str, Any]) -> dict[int | str, list[Mapping[str, Any]]]:
    """Image id → annotated people with joints, crowds left out; images without any are absent."""
    people: dict[int | str, list[Mapping[str, Any]]] = {}
    for record in annotations["annotations"]:
        if is_labeled(record) and not record.get("iscrowd"):
            people.setdefault(record["image_id"], []).append(record)
    return people


@dataclass(frozen=True, eq=False)
class Poses:
    """N people with K joints each.

    Attributes:
        xy: (N, K, 2) float64, pixels; (0, 0) where a joint is absent.
        score: (N, K) float64 joint confidence, about 0..1; 0 where absent, 1 where annotated.
        person_score: (N,) float64 confidence of each person; 1 where annotated.
        visibility: (N, K) int8, one of ABSENT, REFINED, SEEN.
        tag: (N, T) float64, the mean of each person's tags; T = 0 where there are none.
        track: (N,) int64, number of the same person through a video; -1 where not followed.
        skeleton: the joints' names and bones, where they are known: predictors say them.
    """

    xy: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    person_score: npt.NDArray[np.float64]
    visibility: npt.NDArray[np.int8]
    tag: npt.NDArray[np.float64]
    track: npt.NDArray[np.int64]
    skeleton: Skeleton | None = None

    def __post_init__(self) -> None:
        n, k = self.xy.shape[:2]
        assert self.xy.shape == (n, k, 2), self.xy.shape
        assert self.score.shape == self.visibility.shape == (n, k)
        assert self.person_score.shape == self.track.shape == (n,)
        assert self.tag.shape[:1] == (n,), self.tag.shape

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        people = "1 person" if len(self) == 1 else f"{len(self)} people"
        best = f", scores to {self.person_score.max():.2f}" if len(self) else ""
        of = "" if self.skeleton is None else f" of skeleton '{self.skeleton.name}'"
        return f"Poses({people}, {self.xy.shape[1]} joints{of}{best})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the people drawn, and a table of their scores."""
        from .conversions import to_html

        return to_html(self)

    @classmethod
    def empty(cls, joints: int) -> Poses:
        """No people."""
        return cls.from_annotations(np.zeros((0, joints, 3)))

    @classmethod
    def from_annotations(cls, keypoints: npt.NDArray[np.floating]) -> Poses:
        """Ground truth from (N, K, 3) x, y, visibility; see :func:`labeled_joints`."""
        present = labeled_joints(keypoints)
        return cls(
            xy=np.where(present[..., None], keypoints[..., :2], 0.0).astype(np.float64),
            score=present.astype(np.float64),
            person_score=np.ones(len(keypoints)),
            visibility=visibility_of(keypoints),
            tag=np.zeros((len(keypoints), 0)),
            track=np.full(len(keypoints), -1),
        )

    @property
    def refined(self) -> npt.NDArray[np.bool_]:
        """(N, K) joints that are annotated as hidden, or were filled in by refine."""
        refined: npt.NDArray[np.bool_] = self.visibility == REFINED
        return refined

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """(N, 4) x, y, w, h of the box around each person's present joints; zeros if none."""
        present: npt.NDArray[np.bool_] = np.asarray(self.visibility > ABSENT)
        low = np.where(present[..., None], self.xy, np.inf).min(axis=1, initial=np.inf)
        high = np.where(present[..., None], self.xy, -np.inf).max(axis=1, initial=-np.inf)
        boxes = np.concatenate([low, high - low], axis=1)
        return np.where(present.any(axis=1, keepdims=True), boxes, 0.0)

    @property
    def areas(self) -> npt.NDArray[np.float64]:
        """(N,) square pixels of the boxes, for comparing people. Where joints lie in a line or are
        few, that of a slim body as long: a tenth of the length squared, and 100 at least."""
        sides = self.boxes[:, 2:]
        area: npt.NDArray[np.float64] = sides.prod(axis=1)
        return np.maximum(area, np.maximum(0.1 * sides.max(axis=1, initial=0.0) ** 2, 100.0))

    def select(self, people: npt.NDArray[Any] | Sequence[int]) -> Poses:
        """The people given by rows or by a (N,) boolean mask, in that order."""
        rows = np.asarray(people)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        chosen: dict[str, Any] = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **chosen)

    def filter(self, person: float = 0.0, joint: float = 0.0) -> Poses:
        """Keep people scoring at least ``person`` and make joints below ``joint`` absent.

        Raises:
            UserError: a limit is NaN, which nothing is above or below.
        """
        if math.isnan(person) or math.isnan(joint):
            raise UserError(f"limits must be numbers, not {person} and {joint}")
        kept = self.select(self.person_score >= person)
        return kept.drop_keypoints(kept.score < joint)

    def drop_keypoints(self, joints: npt.NDArray[np.bool_]) -> Poses:
        """The same people with some joints (N, K) made absent."""
        return replace(
            self,
            xy=np.where(joints[..., None], 0.0, self.xy),
            score=np.where(joints, 0.0, self.score),
            visibility=np.where(joints, ABSENT, self.visibility).astype(np.int8),
        )

    def within(self, shape: tuple[int, int]) -> Poses:
        """The same people without joints beyond the edges of an image (H, W)."""
        last = np.array(shape[::-1]) - 0.5
        past: npt.NDArray[np.bool_] = np.any((self.xy < -0.5) | (self.xy > last), axis=2)
        return self.drop_keypoints(past)

    def warp(self, affine: Affine) -> Poses:
        """The same people in other pixels; absent joints stay at (0, 0)."""
        moved = geometry.apply(affine, self.xy)
        return replace(self, xy=np.where((self.visibility > ABSENT)[..., None], moved, 0.0))

    def swap_sides(self, skeleton: Skeleton) -> Poses:
        """Left and right joints renamed; with a flipping affine this flips the people."""
        flip = skeleton.flip_indices
        return replace(
            self,
            xy=self.xy[:, flip],
            score=self.score[:, flip],
            visibility=self.visibility[:, flip],
        )

    @staticmethod
    def concatenate(parts: Sequence[Poses]) -> Poses:
        """All people of at least one set, in order."""
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS
        }
        return replace(parts[0], **joined)

    def draw(self, image: Image, skeleton: Skeleton | None = None) -> Image:
        """The image with the people on it, the most confident on top.

        Args:
            image: (H, W, 3) uint8 RGB.
            skeleton: whose bones are drawn; that of the poses if None.

        Limbs are colored by side and as wide as suits the person's size; a dark rim keeps them
        visible on any ground. A joint that refine filled in (or that is annotated as hidden) is a
        hollow ring, a limb to it is thin. A person who is followed has a number, and a rim of its
        own color.
        """
        canvas = image.copy()
        ordered = self.select(np.argsort(self.person_score))
        followed = bool((ordered.track >= 0).any())
        drawing.draw_people(
            canvas,
            ordered.xy,
            ordered.visibility > ABSENT,
            ~ordered.refined,
            self.require_skeleton(skeleton),
            labels=[str(track) for track in ordered.track] if followed else (),
            rims=[drawing.color_of(track) for track in ordered.track] if followed else (),
        )
        return canvas

    def require_skeleton(self, skeleton: Skeleton | None = None) -> Skeleton:
        """The given skeleton, or that of the poses.

        Raises:
            UserError: neither is known, or it has another number of joints.
        """
        found = skeleton or self.skeleton
        if found is None:
            raise UserError("these poses do not know their skeleton; give one")
        if len(found) != self.xy.shape[1]:
            raise UserError(
                f"skeleton '{found.name}' has {len(found)} joints, but the poses have "
                f"{self.xy.shape[1]}"
            )
        return found

    def to_rows(self, skeleton: Skeleton | None = None) -> list[dict[str, Any]]:
        """One row for every present joint; :meth:`to_dataframe` makes a table of them.

        Columns: person (number in this image), track, person_score, joint (name), x, y (pixels),
        score, refined (by refine).
        """
        joints = self.require_skeleton(skeleton).joints
        return [
            {
                "person": int(person),
                "track": int(self.track[person]),
                "person_score": float(self.person_score[person]),
                "joint": joints[joint],
                "x": float(self.xy[person, joint, 0]),
                "y": float(self.xy[person, joint, 1]),
                "score": float(self.score[person, joint]),
                "refined": bool(self.refined[person, joint]),
            }
            for person, joint in np.argwhere(self.visibility > ABSENT)
        ]

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO keypoint *results*: one record a person, keypoints flat x, y, joint score."""
        keypoints = np.concatenate([self.xy, self.score[..., None]], axis=2)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": person.ravel().tolist(),
                "score": float(score),
            }
            for person, score in zip(keypoints, self.person_score, strict=True)
        ]

    def to_dataframe(self, skeleton: Skeleton | None = None) -> Any:
        """:meth:`to_rows` as a pandas ``DataFrame``.

        Raises:
            UserError: pandas is not installed.
        """
        from .conversions import to_dataframe

        return to_dataframe(self, skeleton)

    def to_json(self, skeleton: Skeleton | None = None) -> str:
        """JSON text: ``{"joints": […], "people": [{"score", "box", "keypoints": {name: [x, y,
        score]}}]}``, absent joints left out; ``track`` where people are followed."""
        from .conversions import to_json

        return to_json(self, skeleton)

    def to_yolo(
        self,
        shape: tuple[int, int],
        category: int = 0,
        boxes: npt.NDArray[np.float64] | None = None,
    ) -> str:
        """Lines of an Ultralytics YOLO-pose label file, for an image (H, W): class, box and
        ``x y visibility`` of every joint, as fractions of the sides. ``boxes`` are (N, 4) x, y, w,
        h; those around the joints if None."""
        from .conversions import to_yolo

        return to_yolo(self, shape, category, boxes)

    def to_label_studio(
        self,
        shape: tuple[int, int],
        image: str,
        skeleton: Skeleton | None = None,
        boxes: npt.NDArray[np.float64] | None = None,
    ) -> dict[str, Any]:
        """A Label Studio task with the people as predictions: keypoints in a rectangle each.

        Args:
            shape: (H, W) of the image.
            image: its address, as Label Studio is to load it.
            skeleton: names the joints; that of the poses if None.
            boxes: (N, 4) x, y, w, h, pixels; those around the joints if None.
        """
        from .conversions import to_label_studio

        return to_label_studio(self, shape, image, skeleton, boxes)

    def to_supervision(self) -> Any:
        """A ``supervision.KeyPoints``, for its annotators and metrics.

        Raises:
            UserError: supervision is not installed.
        """
        from .conversions import to_supervision

        return to_supervision(self)

    def to_fiftyone(self, shape: tuple[int, int], label: str = "person") -> Any:
        """A ``fiftyone.Keypoints`` for a sample whose image is (H, W).

        Raises:
            UserError: fiftyone is not installed.
        """
        from .conversions import to_fiftyone

        return to_fiftyone(self, shape, label)

    @classmethod
    def from_coco(cls, records: Sequence[Mapping[str, Any]], skeleton: Skeleton) -> Poses:
        """Inverse of :meth:`to_coco`; also reads annotations (which carry visibility, no score) and
        ``predictions.json`` (which has both).

        Raises:
            UserError: a record's keypoints are not three numbers for each joint.
        """
        k = len(skeleton)
        for record in records:
            if len(record["keypoints"]) != 3 * k:
                raise UserError(
                    f"record {record.get('id', '?')} of image {record.get('image_id', '?')} has "
                    f"{len(record['keypoints'])} keypoint numbers, but skeleton "
                    f"'{skeleton.name}' with {k} joints needs {3 * k}"
                )
        keypoints = np.array([r["keypoints"] for r in records], dtype=np.float64)
        keypoints = keypoints.reshape(len(records), k, 3)
        if not all("score" in record for record in records) or not records:
            return cls.from_annotations(keypoints)
        if all("keypoint_scores" in record for record in records):
            score = np.array([r["keypoint_scores"] for r in records], float).reshape(-1, k)
            visibility = visibility_of(keypoints)
        else:
            score = keypoints[..., 2]
            visibility = np.where(score > 0, SEEN, ABSENT).astype(np.int8)
        return cls(
            xy=keypoints[..., :2],
            score=score,
            person_score=np.array([float(r["score"]) for r in records]),
            visibility=visibility,
            tag=np.zeros((len(records), 0)),
            track=np.full(len(records), -1),
        )
