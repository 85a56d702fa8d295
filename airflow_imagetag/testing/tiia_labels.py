"""Labels as TIIA gives them: in percent, with categories, and for a scene.

The categories and what tells one scene from another are the emulator's own. They stand in for the
vendor's, which fit what the service recognises and the emulator does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_imagetag.testing.api import Labels

_NAMES: Final = {
    ("Colour", "Hue"): ("Red", "Orange", "Yellow", "Green", "Blue", "Purple", "Pink", "Brown"),
    ("Colour", "Neutral"): ("Black", "Gray", "White"),
    ("Colour", "Impression"): ("Colorful", "Monochrome", "Warm", "Cool"),
    ("Light", "Brightness"): ("Bright", "Dark"),
    ("Light", "Contrast"): ("High contrast", "Low contrast"),
    ("Composition", "Shape"): ("Landscape orientation", "Portrait orientation", "Square"),
    ("Composition", "Detail"): ("Detailed", "Plain"),
    ("Composition", "Focus"): ("Sharp", "Blurry"),
}

CATEGORIES: Final = {name: pair for pair, names in _NAMES.items() for name in names}
"""Every label that the emulator can measure to its first and second category."""


@dataclass(frozen=True, slots=True)
class Scene:
    """How the model for a scene sees an image.

    :param field: where an answer of DetectLabel has its labels.
    :param ignored: the second category that it has no labels of.
    :param certainty: what its probabilities are multiplied by.
    :param has_categories: whether its labels have categories.
    """

    field: str
    ignored: str | None = None
    certainty: float = 1.0
    has_categories: bool = True


WEB: Final = Scene("Labels")

SCENES: Final = {
    "WEB": WEB,
    "CAMERA": Scene("CameraLabels", ignored="Shape", certainty=0.95),
    "ALBUM": Scene("AlbumLabels", ignored="Contrast", certainty=0.9),
    # The vendor's model for news gives no categories yet.
    "NEWS": Scene("NewsLabels", ignored="Impression", certainty=0.85, has_categories=False),
}


def items(labels: Labels, scene: Scene = WEB) -> list[dict[str, Any]]:
    """Return the labels as a scene's model sees them, in the form of an answer."""
    seen = [label for label in labels if CATEGORIES[label[0]][1] != scene.ignored]
    return [_item(name, probability, scene) for name, probability in seen or labels]


def _item(name: str, probability: float, scene: Scene) -> dict[str, Any]:
    first, second = CATEGORIES[name] if scene.has_categories else ("", "")
    return {
        "Name": name,
        "Confidence": round(100 * scene.certainty * probability),
        "FirstCategory": first,
        "SecondCategory": second,
    }
