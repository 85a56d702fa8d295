"""Any ONNX classifier: tiny models of other forms, and models that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_models import COLOURS, colour_model
from PIL import Image

from airflow_imagetag.classifiers.classifier import Classifier
from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.errors import ConfigurationError, ImageRefusedError

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
MAGENTA = (255, 0, 255)


def opened(content: bytes, names=COLOURS, **settings) -> Classifier:
    """Return the model with inputs from 0 to 1."""
    return Classifier(content, LocalModel(**{**UNIT, **settings}), names, "The model")


def labels_of(classifier: Classifier, colour=MAGENTA, size=(40, 30)) -> dict[str, float]:
    """Return the labels of a picture of one colour."""
    picture = classifier.view.cropped(Image.new("RGB", size, colour))
    return {label.name: round(label.probability, 2) for label in classifier.labels(picture)}


def test_several_labels_of_rows_of_pixels():
    """NHWC, any batch, sigmoid in the model: an image has two labels of almost certainty."""
    classifier = opened(colour_model())
    assert labels_of(classifier) == {"red": 1.0, "blue": 1.0}


def test_channels_first_and_scores():
    """NCHW with a batch of 1, and scores: the softmax is ours, and shares the probability."""
    classifier = opened(colour_model((1, 3, 16, 24), final=None))
    assert (classifier.view.height, classifier.view.width) == (16, 24)
    assert labels_of(classifier) == {"red": 0.5, "blue": 0.5}


@pytest.mark.parametrize(
    ("final", "asked", "expected"),
    [
        ("Softmax", None, 0.5),
        ("Sigmoid", None, 1.0),
        (None, None, 0.5),
        (None, "sigmoid", 1.0),
        (None, "softmax", 0.5),
    ],
)
def test_the_activation_is_read_from_the_model_or_the_connection(final, asked, expected):
    """A model that ends with probabilities needs none; scores get a softmax unless asked."""
    assert labels_of(opened(colour_model(final=final), activation=asked))["red"] == expected


def test_pixels_of_eight_bits():
    """They are given as they are; the model normalizes them."""
    classifier = opened(
        colour_model(dtype="UINT8", gain=20 / 255), mean=None, std=None, min_probability=0.6
    )
    assert labels_of(classifier) == {"red": 1.0, "blue": 1.0}


def test_names_of_the_model_itself():
    """No file of classes is needed."""
    content = colour_model(metadata={"names": '["r", "g", "b"]'})
    assert labels_of(opened(content, None)) == {"r": 1.0, "b": 1.0}


def test_a_model_of_any_size_and_layout_takes_those_of_the_connection():
    """Symbols in its shape are filled by input_size and layout."""
    classifier = opened(colour_model(("n", "h", "w", "c")), layout="NHWC", input_size=(8, 12))
    assert (classifier.view.height, classifier.view.width) == (8, 12)
    assert labels_of(classifier) == {"red": 1.0, "blue": 1.0}


def test_the_most_probable_come_first_and_the_rest_is_left_out():
    """top_k and min_probability hold."""
    classifier = opened(colour_model(final=None), top_k=1, min_probability=0.4)
    assert labels_of(classifier, (255, 200, 0)) == {"red": 0.99}
    assert labels_of(opened(colour_model(), min_probability=0.5), (9, 9, 9)) == {}


def test_the_centre_of_the_input_aspect_is_seen():
    """Of a wide picture, the ends are cut off."""
    picture = Image.new("RGB", (100, 20), (0, 255, 0))
    picture.paste((255, 0, 0), (0, 0, 35, 20))
    picture.paste((255, 0, 0), (65, 0, 100, 20))
    classifier = opened(colour_model(), crop=0.8)
    assert [each.name for each in classifier.labels(classifier.view.cropped(picture))] == ["green"]


@pytest.mark.parametrize(
    ("content", "settings", "names", "message"),
    [
        (b"no model", {}, COLOURS, "is not an ONNX model"),
        (colour_model, {}, ("cat", "dog"), "3 classes, and there are 2 names"),
        (colour_model, {}, None, "does not hold the names.*Set classes"),
        (lambda: colour_model((1, 4, 16, 16)), {}, COLOURS, "without a dimension of 3"),
        (lambda: colour_model((1, 3, "h", "w")), {}, COLOURS, "any size.*Set input_size"),
        (lambda: colour_model(("n", "c", 16, "w")), {}, COLOURS, "Set layout"),
        (lambda: colour_model((8, 3, 16, 16)), {}, COLOURS, "batches of 8"),
        (colour_model, {"layout": "NCHW"}, COLOURS, "does not fit layout NCHW"),
        (colour_model, {"input_size": (32, 32)}, COLOURS, "16 x 16 pixels, and input_size"),
        (lambda: colour_model(second_output=True), {}, COLOURS, "2 outputs. Set output"),
        (lambda: colour_model(second_input=True), {}, COLOURS, "2 inputs"),
        (colour_model, {"output": "logits"}, COLOURS, "no output 'logits'.*'probabilities'"),
        (lambda: colour_model(dtype="UINT8"), {}, COLOURS, "mean and std in extra have no use"),
        (lambda: colour_model(dtype="INT64"), {}, COLOURS, "takes float, float16 or uint8"),
        (colour_model, {"providers": ("NoProvider",)}, COLOURS, "no NoProvider.*onnxruntime-gpu"),
    ],
)
def test_a_model_that_cannot_be_used_says_what_to_change(content, settings, names, message):
    """It does so when it is opened, before any image."""
    with pytest.raises(ConfigurationError, match=message):
        opened(content() if callable(content) else content, names, **settings)


def test_scores_are_no_probabilities():
    """A wrong activation is told by the first picture."""
    with pytest.raises(ConfigurationError, match="Set activation in extra to softmax"):
        labels_of(opened(colour_model(final=None), activation="none"))


def test_an_image_without_a_number_is_refused():
    """One picture that the model cannot handle does not end a run."""
    classifier = opened(colour_model(final=None, gain=3e38), std=(1e-3, 1e-3, 1e-3))
    with pytest.raises(ImageRefusedError, match="no number"):
        labels_of(classifier, (255, 255, 255))


def test_a_model_is_opened_from_a_file(tmp_path: Path):
    """So it may have files of weights beside it."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    assert (
        labels_of(
            Classifier(str(path), LocalModel(mean=UNIT["mean"], std=UNIT["std"]), COLOURS, "x")
        )["red"]
        == 1.0
    )
