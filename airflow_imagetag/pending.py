"""Kept for compatibility: the rules of selection under their import path of version 0.1.0."""

from __future__ import annotations

from airflow_imagetag.selection.rules import Condition, Retag, Rule, Status, Window, parse_rule
from airflow_imagetag.selection.rules import StoredState as Stored

__all__ = ["Condition", "Retag", "Rule", "Status", "Stored", "Window", "parse_rule"]
