"""Measure the labels of products against those that people have given, once a week.

The table `product_truth` has the columns `sku` and `label`: a row for each label that a product
really has, and a row without a label for a product that has none. The task makes no calls. The last
task prints the scores and the lowest probability of each label from which on nine of ten are right.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.evaluation import TruthTable
from airflow_imagetag.operators.evaluate import ImageTagEvaluateOperator
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="evaluate_labels",
    description="Measures the labels of products",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["imagetag", "example"],
) as dag:
    evaluate = ImageTagEvaluateOperator(
        task_id="evaluate",
        store=SqlLabelStore("warehouse", table="product_labels"),
        truth=TruthTable("warehouse", table="product_truth", key="sku"),
        min_precision=0.9,
    )

    @task
    def report(ti: Any = None) -> None:
        """Print the scores over all labels, and the thresholds."""
        summary = ti.xcom_pull(task_ids="evaluate", key="summary")
        print(f"{summary['images']} products measured, {summary['missing']} without an answer")
        for scores in summary["micro"]:
            print(scores)
        print(ti.xcom_pull(task_ids="evaluate", key="label_thresholds"))

    evaluate >> report()
