"""Choose the scenes to draw, and the boxes to mark in them."""

from collections.abc import Iterable
from dataclasses import dataclass

from backbones.core.errors import InputError
from detection.drawing.reading import MISSED, WRONG, Box, Scene

SORTS = ("id", "score", "errors")


@dataclass(frozen=True)
class Choice:
    """The boxes that are wanted: of a class, with a kind of error; None: of any."""

    label: str | None = None
    error: str | None = None

    def __bool__(self) -> bool:
        return self.label is not None or self.error is not None

    def __str__(self) -> str:
        chosen = {"class": self.label, "error": self.error}
        return ", ".join(f"{what} {name}" for what, name in chosen.items() if name is not None)

    def has(self, box: Box) -> bool:
        """Whether the box is wanted."""
        return self.label in (None, box.label) and self.error in (None, box.error)

    def boxes(self, scene: Scene) -> list[Box]:
        """Return the wanted detections and objects of a scene."""
        return [box for box in (*scene.detections, *scene.truth) if self.has(box)]


def choose_scenes(scenes: Iterable[Scene], choice: Choice, sort: str) -> list[Scene]:
    """Return the scenes with a wanted box (without a choice: all scenes), sorted; those of equal rank by id.

    Args:
        sort: "id"; "score": the scene of the highest score of a wanted detection first; "errors": the scene with the
            most wanted boxes that are wrong or missed first.
    Raises:
        InputError: there is none.
    """
    kept = [(scene, choice.boxes(scene)) for scene in scenes]
    kept = [(scene, boxes) for scene, boxes in kept if boxes or not choice]
    if not kept:
        raise InputError(f"no image has a detection or an object of {choice}; lower --min-score, or choose another")
    rank = {"id": lambda _: 0, "score": _best_score, "errors": count_errors}[sort]
    kept.sort(key=lambda pair: (-rank(pair[1]), pair[0].image_id))
    return [scene for scene, _ in kept]


def count_errors(boxes: Iterable[Box]) -> int:
    """Return the number of boxes that are wrong or missed."""
    return sum(box.outcome in (WRONG, MISSED) for box in boxes)


def _best_score(boxes: Iterable[Box]) -> float:
    return max((box.score for box in boxes if box.score is not None), default=-1.0)
