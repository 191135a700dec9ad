"""Alarms: rules that recognize trainings that go wrong.

Each rule looks at the log's records (one an epoch; validated ones have the embedding diagnostics)
and says in a sentence what is wrong and which setting matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Record = Mapping[str, Any]

_CHANCE = 0.6  # separability below this is hardly better than the 0.5 of chance
_DEAD, _ALIVE = 0.02, 0.1  # score at annotated joints: of a dead channel, and of the others' median
_FAR = 100.0  # between people's tags; a distance of 1 separates
_RISE = 3.0
_FIRST_STEPS = 50


def find_alarms(records: Sequence[Record], curve: Sequence[float] = ()) -> list[str]:
    """Sentences about the latest record.

    Args:
        records: of all epochs so far, the latest last.
        curve: the latest epoch's losses, step by step.
    """
    if not records:
        return []
    latest = records[-1]
    found = [_collapse(records), *_dead(records), _push(records), _apart(latest)]
    if latest["epoch"] == 1:
        found.append(_cold_start(curve))
    return [sentence for sentence in found if sentence]


def _collapse(records: Sequence[Record]) -> str:
    measured = [record for record in records if record.get("tags/separability") is not None]
    if len(measured) < 2 or measured[-1] is not records[-1]:
        return ""
    if any(record["tags/separability"] >= _CHANCE for record in measured[-2:]):
        return ""
    return (
        f"tags have collapsed: people are {measured[-1]['tags/between']:.3g} apart and joints of "
        f"one person {measured[-1]['tags/within']:.3g} (separability "
        f"{measured[-1]['tags/separability']:.2f}, chance is 0.5); a larger "
        "LOSS.PUSH_LOSS_FACTOR or a smaller LOSS.PULL_LOSS_FACTOR lets them spread"
    )


def _dead(records: Sequence[Record]) -> list[str]:
    """Twice in a row: a joint that begins without weights beside learnt ones needs a while."""
    measured = [scores for record in records if (scores := _score_at_joints(record))]
    if len(measured) < 2 or not _score_at_joints(records[-1]):
        return []
    before, now = measured[-2:]
    middle = median(now.values())
    if min(middle, median(before.values())) < _ALIVE:
        return []
    return [
        f"the heatmap of '{joint}' is dead: {value:.3f} at annotated joints, where the median "
        f"of all is {middle:.2f}; is this joint annotated?"
        for joint, value in now.items()
        if value < _DEAD and before.get(joint, 1.0) < _DEAD
    ]


def _score_at_joints(record: Record) -> dict[str, float]:
    """Mean heatmap score at each annotated joint; empty where it was not measured."""
    return {
        name.removeprefix("score/"): value
        for name, value in record.items()
        if name.startswith("score/") and value is not None
    }


def _push(records: Sequence[Record]) -> str:
    for name, value in records[-1].items():
        if not name.startswith("push/") or value is None:
            continue
        least = min((r[name] for r in records[:-1] if r.get(name)), default=None)
        if least is not None and value > _RISE * least:
            return (
                f"{name} explodes: {value:.3g} after {least:.3g} in a former epoch; a lower "
                "TRAIN.LR or TRAIN.GRAD_CLIP_NORM holds it"
            )
    return ""


def _apart(latest: Record) -> str:
    between = latest.get("tags/between")
    if between is None or between < _FAR:
        return ""
    return (
        f"tags fly apart: people are {between:.3g} from each other, where 1 is enough; a smaller "
        "LOSS.PUSH_LOSS_FACTOR holds them"
    )


def _cold_start(curve: Sequence[float]) -> str:
    first = curve[:_FIRST_STEPS]
    if len(first) < 2 or max(first) <= _RISE * first[0]:
        return ""
    peak = max(first)
    return (
        f"the loss rose from {first[0]:.3g} to {peak:.3g} in step {first.index(peak) + 1}"
        ": the learning rate was not warmed up; set TRAIN.WARMUP_STEPS to some hundred steps"
    )
