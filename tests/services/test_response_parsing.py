"""Reading answers: every code and status of the document, and everything that is no answer."""

from __future__ import annotations

import json
import random
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag import errors
from airflow_imagetag.errors import Billing, Decision, ImageTagError
from airflow_imagetag.models import Label
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels
from airflow_imagetag.services.recognition import envelope
from airflow_imagetag.services.recognition.picture_classify import PictureClassify

READ = PictureClassify(Account("1250000001", "AKIDlogin", "key")).read

DOCUMENTED_STATUSES = {
    400: ("InvalidRequestError", "STOP"),
    401: ("AuthenticationError", "STOP"),
    403: ("AuthenticationError", "STOP"),
    404: ("EndpointError", "STOP"),
    411: ("InvalidRequestError", "STOP"),
    413: ("ImageTooLargeError", "RECORD"),
    424: ("EndpointError", "STOP"),
    500: ("ServiceUnavailableError", "RETRY"),
    502: ("ServiceUnavailableError", "RETRY"),
    503: ("ServiceUnavailableError", "RETRY"),
    504: ("ServiceUnavailableError", "RETRY"),
}
"""The document's list of HTTP statuses, all of it."""

GATEWAY_STATUSES = {
    407: ("AuthenticationError", "STOP"),
    408: ("ServiceUnavailableError", "RETRY"),
    425: ("ServiceUnavailableError", "RETRY"),
    429: ("ThrottledError", "RETRY"),
}
"""Statuses that the document lacks, and servers send."""

OTHER_STATUSES = {
    201: ("MalformedAnswerError", "RETRY"),
    204: ("MalformedAnswerError", "RETRY"),
    301: ("EndpointError", "STOP"),
    302: ("EndpointError", "STOP"),
    307: ("EndpointError", "STOP"),
    402: ("RequestRefusedError", "STOP"),
    418: ("RequestRefusedError", "STOP"),
    451: ("RequestRefusedError", "STOP"),
    501: ("ServiceUnavailableError", "RETRY"),
    520: ("ServiceUnavailableError", "RETRY"),
    599: ("ServiceUnavailableError", "RETRY"),
    # None of HTTP: one such answer must not end a run.
    0: ("MalformedAnswerError", "RETRY"),
    101: ("MalformedAnswerError", "RETRY"),
    600: ("MalformedAnswerError", "RETRY"),
    999: ("MalformedAnswerError", "RETRY"),
}
"""Statuses that no list names fall into the class of their hundred."""

DOCUMENTED_CODES = {
    -1102: ("ImageDecodeError", "RECORD"),
    -1300: ("ImageEmptyError", "RECORD"),
    -1301: ("InvalidRequestError", "STOP"),
    -1304: ("ParameterTooLongError", "RECORD"),
}
"""The document's list of error codes, all of it."""

ITEMS = [
    {"label_name": "Person", "probability": 0.9545053839683533},
    {"label_name": "天空", "probability": 0.5},
]
GOOD: dict[str, Any] = {"code": 0, "message": "ok", "data": [{"items": ITEMS}]}
PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    """Make an answer; a body that is not bytes goes as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status, names, raw)


def error_of(body: Any, status: int = 200, **headers: str) -> ImageTagError:
    """Return the error that an answer is read as."""
    with pytest.raises(ImageTagError) as caught:
        READ(answer(body, status, **headers))
    return caught.value


def test_the_lists_of_the_document_are_complete():
    """The package knows exactly the document's codes and statuses, and the gateway's."""
    assert set(envelope.BUSINESS_CODES) == set(DOCUMENTED_CODES)
    assert set(response_parsing.HTTP_STATUSES) == set(DOCUMENTED_STATUSES) | set(GATEWAY_STATUSES)


@pytest.mark.parametrize(
    ("status", "expected"),
    [*DOCUMENTED_STATUSES.items(), *GATEWAY_STATUSES.items(), *OTHER_STATUSES.items()],
)
@pytest.mark.parametrize(
    "body", [PAGE, b"", {"code": -5, "message": "no"}, {"message": "no"}, [], GOOD]
)
def test_every_status_has_its_class(status, expected, body):
    """A response with a status other than 200 is an error for any body, labels included."""
    error = error_of(body, status)
    assert (type(error).__name__, error.decision) == (expected[0], Decision[expected[1]])
    assert error.code == str(status)
    assert error.status == status
    assert f"HTTP {status}" in error.message


@pytest.mark.parametrize(("code", "expected"), DOCUMENTED_CODES.items())
@pytest.mark.parametrize("status", [200, 400, 404, 413])
def test_every_code_has_its_class(code, expected, status):
    """A documented code decides, also beside a status that says less."""
    error = error_of({"code": code, "message": "the reason"}, status)
    assert (type(error).__name__, error.decision) == (expected[0], Decision[expected[1]])
    assert error.code == str(code)
    assert error.status == status
    assert error.billing is Billing.REFUSED
    assert f"code {code}" in error.message
    assert "the reason" in error.message


@pytest.mark.parametrize("code", DOCUMENTED_CODES)
@pytest.mark.parametrize("status", [401, 403, 407, 429, 500, 502, 503, 504])
def test_a_gateways_word_goes_before_a_code(status, code):
    """On the account, the quota and an outage, the status decides."""
    expected = {**DOCUMENTED_STATUSES, **GATEWAY_STATUSES}[status][0]
    assert type(error_of({"code": code}, status)).__name__ == expected


@pytest.mark.parametrize("code", [1, -1, -1103, 4000, 2**70])
def test_an_unknown_code_is_recorded(code):
    """A code of no document is this image's failure and keeps the code; no labels are read."""
    error = error_of({**GOOD, "code": code, "message": "new"})
    assert type(error) is errors.UnknownCodeError
    assert error.decision is Decision.RECORD
    assert error.code == str(code)


