"""Private: what is told about a run to OpenLineage, to metrics and to traces."""
