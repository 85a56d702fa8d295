"""The circuit breaker: few calls while the service is down, and soon all of them again."""

from __future__ import annotations

import pytest

from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreaker, CircuitBreakerConfig

CONFIG = CircuitBreakerConfig(
    max_failures=3, first_pause_seconds=1.0, max_pause_seconds=4.0, max_outage_seconds=20.0
)


def opened(at: float = 0.0) -> CircuitBreaker:
    """Return a circuit breaker that has just opened."""
    breaker = CircuitBreaker(CONFIG)
    for _ in range(CONFIG.max_failures):
        breaker.record_call()
        breaker.record_failure(at)
    assert breaker.is_open
    return breaker


def test_it_is_closed_until_enough_calls_failed_in_a_row():
    """A few failures are normal."""
    breaker = CircuitBreaker(CONFIG)
    for number in range(CONFIG.max_failures):
        assert not breaker.is_open
        assert breaker.wait_seconds(0, is_retry=False) == 0
        breaker.record_call()
        breaker.record_failure(0)
        assert breaker.failures == number + 1
    assert breaker.is_open


def test_an_answer_in_between_starts_the_count_again():
    """Isolated failures never open it."""
    breaker = CircuitBreaker(CONFIG)
    for second in range(100):
        breaker.record_call()
        if second % 3 == 2:
            breaker.record_success()
        else:
            breaker.record_failure(second)
        assert not breaker.is_open
        assert breaker.outage_seconds(second) is None


def test_open_holds_every_call_back():
    """No call is made until the first pause is over."""
    breaker = opened()
    assert breaker.wait_seconds(0, is_retry=True) == 1
    assert breaker.wait_seconds(0.4, is_retry=True) == pytest.approx(0.6)
    assert breaker.wait_seconds(1, is_retry=True) == 0


def test_a_retry_goes_first():
    """A new image, which may be one that fails once, waits a little longer."""
    breaker = opened()
    assert breaker.wait_seconds(1, is_retry=True) == 0
    assert breaker.wait_seconds(1, is_retry=False) == pytest.approx(1)
    assert breaker.wait_seconds(2, is_retry=False) == 0


def test_one_call_at_a_time_probes():
    """All others wait for its result."""
    breaker = opened()
    breaker.record_call()
    for second in range(1, 100):
        assert breaker.wait_seconds(second, is_retry=True) > 0
        assert breaker.wait_seconds(second, is_retry=False) > 0


def test_pauses_grow_up_to_a_bound():
    """Each probe that fails doubles the next pause."""
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        wait = breaker.wait_seconds(now, is_retry=True)
        pauses.append(wait)
        now += wait
        breaker.record_call()
        breaker.record_failure(now)
    assert pauses == pytest.approx([1, 2, 4, 4, 4, 4])


def test_calls_that_were_under_way_do_not_prolong_a_pause():
    """Many calls that fail together count as one probe at most."""
    breaker = opened()
    for _ in range(200):
        breaker.record_failure(0.1)
    assert breaker.wait_seconds(0.1, is_retry=True) == pytest.approx(0.9)


def test_an_answer_closes_it():
    """All calls are made again, and the next outage begins with the first pause."""
    breaker = opened()
    breaker.record_call()
    breaker.record_failure(1)
    breaker.record_call()
    breaker.record_success()
    assert not breaker.is_open
    assert breaker.failures == 0
    assert breaker.wait_seconds(3, is_retry=False) == 0
    for _ in range(CONFIG.max_failures):
        breaker.record_call()
        breaker.record_failure(10)
    assert breaker.wait_seconds(10, is_retry=True) == 1


def test_a_probe_without_a_result_leaves_room_for_another():
    """A call that was not made after all blocks no other."""
    breaker = opened()
    breaker.record_call()
    assert breaker.wait_seconds(5, is_retry=True) > 0
    breaker.record_no_result()
    assert breaker.wait_seconds(5, is_retry=True) == 0
    assert breaker.is_open


def test_an_outage_is_reported_once_it_is_long():
    """It counts from the first failure, and ends with an answer."""
    breaker = CircuitBreaker(CONFIG)
    for second in (100, 101, 102):
        assert breaker.outage_seconds(second) is None
        breaker.record_call()
        breaker.record_failure(second)
    assert breaker.outage_seconds(119.9) is None
    assert breaker.outage_seconds(120) == pytest.approx(20)
    assert breaker.outage_seconds(150) == pytest.approx(50)
    breaker.record_call()
    breaker.record_success()
    assert breaker.outage_seconds(150) is None


def test_few_old_failures_are_no_outage():
    """Two failures with an hour between them do not end a run that hardly calls."""
    breaker = CircuitBreaker(CONFIG)
    breaker.record_call()
    breaker.record_failure(0)
    breaker.record_call()
    breaker.record_failure(3600)
    assert breaker.outage_seconds(3600) is None


def test_a_minute_of_outage_costs_few_calls():
    """By default: the failures that open it, and one call after each pause."""
    breaker, now, calls = CircuitBreaker(CircuitBreakerConfig()), 0.0, 0
    while breaker.outage_seconds(now) is None:
        now += breaker.wait_seconds(now, is_retry=False)
        breaker.record_call()
        breaker.record_failure(now)
        calls += 1
    assert calls <= CircuitBreakerConfig().max_failures + 10
    assert 60 <= now <= 90
