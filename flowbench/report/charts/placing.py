"""Where labels of points go, so that they cover neither points nor lines nor each other."""

from collections.abc import Sequence
from itertools import pairwise

Spot = tuple[float, float]  # pixels from the left and from the top
Box = tuple[float, float, float, float]  # left, top, right, bottom

GAP = 7  # pixels between a point and its label
POINT = 4  # half the side of a point
# Right of the point, left of it, or in its middle; and how many lines below it.
PLACES = [(1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1)]
FREE = 6.0  # square pixels that a label may cover before a shorter one is tried


def placed(
    spots: Sequence[Spot],
    texts: Sequence[Sequence[str]],
    others: Sequence[Spot],
    size: tuple[float, float],
    letter: tuple[float, float],
) -> list[tuple[str, Spot]]:
    """The text for each of `spots` and the left end of its middle.

    Of its `texts`, the first that finds a free place around it, else the last where it covers
    least. `others` must stay visible, `size` is that of the space, `letter` that of a letter.
    """
    taken = [_around(spot) for spot in others]
    found = []
    for spot, some in zip(spots, texts, strict=True):
        for text in some:
            boxes = [_box(spot, place, len(text) * letter[0], letter[1]) for place in PLACES]
            costs = [_covered(box, taken) + _outside(box, size) for box in boxes]
            if min(costs) <= FREE:
                break
        box = boxes[costs.index(min(costs))]
        taken.append(box)
        found.append((text, (box[0], (box[1] + box[3]) / 2)))
    return found


def along(corners: Sequence[Spot]) -> list[Spot]:
    """Spots on the lines from corner to corner, so close that no label fits between them."""
    spots = []
    for (left, top), (right, bottom) in pairwise(corners):
        count = 1 + int(max(abs(right - left), abs(bottom - top)) / POINT)
        for number in range(count):
            part = number / count
            spots.append((left + part * (right - left), top + part * (bottom - top)))
    return spots


def _box(spot: Spot, place: tuple[int, int], width: float, height: float) -> Box:
    side, line = place
    left = spot[0] + side * GAP - width * (1 - side) / 2
    top = spot[1] + line * height - height / 2
    return left, top, left + width, top + height


def _around(spot: Spot) -> Box:
    return spot[0] - POINT, spot[1] - POINT, spot[0] + POINT, spot[1] + POINT


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """How many square pixels of others a box covers."""
    return sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )


def _outside(box: Box, size: tuple[float, float]) -> float:
    """How far a box stands out of the space, and more than any cover can be."""
    out = max(0.0, -box[0], -box[1], box[2] - size[0], box[3] - size[1])
    return 1e6 * out
