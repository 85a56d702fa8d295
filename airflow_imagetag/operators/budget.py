"""Private: the budget of a task: maximum number of its calls, or maximum cost."""

from __future__ import annotations

import enum
import logging
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.errors import BudgetUsedUpError, ConfigurationError
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope

log = logging.getLogger(__name__)

CALLS = NumberRule("a whole number from 0, or None", minimum=0, is_whole=True)
COST = NumberRule("a number from 0, or None", minimum=0)

UNLIMITED = 1 << 62
"""Number of calls that stands for no limit."""

ROUNDING = 1e-9
"""Share of a call by which a sum of prices may be off."""

E = TypeVar("E", bound=enum.StrEnum)


class BudgetPeriod(enum.StrEnum):
    """The runs that share a budget."""

    RUN = "run"
    """The tries and the mapped tasks of one task in one DAG run."""
    DAY = "day"
    """All runs of the store that started on this day, in UTC."""
    MONTH = "month"
    """All runs of the store that started in this month, in UTC."""


class OnBudget(enum.StrEnum):
    """The end of a run whose budget is used up."""

    STOP = "stop"
    """The task succeeds, and the images that are left stay new."""
    FAIL = "fail"
    """The task fails, after it has written what was labelled."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The calls that a task may make.

    :param max_calls: maximum number of calls that may be billed; None for no limit.
    :param max_cost: maximum price of these calls; None for no limit.
    :param period: the runs that share the budget.
    :param on_budget: the end of a run whose budget is used up.
    """

    max_calls: int | None = None
    max_cost: float | None = None
    period: BudgetPeriod = BudgetPeriod.RUN
    on_budget: OnBudget = OnBudget.STOP

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.max_calls is not None or self.max_cost is not None

    def check_price(self, price_per_thousand: float | None, conn_id: str) -> None:
        """Check that the price is known if the budget is one of money.

        :raises ConfigurationError: it is not.
        """
        if self.max_cost is not None and price_per_thousand is None:
            raise ConfigurationError(
                f"max_cost={self.max_cost:g} needs the price of a call. Set price_per_thousand in "
                f"the connection {conn_id!r}, or use max_calls."
            )

    def end_early(self, progress: str) -> None:
        """Say that a run ends before its last image, because the budget is used up.

        :param progress: of the run, as the log shows it.
        :raises BudgetUsedUpError: the task is to fail then.
        """
        message = (
            f"The budget is used up ({self.describe()}), so this run ends before its last image: "
            f"{progress}. The images that are left stay new, for the next period or a larger "
            "budget."
        )
        if self.on_budget is OnBudget.FAIL:
            raise BudgetUsedUpError(message)
        log.warning(message)

    def left(self, spent: Spending, price_per_thousand: float | None) -> int:
        """Return the number of calls that are left; below 0 if too many were made or set aside.

        :param spent: all calls that count, those of the run that asks among them.
        :param price_per_thousand: price of its calls.
        """
        left = UNLIMITED
        if self.max_calls is not None:
            left = self.max_calls - spent.calls
        if self.max_cost is not None and price_per_thousand:
            calls = (self.max_cost - spent.cost) / price_per_thousand * 1000
            left = min(left, math.floor(calls + ROUNDING * max(1.0, abs(calls))))
        return left

    def scope(self, record: RunRecord) -> SpendingScope | None:
        """Return the runs of the store that share the budget; None for this run alone.

        :param record: the run that asks.
        """
        started: datetime = record.started_at
        midnight = started.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period is BudgetPeriod.DAY:
            return SpendingScope(since=midnight)
        if self.period is BudgetPeriod.MONTH:
            return SpendingScope(since=midnight.replace(day=1))
        return None if record.dag_id is None else SpendingScope(task=record)

    def describe(self) -> str:
        """Return the budget for messages."""
        limits = []
        if self.max_calls is not None:
            limits.append(f"max_calls={self.max_calls:,}")
        if self.max_cost is not None:
            limits.append(f"max_cost={self.max_cost:g}")
        return f"{' and '.join(limits)} for each {self.period}"


NO_BUDGET = Budget()


class OwnBudget:
    """Counts the calls of one run against a budget that it shares with none.

    :param budget: the budget.
    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    """

    def __init__(self, budget: Budget, price_per_thousand: float | None) -> None:
        self._budget = budget
        self._price = price_per_thousand
        self._granted = 0

    def reserve(self, wanted: int) -> int:
        """Set calls aside, and return how many; 0 if none are left.

        :param wanted: number of calls that the run would like.
        """
        spent = Spending(self._granted, self._granted * (self._price or 0.0) / 1000)
        granted = max(0, min(wanted, self._budget.left(spent, self._price)))
        self._granted += granted
        return granted


def own_budget(budget: Budget, price_per_thousand: float | None) -> OwnBudget | None:
    """Return the budget of a run without a record; None for no limit.

    :raises ConfigurationError: the budget is one of several runs.
    """
    if not budget.is_limited:
        return None
    if budget.period is not BudgetPeriod.RUN:
        raise ConfigurationError(
            f"budget_period={budget.period.value!r} needs a store that keeps runs. Use "
            "SqlLabelStore or ParquetLabelStore, or budget_period='run'."
        )
    return OwnBudget(budget, price_per_thousand)


def parse_budget(max_calls: Any, max_cost: Any, budget_period: Any, on_budget: Any) -> Budget:
    """Return the budget that four parameters of the operator describe.

    :raises ConfigurationError: a parameter has a value that is not allowed.
    """
    return Budget(
        CALLS.parse_whole("max_calls", max_calls),
        COST.parse("max_cost", max_cost),
        _choice("budget_period", budget_period, BudgetPeriod),
        _choice("on_budget", on_budget, OnBudget),
    )


def _choice(name: str, value: Any, kind: type[E]) -> E:
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be one of {', '.join(kind)}, not {value!r}."
        ) from None
