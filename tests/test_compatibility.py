"""Import paths that the documentation of an earlier version shows keep working."""

from __future__ import annotations

import importlib

import pytest

from airflow_imagetag import pending, shards
from airflow_imagetag.selection import rules
from airflow_imagetag.selection import shards as selection_shards

PATHS_OF_0_1_0 = {
    "airflow_imagetag": ["__version__"],
    "airflow_imagetag.assets": ["announced_images", "create_asset", "watch_images"],
    "airflow_imagetag.decorators.imagetag": ["image_tag_task"],
    "airflow_imagetag.errors": [
        "AnswerLostError",
        "AuthenticationError",
        "Billing",
        "ConfigurationError",
        "ConnectionFailedError",
        "Decision",
        "DuplicateKeyError",
        "EndpointError",
        "ImageDecodeError",
        "ImageDownloadError",
        "ImageEmptyError",
        "ImageError",
        "ImageFormatError",
        "ImageNotAllowedError",
        "ImageRefusedError",
        "ImageTagError",
        "ImageTooLargeError",
        "ImageUnreadableError",
        "InvalidImageError",
        "InvalidRequestError",
        "MalformedAnswerError",
        "OutageError",
        "ParameterTooLongError",
        "QuotaUnavailableError",
        "RequestRefusedError",
        "ResultTooLargeError",
        "RunError",
        "RunInterruptedError",
        "ServiceUnavailableError",
        "StorageError",
        "StoreError",
        "ThrottledError",
        "TooManyFailuresError",
        "TransientError",
        "UnknownCodeError",
        "UnknownConnectionError",
        "error_named",
    ],
    "airflow_imagetag.frames": [
        "FAILURE_COLUMNS",
        "LABEL_COLUMNS",
        "ORIGINAL_LABEL",
        "label_columns",
    ],
    "airflow_imagetag.hooks.imagetag": ["ImageTagHook"],
    "airflow_imagetag.models": [
        "Entry",
        "Failure",
        "Image",
        "Label",
        "RejectedImage",
        "SkippedImage",
        "TagResult",
    ],
    "airflow_imagetag.operators.imagetag": ["ImageTagOperator"],
    "airflow_imagetag.pending": ["Retag", "Rule", "Status", "Stored", "Window"],
    "airflow_imagetag.sensors.imagetag": ["NewImagesSensor"],
    "airflow_imagetag.shards": ["Shard"],
    "airflow_imagetag.sources": ["ObjectStorageImages", "SqlImages"],
    "airflow_imagetag.sources.base": ["ImageSource"],
    "airflow_imagetag.stores": ["ParquetLabelStore", "SqlLabelStore"],
    "airflow_imagetag.stores.base": ["LabelStore", "OpenStore"],
    "airflow_imagetag.testing": ["Emulator", "Faults", "Stats"],
    "airflow_imagetag.triggers.imagetag": ["NewImagesTrigger"],
    # Workers preload these modules by the `imports` of Celery's configuration.
    "airflow_imagetag.operators.run": [],
    "airflow_imagetag.sources.sql_reader": [],
    "airflow_imagetag.stores.sql_tables": [],
}


@pytest.mark.parametrize("module", sorted(PATHS_OF_0_1_0))
def test_paths_of_version_0_1_0_can_be_imported(module):
    """Each documented module has each of its documented names."""
    found = importlib.import_module(module)
    missing = [name for name in PATHS_OF_0_1_0[module] if not hasattr(found, name)]
    assert missing == []


@pytest.mark.parametrize(("kept", "present"), [(pending, rules), (shards, selection_shards)])
def test_a_kept_module_has_the_objects_of_the_present_one(kept, present):
    """Its names are those of the present module, so that `isinstance` and `is` work across both."""
    renamed = {"Stored": "StoredState"}
    for name in kept.__all__:
        assert getattr(kept, name) is getattr(present, renamed.get(name, name))
