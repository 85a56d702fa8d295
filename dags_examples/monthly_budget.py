"""Look at the cost of a run, and label within a budget for the month.

The first task sends nothing: it says how many products are new and what they will cost. The second
labels them, until the calls of this month are used up: what is left stays new. All DAGs that use
the store with the same limit share the budget. The last task prints what the month has cost.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

PRODUCTS = SqlImages(
    "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
)
LABELS = SqlLabelStore("warehouse", table="product_labels")

with DAG(
    dag_id="monthly_budget",
    description="Labels products within a budget for the month",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={"calls_of_a_month": 50_000},
    tags=["imagetag", "example"],
) as dag:
    look = ImageTagOperator(task_id="look", images=PRODUCTS, store=LABELS, dry_run=True)

    label = ImageTagOperator(
        task_id="label",
        images=PRODUCTS,
        store=LABELS,
        max_calls="{{ params.calls_of_a_month }}",
        budget_period="month",
    )

    @task
    def report(before: dict[str, Any], after: dict[str, Any]) -> int:
        """Print what was to be done and what was, and return the calls of all runs so far."""
        print(
            f"{before['new']} new products, {before['calls']} calls, {before['seconds_at_quota']} s"
        )
        print(f"{after['tagged']} labelled; out of budget: {after['out_of_budget']}")
        return int(sum(frame["calls"].sum() for frame in LABELS.runs()))

    look >> label
    report(look.output, label.output)
