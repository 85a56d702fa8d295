"""A service that is down costs few calls, and is found again soon."""

from __future__ import annotations

import pytest

from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreaker, CircuitBreakerConfig

PATIENCE = CircuitBreakerConfig(
    faults=3, first_rest_seconds=1.0, longest_rest_seconds=4.0, outage_seconds=20.0
)


def opened(at: float = 0.0) -> CircuitBreaker:
    """Return a circuit that has just opened."""
    circuit = CircuitBreaker(PATIENCE)
    for _ in range(PATIENCE.faults):
        circuit.sent()
        circuit.failed(at)
    assert circuit.is_open
    return circuit


def test_it_is_closed_until_enough_calls_failed_in_a_row():
    """A few faults are the ordinary course."""
    circuit = CircuitBreaker(PATIENCE)
    for number in range(PATIENCE.faults):
        assert not circuit.is_open
        assert circuit.wait_seconds(0, is_retry=False) == 0
        circuit.sent()
        circuit.failed(0)
        assert circuit.faults == number + 1
    assert circuit.is_open


def test_an_answer_in_between_starts_the_count_again():
    """Faults now and then never open it."""
    circuit = CircuitBreaker(PATIENCE)
    for second in range(100):
        circuit.sent()
        if second % 3 == 2:
            circuit.succeeded()
        else:
            circuit.failed(second)
        assert not circuit.is_open
        assert circuit.outage_seconds(second) is None


def test_open_holds_everyone_for_a_while():
    """Nobody calls until the first rest is over."""
    circuit = opened()
    assert circuit.wait_seconds(0, is_retry=True) == 1
    assert circuit.wait_seconds(0.4, is_retry=True) == pytest.approx(0.6)
    assert circuit.wait_seconds(1, is_retry=True) == 0


def test_an_image_that_was_sent_before_goes_first():
    """It is the better probe where each image fails once; a new one waits a little longer."""
    circuit = opened()
    assert circuit.wait_seconds(1, is_retry=True) == 0
    assert circuit.wait_seconds(1, is_retry=False) == pytest.approx(1)
    assert circuit.wait_seconds(2, is_retry=False) == 0


def test_one_call_at_a_time_asks():
    """While it is on its way, everybody else waits for what comes of it."""
    circuit = opened()
    circuit.sent()
    for second in range(1, 100):
        assert circuit.wait_seconds(second, is_retry=True) > 0
        assert circuit.wait_seconds(second, is_retry=False) > 0


def test_rests_grow_up_to_a_bound():
    """Each probe that fails makes the next rest twice as long."""
    circuit, now, rests = opened(), 0.0, []
    for _ in range(6):
        wait = circuit.wait_seconds(now, is_retry=True)
        rests.append(wait)
        now += wait
        circuit.sent()
        circuit.failed(now)
    assert rests == pytest.approx([1, 2, 4, 4, 4, 4])


def test_what_was_on_its_way_when_it_opened_makes_no_rest_longer():
    """Many calls that fail together are one piece of news."""
    circuit = opened()
    for _ in range(200):
        circuit.failed(0.1)
    assert circuit.wait_seconds(0.1, is_retry=True) == pytest.approx(0.9)


def test_an_answer_closes_it():
    """The service is back: everybody calls, and the next outage begins with the first rest."""
    circuit = opened()
    circuit.sent()
    circuit.failed(1)
    circuit.sent()
    circuit.succeeded()
    assert not circuit.is_open
    assert circuit.faults == 0
    assert circuit.wait_seconds(3, is_retry=False) == 0
    for _ in range(PATIENCE.faults):
        circuit.sent()
        circuit.failed(10)
    assert circuit.wait_seconds(10, is_retry=True) == 1


def test_a_probe_that_is_withdrawn_leaves_room_for_another():
    """A call that was not made after all tells nothing, and blocks nobody."""
    circuit = opened()
    circuit.sent()
    assert circuit.wait_seconds(5, is_retry=True) > 0
    circuit.withdrawn()
    assert circuit.wait_seconds(5, is_retry=True) == 0
    assert circuit.is_open


def test_an_outage_is_told_once_it_is_long():
    """It is counted from the first of the faults, and only while nothing answers."""
    circuit = CircuitBreaker(PATIENCE)
    for second in (100, 101, 102):
        assert circuit.outage_seconds(second) is None
        circuit.sent()
        circuit.failed(second)
    assert circuit.outage_seconds(119.9) is None
    assert circuit.outage_seconds(120) == pytest.approx(20)
    assert circuit.outage_seconds(150) == pytest.approx(50)
    circuit.sent()
    circuit.succeeded()
    assert circuit.outage_seconds(150) is None


def test_few_faults_that_are_old_are_no_outage():
    """A run that hardly calls at all is not ended by two faults with an hour between them."""
    circuit = CircuitBreaker(PATIENCE)
    circuit.sent()
    circuit.failed(0)
    circuit.sent()
    circuit.failed(3600)
    assert circuit.outage_seconds(3600) is None


def test_a_minute_of_outage_costs_few_calls():
    """With what runs have by default: the faults that open it, and one call after each rest."""
    circuit, now, calls = CircuitBreaker(CircuitBreakerConfig()), 0.0, 0
    while circuit.outage_seconds(now) is None:
        now += circuit.wait_seconds(now, is_retry=False)
        circuit.sent()
        circuit.failed(now)
        calls += 1
    assert calls <= CircuitBreakerConfig().faults + 10
    assert 60 <= now <= 90