@pytest.mark.parametrize("name", ["label_name", "level_name"])
@pytest.mark.parametrize("wrap", [lambda items: [{"items": items}], lambda items: {"items": items}])
def test_both_forms_of_the_document(wrap, name):
    """List or object, either name of the name: the labels are the same, the most probable first."""
    items = [{name: item["label_name"], "probability": item["probability"]} for item in ITEMS]
    reading = READ(answer({"code": 0, "message": "ok", "data": wrap(items[::-1])}))
    assert [(label.name, label.probability) for label in reading.labels] == [
        ("Person", 0.9545053839683533),
        ("天空", 0.5),
    ]
    assert reading.request_id is None


@pytest.mark.parametrize("data", [[{"items": []}], {"items": []}])
def test_an_image_may_have_no_labels(data):
    """An empty list of items is an answer."""
    assert READ(answer({"code": 0, "data": data})) == ParsedLabels(())


def test_several_groups_are_read_as_one():
    """The list of the example may hold more than one object."""
    document = {"code": 0, "data": [{"items": ITEMS[:1]}, {"items": ITEMS[1:]}]}
    assert len(READ(answer(document)).labels) == 2


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (1, 1.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_ends_of_the_scale(value, expected):
    """A probability may be 0 or 1, and a whole number."""
    items = [{"label_name": "a", "probability": value}]
    (label,) = READ(answer({"code": 0, "data": {"items": items}})).labels
    assert label.probability == expected
    assert type(label.probability) is float


def test_more_fields_do_no_harm():
    """A field that the document lacks is ignored."""
    document = {**GOOD, "request_id": 5, "data": [{"items": [{**ITEMS[0], "box": []}], "x": 1}]}
    assert len(READ(answer(document)).labels) == 1


MALFORMED = {
    "a page": PAGE,
    "no body": b"",
    "truncated": json.dumps(GOOD).encode()[:60],
    "text": b"internal error",
    "not UTF-8": b'{"code": 0, "data": "\xff\xfe"}',
    "deep": b"[" * 200_000,
    "deep in an object": b'{"code": 0, "data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a list": [GOOD],
    "null": None,
    "a number": 0,
    "many digits": b'{"code": ' + b"1" * 5000 + b"}",
    "no code": {"data": GOOD["data"]},
    "code null": {**GOOD, "code": None},
    "code text": {**GOOD, "code": "0"},
    "code true": {**GOOD, "code": True},
    "code false": {**GOOD, "code": False},
    "code float": {**GOOD, "code": 0.0},
    "no data": {"code": 0, "message": "ok"},
    "data null": {"code": 0, "data": None},
    "data text": {"code": 0, "data": "items"},
    "data empty list": {"code": 0, "data": []},
    "data empty object": {"code": 0, "data": {}},
    "items null": {"code": 0, "data": [{"items": None}]},
    "items object": {"code": 0, "data": {"items": {}}},
    "second group": {"code": 0, "data": [{"items": ITEMS}, {}]},
    "item null": {"code": 0, "data": [{"items": [None]}]},
    "item text": {"code": 0, "data": [{"items": ["Person"]}]},
}
WRONG_PROBABILITIES: list[object] = [-0.01, 1.01, 97, True, False, None, "0.5", [0.5], {}, 10**400]
WRONG_NAMES = [None, "", "  ", 5, True, ["Person"], "\ud800", "a\0", "a" * 100_000]


@pytest.mark.parametrize(
    "body",
    [
        *MALFORMED.values(),
        *({"code": 0, "data": {"items": [{"label_name": "a"}]}},),
        *({"code": 0, "data": {"items": [{"probability": 0.5}]}},),
        *(
            {"code": 0, "data": {"items": [{"label_name": "a", "probability": value}]}}
            for value in [*WRONG_PROBABILITIES, float("nan"), float("inf"), float("-inf")]
        ),
        *(
            {"code": 0, "data": {"items": [{field: value, "probability": 0.5}]}}
            for value in WRONG_NAMES
            for field in ("label_name", "level_name")
        ),
    ],
    ids=lambda body: repr(body)[:60].encode("ascii", "replace").decode(),
)
def test_what_the_document_does_not_describe_is_malformed(body):
    """It is retried, it may have been billed, and it is never an empty list of labels."""
    error = error_of(body)
    assert len(error.message) < 500
    assert type(error) is errors.MalformedAnswerError
    assert error.decision is Decision.RETRY
    assert error.billing is Billing.UNKNOWN
    assert error.status == 200
    assert len(error.message) < 1000
    error.message.encode()


def test_a_success_the_document_lacks_may_have_been_billed():
    """The service did not refuse: 202 with labels is not understood, and may cost."""
    assert error_of(GOOD, 202).billing is Billing.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 120 "}, 120.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1.5"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        (
            {
                "retry_after": "Wed, 21 Oct 2015 07:28:30 GMT",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Wed, 21 Oct 2015 07:28:30 GMT",
            },
            0.0,
        ),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "yesterday"}, None),
        (
            {
                "retry_after": "Wed, 21 Oct 2015 07:28:30 -0000",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            None,
        ),
        ({"retry_after": "Wed, 21 Oct 99999999999999 07:28:30 GMT"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:30 +99999999999999999999"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_how_long_the_service_asks_to_be_left_alone(status, headers, seconds):
    """Seconds or a date by the server's own clock; a value that cannot be read is ignored."""
    assert error_of(PAGE, status, **headers).retry_after_seconds == seconds


def test_random_headers_never_crash():
    """Any value of Retry-After and Date leaves the response an error of ours."""
    chance = random.Random(5)
    words = ["Wed,", "21", "Oct", "2015", "07:28:30", "GMT", "-1", "9" * 30, "+0000", "é", ":", ""]
    for _ in range(3000):
        text = [" ".join(chance.choices(words, k=chance.randint(0, 7))) for _ in range(2)]
        error = error_of(PAGE, 503, retry_after=text[0], date=text[1])
        assert type(error) is errors.ServiceUnavailableError


PRESIGNED = "https://bucket.example/a.jpg?id=7&X-Amz-Date=1&X-Amz-Signature=5ecre7"
SPELLINGS = {
    "as it is": PRESIGNED,
    "slashes escaped": PRESIGNED.replace("/", "\\/"),
    "ampersands escaped": PRESIGNED.replace("&", "\\u0026"),
    "in HTML": PRESIGNED.replace("&", "&amp;"),
    "in percents": urllib.parse.quote(PRESIGNED, safe=""),
    "inside another": f"https://gateway.example/?u={urllib.parse.quote(PRESIGNED, safe='')}",
    "with a password": "https://user:5ecre7@bucket.example/a.jpg",
    "with a tab": "https://user:a\t5ecre7@bucket.example/a.jpg",
    "with a tab escaped": "https://user:a\\t5ecre7@bucket.example/a.jpg",
    "with a line break in a name": "https://bucket.example/a.jpg?to\\nken=5ecre7",
    "far behind": "x " * 380 + PRESIGNED,
}


@pytest.mark.parametrize("url", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"<p>cannot download %s</p>",
        b'{"code": -1300, "message": "cannot download %s"}',
        b'{"code": -77, "message": "cannot download %s"}',
        b'{"code": 0, "message": "%s"}',
        b'{"code": 0, "message": "%s", "data": {"items": [',
    ],
)
def test_messages_never_repeat_a_presigned_url(body, status, url):
    """The service may repeat the URL it was given, in any spelling; its signature is not shown."""
    error = error_of(body % url.encode(), status)
    assert "5ecre7" not in error.message
    assert "5ecre7" not in repr(error)


def test_messages_are_one_short_line():
    """Line breaks and length of an answer stay out of the log."""
    error = error_of({"code": -77, "message": "a\r\nERROR b \x1b[31m" + "x" * 10_000})
    assert len(error.message) < 400
    assert error.message.isprintable()


def mutated(chance: random.Random, body: bytes) -> bytes:
    """Return the body with some bytes changed, removed, doubled or moved."""
    data = bytearray(body)
    for _ in range(chance.choice([1, 1, 2, 6])):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice([0, 1, 1, 1, 2, 8, 40]))
        piece = bytes(data[start:end])
        data[start:end] = chance.choice(
            [
                b"",
                piece * 2,
                bytes(chance.randrange(256) for _ in piece),
                chance.choice([b"null", b"{", b"[", b"]", b'"', b"NaN", b"1e999", b"-", b"true"]),
                b"\\ud800",
                chance.randbytes(1),
                b"0123456789 "[chance.randrange(11) :][:1],
            ]
        )
    return bytes(data)


@pytest.mark.parametrize("seed", range(20))
def test_a_spoiled_answer_is_a_reading_or_an_error(seed):
    """A spoiled body is read or is our error; labels that are read are always sound."""
    chance = random.Random(seed)
    forms = [
        GOOD,
        {"code": 0, "message": "ok", "data": {"items": [{"level_name": "a", "probability": 1}]}},
        {"code": -1102, "message": "no"},
    ]
    read = 0
    for _ in range(500):
        raw = json.dumps(chance.choice(forms), ensure_ascii=chance.random() < 0.5).encode()
        status = chance.choice([200, 200, 200, 400, 500])
        try:
            reading = READ(HttpResponse(status, {}, mutated(chance, raw)))
        except ImageTagError:
            continue
        read += 1
        for label in reading.labels:
            assert 0 <= label.probability <= 1
            assert label.name.strip()
            label.name.encode()
    assert read > 5


JSON_TEXTS = (
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(json.dumps)
    | st.text()
)


@pytest.mark.parametrize("has_msgspec", [True, False])
@given(text=JSON_TEXTS, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@property_test
def test_every_decoder_reads_the_same_json(has_msgspec, text, encoding):
    """As the standard library does: infinite numbers, half of a character, a byte-order mark."""
    body = text.encode(encoding, "surrogatepass")
    try:
        expected = json.loads(body)
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        if not has_msgspec:
            patch.setattr(response_parsing, "_decoder", lambda: json.loads)
        found = response_parsing.json_object(HttpResponse(200, {}, body))
    # As text, since NaN is not equal to itself.
    assert repr(found) == repr(expected if isinstance(expected, dict) else None)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (1, 0.01), (50, 0.5), (100, 1.0), (25.0, 0.25)]
)
def test_a_probability_is_a_float(value, expected):
    """Also where the service gives a whole number."""
    found = response_parsing.probability(HttpResponse(200, {}, b"{}"), value, 100.0)
    assert type(found) is float
    assert found == expected


@pytest.mark.parametrize("blank", [None, "", "  ", [], {}, 0, False])
def test_a_label_without_categories(blank):
    """Anything empty stands for none, also what is no key of a cache."""
    response = HttpResponse(200, {}, b"{}")
    found = response_parsing.label(response, "cat", 1, category=blank, subcategory=blank)
    assert found == Label("cat", 1.0)


@pytest.mark.parametrize("wrong", ["\0", "\ud800", "x" * 1_001, 7, ["cat"], {"a": 1}, True])
def test_a_label_with_a_category_of_no_use(wrong):
    """No table could hold it."""
    response = HttpResponse(200, {}, b"{}")
    for names in ({"category": wrong}, {"subcategory": wrong}):
        with pytest.raises(errors.MalformedAnswerError, match="a label's category"):
            response_parsing.label(response, "cat", 1, **names)
    with pytest.raises(errors.MalformedAnswerError, match="a label's name"):
        response_parsing.label(response, wrong, 1)
