"""How good the labels of a store are, measured against labels that people have given."""

from __future__ import annotations

from airflow_imagetag.evaluation.measuring import evaluate
from airflow_imagetag.evaluation.scores import Evaluation
from airflow_imagetag.evaluation.truth import TruthTable

__all__ = ["Evaluation", "TruthTable", "evaluate"]
