"""Faces by OpenCV's own cascade, where OpenCV is installed: WebUIs bring it along."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Left, top, right, bottom as shares of the picture.
FaceBox = tuple[float, float, float, float]
_CASCADE = "haarcascade_frontalface_default.xml"
# The smallest face that is looked for, as a share of the shorter side: smaller ones are mostly false.
_SMALLEST, _NEIGHBOURS = 0.08, 6


class FaceFinder:
    """Finds frontal faces; safe to use from several threads."""

    def __init__(self, cv2: Any, file: str) -> None:
        self._cv2, self._file = cv2, file
        # A cascade keeps buffers of its own, so each thread has one.
        self._own = threading.local()

    def boxes(self, grey: Image.Image) -> list[FaceBox]:
        """The faces in a grey picture, largest first."""
        if not hasattr(self._own, "cascade"):
            self._own.cascade = self._cv2.CascadeClassifier(self._file)
        side = max(24, round(min(grey.size) * _SMALLEST))
        found = self._own.cascade.detectMultiScale(
            np.asarray(grey), scaleFactor=1.1, minNeighbors=_NEIGHBOURS, minSize=(side, side)
        )
        width, height = grey.size
        boxes = [
            (x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h in np.asarray(found).tolist()
        ]
        return sorted(boxes, key=area, reverse=True)

    def shares(self, grey: Image.Image) -> tuple[float, ...]:
        """Each face's share of the picture's area, largest first."""
        return tuple(area(box) for box in self.boxes(grey))


def area(box: FaceBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def face_finder() -> FaceFinder | None:
    """None where OpenCV or its cascade is missing."""
    try:
        import cv2
    except ImportError:
        return None
    file = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / _CASCADE
    # OpenCV 5 moved the class into its contributed modules.
    return FaceFinder(cv2, str(file)) if file.is_file() and hasattr(cv2, "CascadeClassifier") else None
