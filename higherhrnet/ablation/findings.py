"""All that an ablation found, before it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..drawing import Image
from .autopsy import Cause
from .compare import Part
from .cost import Point, crossover
from .matrix import Evaluated, Trained


@dataclass(frozen=True)
class Findings:
    """Everything that an ablation found.

    Attributes:
        title: of the plan.
        command, hardware, date: how, where and when it was run.
        arms, rows: the runs.
        pairs: (first row, second row, their parts) of each comparison.
        unequal: for each comparison, settings in which its arms differ though a fair one would not.
        causes: row → where its AP is lost.
        points: what pictures cost.
        detector: what is to be said of the timed detector.
        sheets: (caption, picture) of each comparison: where the rows differ most; None if nowhere.
    """

    title: str
    command: str
    hardware: str
    date: str
    arms: Sequence[Trained]
    rows: Sequence[Evaluated]
    pairs: Sequence[tuple[Evaluated, Evaluated, list[Part]]]
    unequal: Sequence[Sequence[str]]
    causes: Mapping[str, list[Cause]]
    points: Sequence[Point]
    detector: str
    sheets: Sequence[tuple[str, Image] | None]

    def crossovers(self) -> list[dict[str, Any]]:
        """For each bottom-up and top-down row: people from which top-down is slower, on drawn
        crowds, without and, where one was timed, with a detector."""
        drawn = [point for point in self.points if point.kind == "drawn"]
        names = list(dict.fromkeys(point.row for point in drawn))
        by_row = {name: [point for point in drawn if point.row == name] for name in names}
        slow = [name for name in names if any(point.top_down for point in by_row[name])]
        answers = []
        for one in (name for name in names if name not in slow):
            for other in slow:
                answer: dict[str, Any] = {"bottom-up": one, "top-down": other}
                answer["people, without detector"] = crossover(by_row[one], by_row[other], False)
                if any(point.detector for point in by_row[other]):
                    answer["people, with detector"] = crossover(by_row[one], by_row[other], True)
                answers.append(answer)
        return answers

    def signature(self, rows: Sequence[Evaluated]) -> str:
        """Where figures of these rows come from, in one line."""
        hashes = " ".join(row.hash for row in rows)
        return f"{self.command}  |  {hashes}  |  {self.hardware}  |  {self.date}"
