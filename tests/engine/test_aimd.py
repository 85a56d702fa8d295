"""How fast to go after the service has said that it is too fast."""

from __future__ import annotations

import itertools

import pytest

from airflow_imagetag.engine.flow.aimd import (
    CALM_SECONDS,
    CUT,
    FLOOR,
    FREE_AGAIN,
    RECOVERY_PER_SECOND,
    RECOVERY_SECONDS,
    UNAVAILABLE_WEIGHT,
    AimdRate,
)


def test_the_full_rate_until_somebody_complains():
    """A quota is used as it is, at any time and however many requests were granted."""
    slow_down = AimdRate(20)
    for second in range(100):
        slow_down.granted(second)
        assert slow_down.rate(second) == 20


def test_no_limit_until_somebody_complains():
    """Without a quota there is no rate."""
    slow_down = AimdRate(None)
    for second in range(100):
        slow_down.granted(second)
        assert slow_down.rate(second) is None


@pytest.mark.parametrize(
    ("quota", "refused", "left"),
    [(200, 1, 0.99), (200, 4, 0.96), (20, 1, 0.9), (200, 50, CUT), (20, 20, CUT), (0.5, 1, CUT)],
)
def test_a_cut_is_as_deep_as_the_refusals_are_many(quota, refused, left):
    """One refusal among hundreds hardly counts; many slow down by a quarter, and at once."""
    slow_down = AimdRate(quota)
    for number in range(refused):
        slow_down.cut(50 + number / 1000)
    assert slow_down.rate(50) == pytest.approx(quota * left)


def test_an_answer_that_says_less_counts_for_less():
    """It takes several to slow down as one refusal does; without a quota they set no limit."""
    slow_down, free = AimdRate(200), AimdRate(None)
    for _ in range(8):
        slow_down.cut(50, UNAVAILABLE_WEIGHT)
        free.cut(50, UNAVAILABLE_WEIGHT)
    assert slow_down.rate(50) == pytest.approx(200 * (1 - 0.01 * 8 * UNAVAILABLE_WEIGHT))
    assert free.rate(50) is None


@pytest.mark.parametrize(("refused", "left"), [(1, 0.9), (3, CUT)])
def test_it_recovers_in_a_straight_line_up_to_the_quota(refused, left):
    """What was cut comes back in the same time, much or little, and never more than there was."""
    slow_down = AimdRate(20)
    for _ in range(refused):
        slow_down.cut(0)
    for tenth in range(100):
        share = min(left + (1 - left) / RECOVERY_SECONDS * tenth / 10, 1)
        assert slow_down.rate(tenth / 10) == pytest.approx(20 * share)


def test_a_deep_cut_takes_longer_to_recover():
    """A tenth of the quota comes back each second, after however many cuts."""
    slow_down = AimdRate(20)
    for second in range(10):
        for _ in range(20):
            slow_down.cut(second)
    low = slow_down.rate(9)
    assert low < 10
    assert slow_down.rate(11) == pytest.approx(low + 2 * 20 * RECOVERY_PER_SECOND)


def test_complaints_of_one_moment_are_one_cut():
    """Answers to what was on its way when the rate was cut do not cut it again."""
    slow_down = AimdRate(100)
    for number in range(50):
        slow_down.cut(number * CALM_SECONDS / 50)
    assert slow_down.rate(0) == pytest.approx(75)
    for _ in range(50):
        slow_down.cut(CALM_SECONDS)
    assert slow_down.rate(CALM_SECONDS) == pytest.approx((75 + 10) * CUT)


def test_it_never_stands_still():
    """A service that always complains still gets a request now and then."""
    slow_down = AimdRate(100)
    rates = []
    for second in range(0, 300, 2):
        slow_down.cut(second)
        rates.append(slow_down.rate(second))
    assert min(rates) >= 100 * FLOOR
    assert max(rates[20:]) < 100


def test_it_settles_near_the_limit_of_the_service():
    """Against a limit of a half it goes neither much faster nor much slower than that."""
    slow_down, rates = AimdRate(40), []
    for tenth in range(600):
        rate = slow_down.rate(tenth / 10)
        if rate > 20:
            slow_down.cut(tenth / 10)
        rates.append(rate)
    later = rates[100:]
    assert 15 <= min(later) <= max(later) <= 26
    assert 0.8 <= sum(later) / len(later) / 20 <= 1.1


def test_without_a_quota_the_rate_that_was_seen_is_cut():
    """A run that knew no limit goes on at three quarters of what it sent."""
    slow_down = AimdRate(None)
    for number in range(300):
        slow_down.granted(number / 100)
    slow_down.cut(3)
    assert slow_down.rate(3) == pytest.approx(100 * CUT, rel=0.05)


def test_a_complaint_right_at_the_start():
    """What was sent in the first instant makes a rate that is bounded, and above 0."""
    slow_down = AimdRate(None)
    slow_down.cut(0)
    assert slow_down.rate(0) == pytest.approx(CUT)
    slow_down = AimdRate(None)
    for _ in range(30):
        slow_down.granted(0)
    slow_down.cut(0.001)
    assert slow_down.rate(0.001) == pytest.approx(300 * CUT)


def test_without_a_quota_the_limit_is_forgotten_once_it_does_no_good():
    """The rate grows past the one that was too fast, and in the end there is no limit again."""
    slow_down = AimdRate(None)
    for number in range(300):
        slow_down.granted(number / 100)
    slow_down.cut(3)
    seconds = itertools.count(3)
    rates = list(iter(lambda: slow_down.rate(next(seconds)), None))
    assert rates == sorted(rates)
    assert 100 < rates[-1] <= 100 * FREE_AGAIN * 1.05
    assert len(rates) < 60


def test_a_limit_that_was_forgotten_can_come_again():
    """A later complaint is heard like the first, at the rate of its own time."""
    slow_down = AimdRate(None)
    slow_down.granted(0)
    slow_down.cut(0)
    assert slow_down.rate(1000) is None
    for number in range(200):
        slow_down.granted(1000 + number / 50)
    slow_down.cut(1004)
    assert slow_down.rate(1004) == pytest.approx(50 * CUT, rel=0.05)
