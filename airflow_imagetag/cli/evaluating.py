"""Private: ``airflow-imagetag evaluate``."""

from __future__ import annotations

import argparse
from typing import IO, Any

from airflow_imagetag.cli.places import existing_store_of, truth_of
from airflow_imagetag.cli.screen import records, show, show_json
from airflow_imagetag.errors import ConfigurationError

DEFAULT_THRESHOLDS = (0.5,)


def evaluate(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Measure the labels of a store, and print the scores."""
    from airflow_imagetag import evaluation

    if arguments.write_label_map and not arguments.precision:
        raise ConfigurationError("--write-label-map needs --precision, which the thresholds reach.")
    store, truth = existing_store_of(arguments.store), truth_of(arguments.truth)

    def measured(api: str | None) -> Any:
        found = evaluation.evaluate(
            store, truth, api=api, thresholds=arguments.threshold or DEFAULT_THRESHOLDS
        )
        return found.reviewed() if arguments.reviewed else found

    found = measured(arguments.api)
    tables = {"labels": found.labels, "micro": found.micro, "macro": found.macro}
    threshold = found.thresholds[0]
    tables[f"confusions from {threshold:g} on"] = found.confusions(threshold)
    if len(found.unreviewed):
        tables["labels that the truth never has"] = found.unreviewed
    if arguments.precision:
        tables[f"thresholds for a precision of {arguments.precision:g}"] = found.threshold_for(
            arguments.precision
        )
    if arguments.other_api:
        compared = found.compared_with(measured(arguments.other_api))
        tables[f"{found.api} and {arguments.other_api}"] = compared
    if arguments.write_label_map:
        found.label_map(arguments.precision).to_csv(arguments.write_label_map, index=False)
    if arguments.json:
        shown = {title: records(table) for title, table in tables.items()}
        show_json({**found.summary(), **shown}, out)
        return 0
    print(
        f"{found.api}: {len(found.image_keys):,} images measured, "
        f"{len(found.missing_keys):,} without an answer",
        file=out,
    )
    for title, table in tables.items():
        if len(table):
            print(file=out)
            show(records(table), out, title=title)
    return 0
