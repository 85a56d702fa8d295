"""Kept for compatibility: the shards of a source under their import path of version 0.1.0."""

from __future__ import annotations

from airflow_imagetag.selection.shards import Shard, key_hash, parse_shard, shard_names

__all__ = ["Shard", "key_hash", "parse_shard", "shard_names"]
