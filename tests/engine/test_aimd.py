"""The rate after throttled answers."""

from __future__ import annotations

import itertools

import pytest

from airflow_imagetag.engine.flow.aimd import (
    INCREASE_PER_SECOND,
    MIN_DECREASE_FACTOR,
    MIN_SHARE,
    RECOVERY_SECONDS,
    UNAVAILABLE_WEIGHT,
    UNLIMITED_SHARE,
    WINDOW_SECONDS,
    AimdRate,
)


def limited(aimd: AimdRate, now: float) -> float:
    """Return the rate, which has a limit."""
    rate = aimd.rate(now)
    assert rate is not None
    return rate


def test_the_full_rate_until_an_answer_is_throttled():
    """The quota is used as it is, at any time and after any number of requests."""
    aimd = AimdRate(20)
    for second in range(100):
        aimd.record_request(second)
        assert aimd.rate(second) == 20


def test_no_limit_until_an_answer_is_throttled():
    """Without a quota there is no rate."""
    aimd = AimdRate(None)
    for second in range(100):
        aimd.record_request(second)
        assert aimd.rate(second) is None


@pytest.mark.parametrize(
    ("quota", "refused", "left"),
    [
        (200, 1, 0.99),
        (200, 4, 0.96),
        (20, 1, 0.9),
        (200, 50, MIN_DECREASE_FACTOR),
        (20, 20, MIN_DECREASE_FACTOR),
        (0.5, 1, MIN_DECREASE_FACTOR),
    ],
)
def test_the_decrease_grows_with_the_refusals(quota, refused, left):
    """One refusal among hundreds hardly counts; many lower the rate by a quarter at once."""
    aimd = AimdRate(quota)
    for number in range(refused):
        aimd.record_throttled(50 + number / 1000)
    assert aimd.rate(50) == pytest.approx(quota * left)


def test_an_answer_of_less_weight():
    """Several have the effect of one refusal; without a quota they set no limit."""
    aimd, free = AimdRate(200), AimdRate(None)
    for _ in range(8):
        aimd.record_throttled(50, UNAVAILABLE_WEIGHT)
        free.record_throttled(50, UNAVAILABLE_WEIGHT)
    assert aimd.rate(50) == pytest.approx(200 * (1 - 0.01 * 8 * UNAVAILABLE_WEIGHT))
    assert free.rate(50) is None


@pytest.mark.parametrize(("refused", "left"), [(1, 0.9), (3, MIN_DECREASE_FACTOR)])
def test_the_recovery_is_linear_up_to_the_quota(refused, left):
    """Small and large decreases take the same time, and never end above the quota."""
    aimd = AimdRate(20)
    for _ in range(refused):
        aimd.record_throttled(0)
    for tenth in range(100):
        share = min(left + (1 - left) / RECOVERY_SECONDS * tenth / 10, 1)
        assert aimd.rate(tenth / 10) == pytest.approx(20 * share)


def test_several_decreases_take_longer_to_recover():
    """A tenth of the quota is regained each second."""
    aimd = AimdRate(20)
    for second in range(10):
        for _ in range(20):
            aimd.record_throttled(second)
    low = limited(aimd, 9)
    assert low < 10
    assert aimd.rate(11) == pytest.approx(low + 2 * 20 * INCREASE_PER_SECOND)


def test_throttled_answers_of_one_window_are_one_decrease():
    """Answers to requests that had been sent before the decrease do not lower the rate again."""
    aimd = AimdRate(100)
    for number in range(50):
        aimd.record_throttled(number * WINDOW_SECONDS / 50)
    assert aimd.rate(0) == pytest.approx(75)
    for _ in range(50):
        aimd.record_throttled(WINDOW_SECONDS)
    assert aimd.rate(WINDOW_SECONDS) == pytest.approx((75 + 10) * MIN_DECREASE_FACTOR)


def test_the_rate_never_reaches_zero():
    """A service that always refuses still gets a request now and then."""
    aimd = AimdRate(100)
    rates = []
    for second in range(0, 300, 2):
        aimd.record_throttled(second)
        rates.append(limited(aimd, second))
    assert min(rates) >= 100 * MIN_SHARE
    assert max(rates[20:]) < 100


def test_it_settles_near_the_limit_of_the_service():
    """With a limit of half the quota, the rate stays close to that."""
    aimd, rates = AimdRate(40), []
    for tenth in range(600):
        rate = limited(aimd, tenth / 10)
        if rate > 20:
            aimd.record_throttled(tenth / 10)
        rates.append(rate)
    later = rates[100:]
    assert 15 <= min(later) <= max(later) <= 26
    assert 0.8 <= sum(later) / len(later) / 20 <= 1.1


def test_without_a_quota_the_measured_rate_is_lowered():
    """A run without a limit goes on at three quarters of its rate."""
    aimd = AimdRate(None)
    for number in range(300):
        aimd.record_request(number / 100)
    aimd.record_throttled(3)
    assert aimd.rate(3) == pytest.approx(100 * MIN_DECREASE_FACTOR, rel=0.05)


def test_a_throttled_answer_right_at_the_start():
    """The requests of the first instant make a rate that is bounded, and above 0."""
    aimd = AimdRate(None)
    aimd.record_throttled(0)
    assert aimd.rate(0) == pytest.approx(MIN_DECREASE_FACTOR)
    aimd = AimdRate(None)
    for _ in range(30):
        aimd.record_request(0)
    aimd.record_throttled(0.001)
    assert aimd.rate(0.001) == pytest.approx(300 * MIN_DECREASE_FACTOR)


def test_without_a_quota_the_limit_ends_once_it_is_exceeded_unpunished():
    """The rate grows past the one that was too high, and in the end there is no limit again."""
    aimd = AimdRate(None)
    for number in range(300):
        aimd.record_request(number / 100)
    aimd.record_throttled(3)
    seconds = itertools.count(3)
    rates = list(iter(lambda: aimd.rate(next(seconds)), None))
    assert rates == sorted(rates)
    assert 100 < rates[-1] <= 100 * UNLIMITED_SHARE * 1.05
    assert len(rates) < 60


def test_a_limit_that_ended_can_come_again():
    """A later throttled answer counts like the first, at the rate of its own time."""
    aimd = AimdRate(None)
    aimd.record_request(0)
    aimd.record_throttled(0)
    assert aimd.rate(1000) is None
    for number in range(200):
        aimd.record_request(1000 + number / 50)
    aimd.record_throttled(1004)
    assert aimd.rate(1004) == pytest.approx(50 * MIN_DECREASE_FACTOR, rel=0.05)
