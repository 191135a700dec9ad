"""Which images are trained on, and which are kept to validate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def split_by_group(
    groups: Sequence[str], share: float, seed: int = 0
) -> tuple[list[int], list[int], str]:
    """Rows to train on, rows to validate on, and how they were told apart.

    Frames of one video are nearly the same image: with several videos, whole videos are kept for
    validation. Else images are drawn.

    Args:
        groups: video of each image; empty text where there is none.
        share: of the images that are trained on, 0..1.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    count = len(groups)
    if any(groups):  # an image of no video is a group of its own
        groups = [group or f"\0{row}" for row, group in enumerate(groups)]
    wanted = min(max(round(count * (1 - share)), 1), count - 1) if count > 1 else 0
    sizes = Counter(groups)
    if len(sizes) < 2 or len(sizes) == count:
        chosen = set(generator.permutation(count)[:wanted].tolist())
        how = "images to validate were chosen at random"
        if len(sizes) == 1 and "" not in sizes:
            how += ", all from one video: frames beside one another are alike, and AP on them says "
            how += "little of other videos"
    else:
        kept = _choose_groups(sizes, wanted, generator)
        chosen = {row for row, group in enumerate(groups) if group in kept}
        alone = sum(group.startswith("\0") for group in sizes)
        how = f"by video: {len(sizes) - len(kept)} to train on, {len(kept)} to validate"
        if alone:
            how += f" (of these {alone} are images of no video)"
    train = [row for row in range(count) if row not in chosen]
    return train, sorted(chosen), how


def _choose_groups(
    sizes: Counter[str], wanted: int, generator: np.random.Generator
) -> frozenset[str]:
    """The groups whose sizes sum up nearest to ``wanted``: at least one, and not all."""
    names = sorted(sizes)
    order = [names[row] for row in generator.permutation(len(names))]
    # Subset sums, each with the group that reached it first and the sum before.
    reached: dict[int, tuple[int, str]] = {0: (0, "")}
    most = max(2 * wanted, min(sizes.values()))
    for name in order:
        for total in list(reached):
            if total + sizes[name] <= most:
                reached.setdefault(total + sizes[name], (total, name))
    whole = sum(sizes.values())
    total = min((t for t in reached if 0 < t < whole), key=lambda t: (abs(t - wanted), t))
    chosen = set()
    while total:
        total, name = reached[total]
        chosen.add(name)
    return frozenset(chosen)
