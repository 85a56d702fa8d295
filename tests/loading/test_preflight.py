"""Images against the limits of a service, before anything is sent."""

from __future__ import annotations

import hashlib
import io
import logging
import sys

import pytest
from PIL import Image as Pictures

from airflow_imagetag.errors import (
    Billing,
    ConfigurationError,
    ImageDecodeError,
    ImageFormatError,
    ImageTooLargeError,
)
from airflow_imagetag.loading import advice
from airflow_imagetag.loading.preflight import ImagePreflight, Oversize, parse_oversize
from airflow_imagetag.models import Image
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import Payload

IMAGE = Image("k")
STRICT = Limits(
    3_000,
    formats=frozenset({"PNG", "JPEG", "BMP"}),
    advised_min_pixels=50,
    advised_max_aspect=5.0,
)
LAX = Limits(3_000)


def picture(image_format: str = "PNG", size: tuple[int, int] = (60, 60)) -> bytes:
    """Return a file of one colour."""
    file = io.BytesIO()
    Pictures.new("RGB", size, "teal").save(file, image_format)
    return file.getvalue()


def noise(side: int, image_format: str = "PNG") -> bytes:
    """Return a file that no format makes small."""
    file = io.BytesIO()
    Pictures.effect_noise((side, side), 90).convert("RGB").save(file, image_format)
    return file.getvalue()


def payload(content: bytes) -> Payload:
    """Return the payload of an image's bytes."""
    return Payload(content=content, digest=hashlib.sha256(content).hexdigest())


def fit(content: bytes, limits: Limits = STRICT, oversize: Oversize = Oversize.ERROR) -> Payload:
    """Check one image, and downscale it if asked."""
    return ImagePreflight("DetectLabelPro", limits, oversize).fit(IMAGE, payload(content))


@pytest.mark.parametrize("oversize", Oversize)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP"])
def test_an_image_within_the_limits_is_sent_as_it_is(oversize, image_format):
    """No byte of it is changed."""
    content = picture(image_format, (60, 15) if image_format == "BMP" else (60, 60))
    assert fit(content, oversize=oversize) == payload(content)


@pytest.mark.parametrize("oversize", Oversize)
@pytest.mark.parametrize(
    ("content", "found"),
    [(picture("GIF"), "a GIF"), (picture("WEBP"), "a WEBP"), (b"a text", "of an unknown format")],
)
def test_a_format_that_the_service_does_not_take(content, found, oversize):
    """The error names it and the formats that are taken; the size of the image does not matter."""
    for file in (content, content + bytes(3_000)):
        with pytest.raises(ImageFormatError, match=f"{found}.*BMP, JPEG, PNG") as caught:
            fit(file, oversize=oversize)
        assert caught.value.billing is Billing.NOT_SENT
        assert caught.value.code is None


@pytest.mark.parametrize("content", [picture("GIF"), b"a text"])
def test_a_service_that_names_no_formats_gets_them_all(content):
    """The service decides."""
    assert fit(content, LAX) == payload(content)


def test_an_image_over_the_limit_fails():
    """The error names the size, the limit and the remedy."""
    with pytest.raises(ImageTooLargeError, match=r"3,001 bytes.*3,000 bytes.*downscale") as caught:
        fit(bytes(3_001), LAX)
    assert caught.value.billing is Billing.NOT_SENT
    assert fit(bytes(3_000), LAX).content == bytes(3_000)


@pytest.mark.parametrize("limits", [STRICT, LAX])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP"])
def test_the_error_of_an_image_over_the_limit_names_its_pixels(image_format, limits):
    """Also where the service takes all formats."""
    with pytest.raises(ImageTooLargeError, match=r"has 100 x 90 pixels in .* bytes"):
        fit(picture(image_format, (100, 90)) + bytes(3_000), limits)


@pytest.mark.parametrize("content", [picture("WEBP"), b"\xff\xd8\xff", b"a text"])
def test_the_error_of_an_image_without_a_known_size_names_its_bytes(content):
    """A format whose header is not read, a header without a size, and no image at all."""
    with pytest.raises(ImageTooLargeError, match=r"The image has [\d,]+ bytes") as caught:
        fit(content + bytes(3_000), LAX)
    assert "pixels" not in str(caught.value)


