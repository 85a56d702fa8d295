"""Each fault, alone and over real HTTP."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from airflow_imagetag.testing import Emulator, Faults
from airflow_imagetag.testing._fault_injector import FaultInjector
from airflow_imagetag.testing._recorder import SlidingWindow
from airflow_imagetag.testing.faults import Garbage


def statuses(client, images) -> list[int]:
    """Send each image once and return the statuses; 0 for a connection without an answer."""
    found = []
    for image in images:
        try:
            found.append(client.multipart(image).status_code)
        except requests.ConnectionError:
            found.append(0)
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_seconds", -1),
        ("latency_seconds", float("inf")),
        ("latency_seconds", float("nan")),
        ("latency_seconds", (2.0, 1.0)),
        ("latency_seconds", (-1.0, 1.0)),
        ("requests_per_second", 0),
        ("requests_per_second", -1),
        ("requests_per_second", float("inf")),
        ("throttle_status", 200),
        ("throttle_status", 600),
        ("retry_after_seconds", -1),
        ("error_rates", {200: 0.5}),
        ("error_rates", {500: 1.1}),
        ("error_rates", {500: 0.6, 503: 0.6}),
        ("first_attempts", {503: -0.1}),
        ("error_codes", {"RequestLimitExceeded": 1.1}),
        ("error_codes", {"": 0.1}),
        ("error_codes", {"-1102": 0.1}),
        ("first_attempt_codes", {"FailedOperation.RpcFail": -0.1}),
        ("drop_rate", 1.1),
        ("drop_after_work_rate", -0.1),
        ("garbage_rate", float("nan")),
        ("garbage", "rubbish"),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    """A value out of range raises a ValueError that names its field."""
    with pytest.raises(ValueError, match=field):
        Faults(**{field: value})


def test_shares_may_add_up_to_one():
    """Ten shares of a tenth are accepted in spite of floating point."""
    Faults(error_rates=dict.fromkeys(range(500, 510), 0.1))


def test_statuses_and_codes_share_one_chance():
    """Statuses and codes share one draw, so their shares add up to at most one."""
    Faults(error_rates={500: 0.5}, error_codes={"InternalError": 0.5})
    for statuses, codes in (
        ("error_rates", "error_codes"),
        ("first_attempts", "first_attempt_codes"),
    ):
        shares: dict[str, Any] = {statuses: {500: 0.6}, codes: {"InternalError": 0.6}}
        with pytest.raises(ValueError, match=codes):
            Faults(**shares)


def test_a_description_does_not_change():
    """Faults are frozen, and keep their own copies of the mappings."""
    rates = {500: 0.5}
    faults = Faults(error_rates=rates)
    rates[500] = 0.0
    assert faults.error_rates == {500: 0.5}
    with pytest.raises(TypeError):
        faults.error_rates[500] = 0.0  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        faults.drop_rate = 1.0  # type: ignore[misc]


def test_latency(client, photograph):
    """A request takes at least the shortest time of the range."""
    client.base64(photograph)
    client.emulator.faults = Faults(latency_seconds=(0.1, 0.12))
    response = client.base64(photograph)
    assert response.json()["code"] == 0
    assert response.elapsed.total_seconds() >= 0.1


def test_latency_does_not_hold_up_other_requests(client, photograph):
    """Twenty slow requests are in progress at once, and another one is answered meanwhile."""
    client.emulator.faults = Faults(latency_seconds=600)
    with ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(client.multipart, photograph) for _ in range(20)]
        while client.emulator.stats.in_flight < 20:
            time.sleep(0.005)
        client.emulator.faults = Faults()
        assert client.multipart(photograph).status_code == 200
        client.emulator.stop()
    assert all(isinstance(request.exception(), requests.ConnectionError) for request in slow)


def test_the_quota_refuses_requests_over_it(client, small_images):
    """With a quota of five, a burst of eight gets five answers and three refusals."""
    client.emulator.faults = Faults(requests_per_second=5, retry_after_seconds=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.multipart, small_images[:8]))
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 3}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "2"
    assert refused.json()["code"] == -1
    stats = client.emulator.stats
    assert (stats.over_limit, stats.billed, stats.peak_requests_per_second) == (3, 5, 8)


def test_the_quotas_status_can_be_chosen_and_retry_after_left_out(client, photograph):
    """A service may refuse with 503 and no advice."""
    client.emulator.faults = Faults(requests_per_second=0.1, throttle_status=503)
    assert client.base64(photograph).status_code == 200
    refused = client.base64(photograph)
    assert refused.status_code == 503
    assert "Retry-After" not in refused.headers


def test_the_quota_slides():
    """Every window of a second has at most the quota; refused requests do not count."""
    injector = FaultInjector(Faults(requests_per_second=2), seed=0)
    moments = [10.0, 10.9, 10.95, 11.0, 11.5, 11.9]
    assert [injector.over_quota(now) for now in moments] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_a_quota_below_one_counts_over_a_longer_time():
    """A quota of 0.5 is one request in two seconds."""
    injector = FaultInjector(Faults(requests_per_second=0.5), seed=0)
    assert [injector.over_quota(now) for now in (0.0, 1.9, 2.0)] == [False, True, False]


def test_a_window_forgets():
    """An event counts until it is as old as the window is long."""
    window = SlidingWindow(1.0)
    assert [window.add(now) for now in (0.0, 0.5, 0.99, 1.0, 5.0)] == [1, 2, 3, 3, 1]


def test_errors_at_random(client, small_images):
    """About the given share of requests fails, and failures are not billed."""
    client.emulator.faults = Faults(error_rates={500: 0.2, 503: 0.2})
    counted = Counter(statuses(client, small_images))
    assert set(counted) == {200, 500, 503}
    assert 40 <= counted[200] <= 80
    assert client.emulator.stats.billed == counted[200]


def test_chance_is_repeatable(connect, small_images):
    """The same seed gives the same faults, another seed others, and assigning starts again."""

    def run(seed: int) -> list[int]:
        with Emulator(seed=seed, faults=Faults(error_rates={500: 0.5})) as emulator:
            client = connect(emulator)
            once = statuses(client, small_images[:20])
            emulator.faults = emulator.faults
            assert statuses(client, small_images[:20]) == once
            return once

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_first_attempt_fails_and_the_second_works(client, small_images):
    """The chosen images fail exactly once, the same ones in any order."""
    client.emulator.faults = Faults(first_attempts={503: 0.3, 502: 0.2})
    first = statuses(client, small_images)
    assert {200, 502, 503} == set(first)
    assert 30 <= sum(status != 200 for status in first) <= 70
    assert statuses(client, small_images) == [200] * 100
    client.emulator.faults = Faults(first_attempts={503: 0.3, 502: 0.2})
    assert statuses(client, small_images[::-1]) == first[::-1]


def test_a_first_attempt_by_url_is_known_by_the_url(client):
    """An image behind a URL fails at its first attempt, before the download."""
    client.emulator.faults = Faults(first_attempts={504: 1.0})
    url = "http://127.0.0.1:1/photo.jpg"
    assert client.by_url(url).status_code == 504
    assert client.by_url(url).json()["code"] == -1300


def test_a_dropped_connection_without_work(client, photograph):
    """The client gets no answer, and nothing is billed."""
    client.emulator.faults = Faults(drop_rate=1.0)
    assert statuses(client, [photograph]) == [0]
    stats = client.emulator.stats
    assert (stats.requests, stats.dropped, stats.billed, dict(stats.by_status)) == (1, 1, 0, {})


def test_a_dropped_connection_after_the_work(client, photograph):
    """The client gets no answer, and the image is billed: the case that costs money."""
    client.emulator.faults = Faults(drop_after_work_rate=1.0)
    assert statuses(client, [photograph] * 2) == [0, 0]
    stats = client.emulator.stats
    assert (stats.dropped, stats.billed, dict(stats.by_code)) == (2, 2, {})
    assert list(stats.billed_images.values()) == [2]


def test_work_that_fails_is_not_dropped(client):
    """An undecodable image gets its answer, since no work was done."""
    client.emulator.faults = Faults(drop_after_work_rate=1.0, garbage_rate=1.0)
    assert client.multipart(b"text").json()["code"] == -1102


@pytest.mark.parametrize("v1", [False, True])
def test_each_kind_of_garbage(client, photograph, v1):
    """Every kind of garbage has status 200 and its own form, and is billed."""
    parameters = {"app_id": "1250000001", "image": base64.b64encode(photograph).decode()}

    def answer(kind: Garbage) -> requests.Response:
        client.emulator.faults = Faults(garbage_rate=1.0, garbage=kind)
        response = client.post(client.v1 if v1 else client.v2, json=parameters)
        assert response.status_code == 200
        return response

    assert answer("html").headers["Content-Type"].startswith("text/html")
    assert answer("empty").content == b""
    for kind in ("truncated", "not_json"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer(kind).content)
    assert answer("truncated").content.startswith(b'{"code": 0')
    assert set(answer("missing_data").json()) == {"code", "message"}
    bad = answer("bad_probability").json()
    if v1:
        assert {tag["tag_confidence"] for tag in bad["tags"]} == {1750}
    else:
        assert {item["probability"] for item in bad["data"][0]["items"]} == {17.5}
    stats = client.emulator.stats
    assert stats.garbage == stats.billed == 7
    assert dict(stats.by_code) == {}


def test_garbage_takes_each_kind_in_turn(connect, photograph):
    """By default six answers are spoiled in six ways, also in the table's form."""
    with Emulator(faults=Faults(garbage_rate=1.0), answer_form="table") as emulator:
        client = connect(emulator)
        bodies = [client.multipart(photograph).content for _ in range(12)]
    assert len(set(bodies[:6])) == 6
    assert bodies[:6] == bodies[6:]


def test_faults_can_change_while_requests_are_under_way(client, photograph):
    """New faults hold from the next request; a request in progress keeps the old ones."""
    client.base64(photograph)
    client.emulator.faults = Faults(latency_seconds=0.3)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.multipart, photograph)
        while client.emulator.stats.in_flight == 0:
            time.sleep(0.005)
        client.emulator.faults = Faults(error_rates={500: 1.0})
        assert client.multipart(photograph).status_code == 500
        assert slow.result().status_code == 200
    client.emulator.faults = Faults()
    assert client.emulator.faults == Faults()
    assert client.multipart(photograph).status_code == 200
