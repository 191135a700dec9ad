"""Published checkpoints by name: where they are, what they are, and how they come here."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..io.atomic import atomic_write
from ..io.download import digest_of, download, verify

_log = logging.getLogger(__name__)
_LONGEST, _SHORTEST = 100_000_000, 1000
"""Bytes of a safetensors header, and of a pickle with any tensors."""
_OPENMMLAB = "https://download.openmmlab.com/"
_TIMM = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
_DRIVE = "https://drive.google.com/open?id=1bdXVmYrSynPLSk5lptvgyQ8fhziobD50"
_SEGMENTATION = "https://github.com/HRNet/HRNet-Semantic-Segmentation"
_HRNET = "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch#quick-start"
_640 = ("DATASET.INPUT_SIZE", "640")
_NOT_ALIGNED = ("MODEL.ALIGN_CORNERS", "False")
_384 = ("MODEL.IMAGE_SIZE", "[288, 384]", "MODEL.SIGMA", "3")
BUNDLED = Path(__file__).parent.parent / "weights"
"""Folder of the checkpoints that come with the package."""
CACHE = "HIGHERHRNET_CACHE"
"""Environment variable that names another cache folder."""
OFFLINE = "HIGHERHRNET_OFFLINE"
"""Environment variable that forbids the network."""


@dataclass(frozen=True)
class ZooEntry:
    """A published checkpoint.

    Attributes:
        file: its name there, and in the cache.
        what: network, data and the figure that its publisher gives.
        megabytes: about how large it is.
        license: of the weights, as far as their publisher says.
        url: where it can be fetched; empty where a browser is needed.
        sha256: its first digits, where they are public.
        page: where to find it with a browser.
        settings: config ``KEY, VALUE, …`` that its tensors do not tell.
    """

    file: str
    what: str
    megabytes: int
    license: str
    url: str = ""
    sha256: str = ""
    page: str = ""
    settings: tuple[str, ...] = ()


def _official(
    file: str, what: str, megabytes: int, settings: tuple[str, ...] = (), page: str = _DRIVE
) -> ZooEntry:
    license = "MIT (code); weights: see page"
    return ZooEntry(file, what, megabytes, license, page=page, settings=settings)


def _openmmlab(
    project: str, path: str, what: str, megabytes: int, settings: tuple[str, ...] = ()
) -> ZooEntry:
    file = path.rpartition("/")[2]
    # Their names end in the first eight digits of the file's SHA-256, and a date.
    digits = file.removesuffix(".pth").rpartition("-")[2][:8]
    return ZooEntry(
        file, what, megabytes, "Apache-2.0", f"{_OPENMMLAB}{project}/{path}", digits,
        f"https://github.com/open-mmlab/{project}", settings,
    )  # fmt: skip


def _mmpose(path: str, what: str, megabytes: int, settings: tuple[str, ...] = ()) -> ZooEntry:
    return _openmmlab("mmpose", path, what, megabytes, settings)


def _mmseg(name: str, date: str, what: str, megabytes: int) -> ZooEntry:
    path = f"v0.5/hrnet/{name}/{name}_{date}.pth"
    return _openmmlab("mmsegmentation", path, what, megabytes, _NOT_ALIGNED)


def _mmdet(name: str, date: str, what: str, megabytes: int) -> ZooEntry:
    return _openmmlab("mmdetection", f"v2.0/hrnet/{name}/{name}_{date}.pth", what, megabytes)


def _timm(name: str, what: str, megabytes: int) -> ZooEntry:
    return ZooEntry(
        f"{name}.safetensors", what, megabytes, "MIT", _TIMM.format(name),
        page=f"https://huggingface.co/timm/{name}",
    )  # fmt: skip


MODEL_ZOO: dict[str, ZooEntry] = {
    "official/higherhrnet_w32_512": _official(
        "pose_higher_hrnet_w32_512.pth", "HigherHRNet-W32 512, COCO, AP 67.1", 115
    ),
    "official/higherhrnet_w32_640": _official(
        "pose_higher_hrnet_w32_640.pth", "HigherHRNet-W32 640, COCO, AP 68.5", 115, _640
    ),
    "official/higherhrnet_w48_640": _official(
        "pose_higher_hrnet_w48_640.pth", "HigherHRNet-W48 640, COCO, AP 69.9", 256, _640
    ),
    "official/hrnet_w32_256x192": _official(
        "pose_hrnet_w32_256x192.pth", "top-down HRNet-W32 256x192, COCO, AP 74.4", 114, page=_HRNET
    ),
    "official/hrnet_w48_384x288": _official(
        "pose_hrnet_w48_384x288.pth", "top-down HRNet-W48 384x288, COCO, AP 76.3", 255, _384, _HRNET
    ),
    "mmpose/higherhrnet_w32_512": _mmpose(
        "bottom_up/higher_hrnet32_coco_512x512-8ae85183_20200713.pth",
        "HigherHRNet-W32 512, COCO, AP 67.7", 115,
    ),
    "mmpose/higherhrnet_w32_640": _mmpose(
        "bottom_up/higher_hrnet32_coco_640x640-a22fe938_20200712.pth",
        "HigherHRNet-W32 640, COCO, AP 68.6", 115, _640,
    ),
    "mmpose/higherhrnet_w48_512": _mmpose(
        "bottom_up/higher_hrnet48_coco_512x512-60fedcbc_20200712.pth",
        "HigherHRNet-W48 512, COCO, AP 68.6", 256,
    ),
    "mmpose/higherhrnet_w32_crowdpose": _mmpose(
        "bottom_up/higher_hrnet32_crowdpose_512x512-1aa4a132_20201017.pth",
        "HigherHRNet-W32 512, CrowdPose, AP 65.5", 115,
    ),
    "mmpose/hrnet_ae_w32_512": _mmpose(
        "bottom_up/hrnet_w32_coco_512x512-bcb8c247_20200816.pth",
        "HRNet-W32 with tags at 1/4, 512, COCO, AP 65.4", 114,
    ),
    "mmpose/hrnet_w32_256x192": _mmpose(
        "top_down/hrnet/hrnet_w32_coco_256x192-c78dce93_20200708.pth",
        "top-down HRNet-W32 256x192, COCO, AP 74.6", 114,
    ),
    "mmpose/hrnet_w32_384x288": _mmpose(
        "top_down/hrnet/hrnet_w32_coco_384x288-d9f0d786_20200708.pth",
        "top-down HRNet-W32 384x288, COCO, AP 76.0", 114, _384,
    ),
    "mmpose/hrnet_w48_256x192": _mmpose(
        "top_down/hrnet/hrnet_w48_coco_256x192-b9e0b3ab_20200708.pth",
        "top-down HRNet-W48 256x192, COCO, AP 75.6", 255,
    ),
    "mmpose/hrnet_w48_384x288": _mmpose(
        "top_down/hrnet/hrnet_w48_coco_384x288-314c8528_20200708.pth",
        "top-down HRNet-W48 384x288, COCO, AP 76.7", 255, _384,
    ),
    "mmpose/hrnet_w32_mpii": _mmpose(
        "top_down/hrnet/hrnet_w32_mpii_256x256-6c4f923f_20200812.pth",
        "top-down HRNet-W32 256x256, MPII, PCKh 90.0", 114,
        ("MODEL.IMAGE_SIZE", "[256, 256]"),
    ),
    "mmpose/hrnet_w32_crowdpose": _mmpose(
        "top_down/hrnet/hrnet_w32_crowdpose_256x192-960be101_20201227.pth",
        "top-down HRNet-W32 256x192, CrowdPose, AP 67.5", 114,
    ),
    "official/seg_hrnet_w48_cityscapes": ZooEntry(
        "hrnet_w48_cityscapes_cls19_1024x2048_trainset.pth",
        "HRNetV2-W48 segmentation, Cityscapes, mIoU 81.1", 264, "MIT (code); weights: see page",
        page=_SEGMENTATION,
    ),
    "mmseg/hrnet_w18_cityscapes": _mmseg(
        "fcn_hr18_512x1024_160k_cityscapes", "20200602_190822-221e4a4f",
        "HRNetV2-W18 segmentation, Cityscapes, mIoU 78.80", 39,
    ),
    "mmseg/hrnet_w48_cityscapes": _mmseg(
        "fcn_hr48_512x1024_160k_cityscapes", "20200602_190946-59b7973e",
        "HRNetV2-W48 segmentation, Cityscapes, mIoU 80.65", 264,
    ),
    "mmseg/hrnet_w48_voc": _mmseg(
        "fcn_hr48_512x512_40k_voc12aug", "20200613_222111-1b0f18bc",
        "HRNetV2-W48 segmentation, PASCAL VOC 2012, mIoU 76.24", 264,
    ),
    "mmdet/faster_rcnn_w18": _mmdet(
        "faster_rcnn_hrnetv2p_w18_1x_coco", "20200130-56651a6d",
        "HRNetV2p-W18 Faster R-CNN, COCO, box AP 36.9: backbone and pyramid to start from", 106,
    ),
    "mmdet/faster_rcnn_w32": _mmdet(
        "faster_rcnn_hrnetv2p_w32_1x_coco", "20200130-6e286425",
        "HRNetV2p-W32 Faster R-CNN, COCO, box AP 40.2: backbone and pyramid to start from", 190,
    ),
    "imagenet/hrnet_w32": _mmpose(
        "pretrain_models/hrnet_w32-36af842e.pth", "the published W32 backbone, ImageNet", 160
    ),
    "imagenet/hrnet_w48": _mmpose(
        "pretrain_models/hrnet_w48-8ef0771d.pth", "the published W48 backbone, ImageNet", 310
    ),
    "timm/hrnet_w18": _timm("hrnet_w18.ms_aug_in1k", "W18 classifier, ImageNet", 86),
    "timm/hrnet_w32": _timm("hrnet_w32.ms_in1k", "W32 classifier, ImageNet", 165),
    "timm/hrnet_w48": _timm("hrnet_w48.ms_in1k", "W48 classifier, ImageNet", 310),
}  # fmt: skip
"""Every checkpoint that has a name here."""


def find_weights(name_or_file: str) -> Path:
    """A weights file: a path, the name of a bundled or a published checkpoint, or an address on
    the Hugging Face Hub, ``hf://user/model``.

    Raises:
        UserError: it is neither, or a published one that cannot be fetched; see
            :func:`fetch_weights`.
        OSError: the download failed.
    """
    if name_or_file.startswith("hf://"):
        from .hub import fetch_from_hub  # which imports this module

        return fetch_from_hub(name_or_file)
    bundled = BUNDLED / f"{name_or_file}.safetensors"
    if bundled.is_file():
        return bundled
    path = Path(name_or_file)
    if name_or_file in MODEL_ZOO and not path.is_file():
        return fetch_weights(name_or_file)
    if not path.is_file() and not path.suffix:
        names = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
        raise UserError(
            f"'{name_or_file}' is neither a bundled checkpoint ({', '.join(names)}), nor a "
            "published one (higherhrnet weights list), nor a file"
        )
    return path


def cache_dir() -> Path:
    """Folder of what was fetched: ``$HIGHERHRNET_CACHE``, else ``~/.cache/higherhrnet``."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "higherhrnet"


