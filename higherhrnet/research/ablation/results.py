"""All that an ablation found, before it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...drawing import Image
from .compare import Part
from .cost import Point, crossover
from .oracle_analysis import OracleResult
from .runner import EvaluationResult, TrainedRun


@dataclass(frozen=True)
class Results:
    """Everything that an ablation found.

    Attributes:
        title: of the plan.
        command, hardware, date: how, where and when it was run.
        runs, evaluations: the runs.
        pairs: (first evaluation, second evaluation, their parts) of each comparison.
        unequal: for each comparison, settings in which its runs differ though a fair one would not.
        oracle: evaluation → where its AP is lost.
        points: what images cost.
        detector: a note on the timed detector.
        sheets: (caption, image) of each comparison: where they differ most; None if nowhere.
    """

    title: str
    command: str
    hardware: str
    date: str
    runs: Sequence[TrainedRun]
    evaluations: Sequence[EvaluationResult]
    pairs: Sequence[tuple[EvaluationResult, EvaluationResult, list[Part]]]
    unequal: Sequence[Sequence[str]]
    oracle: Mapping[str, list[OracleResult]]
    points: Sequence[Point]
    detector: str
    sheets: Sequence[tuple[str, Image] | None]

    def crossovers(self) -> list[dict[str, Any]]:
        """For each bottom-up and top-down evaluation: people from which top-down is slower, on
        synthetic crowds, without and, where one was timed, with a detector."""
        drawn = [point for point in self.points if point.kind == "synthetic"]
        names = list(dict.fromkeys(point.evaluation for point in drawn))
        by_name = {name: [point for point in drawn if point.evaluation == name] for name in names}
        slow = [name for name in names if not by_name[name][0].finds_people]
        answers = []
        for one in (name for name in names if name not in slow):
            for other in slow:
                answer: dict[str, Any] = {"bottom-up": one, "top-down": other}
                answer["people, without detector"] = crossover(by_name[one], by_name[other], False)
                if any(point.detector for point in by_name[other]):
                    answer["people, with detector"] = crossover(by_name[one], by_name[other], True)
                answers.append(answer)
        return answers

    def signature(self, evaluations: Sequence[EvaluationResult]) -> str:
        """Where the values of these evaluations come from, in one line."""
        hashes = " ".join(evaluation.hash for evaluation in evaluations)
        return f"{self.command}  |  {hashes}  |  {self.hardware}  |  {self.date}"