def test_an_image_over_the_limit_is_made_smaller():
    """A JPEG within the limit is sent, and the digest stays that of the image."""
    content = noise(100)
    fitted = fit(content, oversize=Oversize.DOWNSCALE)
    assert fitted.content is not None
    assert len(fitted.content) <= STRICT.max_content_bytes
    assert fitted.content.startswith(b"\xff\xd8\xff")
    assert fitted.digest == hashlib.sha256(content).hexdigest()


def test_only_an_image_that_is_downscaled_needs_decoding():
    """Checks take microseconds."""
    small, large, url = payload(picture()), payload(noise(100)), Payload(url="https://h/a.jpg")
    for one in (small, url, payload(b"")):
        assert not ImagePreflight("x", STRICT, Oversize.DOWNSCALE).needs_decoding(one)
    assert not ImagePreflight("x", STRICT, Oversize.ERROR).needs_decoding(large)
    assert ImagePreflight("x", STRICT, Oversize.DOWNSCALE).needs_decoding(large)


@pytest.mark.parametrize("one", [Payload(url="https://h/a.gif"), payload(b"")])
def test_a_url_and_an_image_without_bytes_pass(one):
    """The service checks the one, and the codec refuses the other."""
    assert ImagePreflight("x", STRICT, Oversize.DOWNSCALE).fit(IMAGE, one) is one


def test_an_image_that_cannot_be_decoded_cannot_be_made_smaller():
    """The image is at fault, and nothing was sent."""
    with pytest.raises(ImageDecodeError) as caught:
        fit(bytes(3_001), LAX, Oversize.DOWNSCALE)
    assert caught.value.billing is Billing.NOT_SENT
    assert caught.value.code is None


# -- advice


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((49, 60), ["under 50 pixels"]),
        ((60, 1), ["under 50 pixels", "longer than 5:1"]),
        ((50, 251), ["longer than 5:1"]),
        ((250, 50), []),
        ((50, 50), []),
    ],
)
def test_an_image_outside_the_advice_is_sent_with_a_warning(caplog, size, said):
    """The log names the image and its size."""
    content = picture("JPEG", size)
    with caplog.at_level(logging.WARNING, advice.log.name):
        assert fit(content) == payload(content)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(said)
    for message, part in zip(messages, said, strict=True):
        assert part in message
        assert f"{size[0]} x {size[1]} pixels" in message


def test_many_warnings_are_counted(caplog):
    """The first few name their image without its secrets; one line at the end counts all."""
    preflight = ImagePreflight("DetectLabelPro", STRICT)
    with caplog.at_level(logging.WARNING, advice.log.name):
        for number in range(20):
            image = Image(f"https://h/{number}?sig=5ecre7")
            preflight.fit(image, payload(picture("PNG", (10, 10))))
        assert len(caplog.records) == advice.LOGGED_WARNINGS
        preflight.report()
        preflight.report()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[-1].startswith("20 images with a side under 50 pixels")
    assert len(messages) == advice.LOGGED_WARNINGS + 1
    assert "5ecre7" not in caplog.text


def test_a_few_warnings_need_no_count(caplog):
    """The log has named them all."""
    preflight = ImagePreflight("DetectLabelPro", STRICT)
    with caplog.at_level(logging.WARNING, advice.log.name):
        preflight.fit(IMAGE, payload(picture("PNG", (10, 10))))
        preflight.report()
    assert len(caplog.records) == 1


def test_a_service_without_advice_gives_no_warning(caplog):
    """The size of the image is not read."""
    fit(picture("PNG", (1, 1)), LAX)
    assert caplog.records == []


# -- parameters


def test_an_unknown_choice_is_refused():
    """The error names the possible values."""
    with pytest.raises(ConfigurationError, match="'error' or 'downscale', not 'shrink'"):
        parse_oversize("shrink")


def test_a_missing_pillow_is_an_error_at_once(monkeypatch):
    """The error names the extra to install; without downscaling, Pillow is not needed."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.delattr("PIL.Image")
    ImagePreflight("x", LAX, Oversize.ERROR)
    with pytest.raises(ConfigurationError, match=r"airflow-provider-imagetag\[downscale\]"):
        ImagePreflight("x", LAX, Oversize.DOWNSCALE)