def fetch_weights(name: str) -> Path:
    """A published checkpoint's file: from the cache, else from its server.

    A download whose hash is public goes on where an earlier one broke off and is checked before it
    counts; another one starts anew, so that no two versions are joined.

    Raises:
        UserError: a browser is needed, the network is forbidden, or the file is damaged.
        OSError: the network or the disk failed.
    """
    known = MODEL_ZOO[name]
    file = cache_dir() / known.file
    if file.is_file():
        return file
    if not known.url:
        raise UserError(
            f"'{name}' is handed out to browsers only: find {known.file} at {known.page} and put "
            f"it into {file.parent}"
        )
    if os.environ.get(OFFLINE):
        raise UserError(
            f"'{name}' is not in {file.parent}, and the network is forbidden; fetch {known.url} "
            f"elsewhere and put it into that folder as {known.file}"
        )

    def check(came: Path) -> None:
        verify(came, known.sha256, "sha256")
        check_weights_file(came, file.suffix)
        _remember(file, digest_of(came))

    download(known.url, file, check, resume=bool(known.sha256))
    return file


def check_weights_file(file: Path, suffix: str) -> None:
    """That a file is what its name says, whole: safetensors, or what ``torch.save`` writes.

    Raises:
        UserError: it is a web page, a part, or something else.
    """
    size = file.stat().st_size
    with file.open("rb") as source:
        begin = source.read(8)
        if suffix == ".safetensors":
            length = int.from_bytes(begin, "little")
            try:
                header = json.loads(source.read(length)) if length < min(size, _LONGEST) else {}
                ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
                whole = bool(ends) and 8 + length + max(ends) == size
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                whole = False
        elif begin.startswith(b"PK"):
            whole = zipfile.is_zipfile(file)  # the list of its members stands at the end
        else:  # before version 1.6 torch wrote pickles one behind another, which end in a dot
            whole = begin[:1] == b"\x80" and size > _SHORTEST
    if not whole:
        raise UserError(
            f"what came for '{file.name.removesuffix('.partial')}' is no whole weights file "
            f"({size:,} bytes, beginning with {begin!r}); try again, or fetch it by hand"
        )


def _remember(file: Path, digest: str) -> None:
    """Keep the SHA-256 of what was first accepted under a name, and say when it changes."""
    note = file.with_name(file.name + ".sha256")
    former = note.read_text().split()[0] if note.is_file() and note.read_text().split() else ""
    if former and former != digest:
        _log.warning(
            "'%s' is not what it was: its SHA-256 is %s, and was %s when it was first fetched",
            file.name, digest, former,
        )  # fmt: skip
        return
    with atomic_write(note) as partial:
        partial.write_text(f"{digest}  {file.name}\n")
