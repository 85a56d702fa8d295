"""Private: the counts of a run for OpenLineage, metrics and traces."""
