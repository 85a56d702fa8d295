"""Private: the description of this package for Airflow; read at start-up, so it imports nothing."""

from __future__ import annotations

from typing import Any

_DOCUMENTATION = "https://airflow-provider-imagetag.readthedocs.io/en/stable/"
_INTEGRATION = "Tencent Cloud image labels"
_CONNECTION_NAME = "Image labels (ImageTag)"

_ASSET_URIS = {
    "schemes": ["imagetag"],
    "handler": "airflow_imagetag.assets.sanitize_uri",
    "factory": "airflow_imagetag.assets.create_asset",
    "to_openlineage_converter": "airflow_imagetag.assets.convert_asset_to_openlineage",
}


def get_provider_info() -> dict[str, Any]:
    """Return the description for the ``apache_airflow_provider`` entry point."""
    return {
        "package-name": "airflow-provider-imagetag",
        "name": "Image labels (ImageTag)",
        "description": (
            "Labels images with the `Tencent Cloud image label service "
            "<https://cloud.tencent.com/document/product/865>`__ and keeps the labels as a table.\n"
        ),
        # Airflow 3 takes it from the package's metadata.
        "documentation-url": _DOCUMENTATION,
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://cloud.tencent.com/document/product/865",
                "logo": f"{_DOCUMENTATION}_static/logo.svg",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_imagetag.hooks.imagetag"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_imagetag.operators.evaluate",
                    "airflow_imagetag.operators.imagetag",
                    "airflow_imagetag.operators.sync",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_imagetag.sensors.imagetag"],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_imagetag.triggers.imagetag"],
            }
        ],
        "extra-links": ["airflow_imagetag.links.imagetag.ImageLabelsLink"],
        "plugins": [
            {"name": "imagetag", "plugin-class": "airflow_imagetag.ui.plugin.ImageTagPlugin"}
        ],
        "notifications": ["airflow_imagetag.notifications.imagetag.ImageTagNotifier"],
        # Read by Airflow 3.2 and newer.
        "cli": ["airflow_imagetag.cli.definition.get_imagetag_cli_commands"],
        "asset-uris": [_ASSET_URIS],
        # Airflow 2's name of the same.
        "dataset-uris": [_ASSET_URIS],
        "task-decorators": [
            {
                "name": "image_tag",
                "class-name": "airflow_imagetag.decorators.imagetag.image_tag_task",
            }
        ],
        "connection-types": [
            {
                "connection-type": "imagetag",
                "hook-class-name": "airflow_imagetag.hooks.imagetag.ImageTagHook",
                "hook-name": _CONNECTION_NAME,
                "ui-field-behaviour": _field_behaviour(),
                "conn-fields": _connection_fields(),
            }
        ],
        "config": {"imagetag": {"description": _CONFIG_TEXT, "options": _config_options()}},
    }


def _field_behaviour() -> dict[str, Any]:
    return {
        "hidden-fields": [],
        "relabeling": {
            "login": "SecretId",
            "password": "SecretKey",
            "host": "Endpoint host",
            "schema": "Scheme (https or http)",
        },
        "placeholders": {
            "host": "empty: that of the API",
            "schema": "https",
            "login": "AKID...",
        },
    }


def _connection_fields() -> dict[str, Any]:
    """Return the fields of the connection's extra.

    ``verify`` is a text, since it may be the path of a CA file: a switch would overwrite the path
    when the connection is edited.
    """
    return {
        "api": {
            "label": "API",
            "description": (
                "The interface: DetectLabelPro, DetectLabel, ci_detect_label, picture_classify, "
                "imagetag_detect, or one that another package adds; or local, a model on the "
                "worker."
            ),
            # Examples, since an enum would refuse the interfaces of other packages.
            "schema": {
                "type": ["string", "null"],
                "default": "DetectLabelPro",
                "examples": [
                    "DetectLabelPro",
                    "DetectLabel",
                    "ci_detect_label",
                    "picture_classify",
                    "imagetag_detect",
                    "local",
                ],
            },
        },
        "app_id": {
            "label": "AppID",
            "description": (
                "The account's number, such as 1250000001. Required by picture_classify and "
                "imagetag_detect."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "bucket": {
            "label": "Bucket",
            "description": (
                "The bucket whose objects ci_detect_label labels, such as photos-1250000001. Empty "
                "for the others, but for older accounts of picture_classify and imagetag_detect."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "region": {
            "label": "Region",
            "description": "Region of DetectLabelPro, DetectLabel and the bucket.",
            "schema": {"type": ["string", "null"], "default": "ap-guangzhou"},
        },
        "scenes": {
            "label": "Scenes",
            "description": (
                "Scenes of DetectLabel and ci_detect_label, with commas: WEB, CAMERA, ALBUM, NEWS. "
                "Each is billed as a call. Empty: WEB for DetectLabel, CAMERA for ci_detect_label."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "credentials": {
            "label": "Credentials",
            "description": (
                "Where DetectLabelPro and DetectLabel take the keys from: SecretId and SecretKey "
                "above, or a role of the machine, of another account or of a pod."
            ),
            "schema": {
                "type": ["string", "null"],
                "default": "keys",
                "enum": ["keys", "cvm_role", "assume_role", "tke_oidc"],
            },
        },
        "role": {
            "label": "Role",
            "description": "The ARN of the role for assume_role, or its name for cvm_role.",
            "schema": {"type": ["string", "null"]},
        },
        "token": {
            "label": "Token",
            "description": (
                "Goes with temporary keys of DetectLabelPro, DetectLabel and ci_detect_label."
            ),
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "requests_per_second": {
            "label": "Requests per second",
            "description": (
                "The account's quota. 0 sets no limit on this side. Empty: 20, or no limit for a "
                "local model."
            ),
            # No default: the form would store it, and slow a local model down.
            "schema": {"type": ["number", "null"], "minimum": 0},
        },
        "quota_conn_id": {
            "label": "Quota connection",
            "description": (
                "A Redis or SQL connection through which all workers share the quota. Empty: each "
                "task has the quota for itself."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "quota_fallback_share": {
            "label": "Quota fallback share",
            "description": (
                "Share of the quota, such as 0.25, that each task takes while the quota connection "
                "is out of reach. Empty: the task fails."
            ),
            "schema": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "maximum": 1,
            },
        },
        "max_in_flight": {
            "label": "Requests in flight",
            "description": "Most requests that a task has open at a time. Empty: the task chooses.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "timeout_seconds": {
            "label": "Timeout in seconds",
            "description": "For one request, from connecting to the end of the answer.",
            "schema": {"type": ["number", "null"], "default": 30, "exclusiveMinimum": 0},
        },
        "price_per_thousand": {
            "label": "Price of 1,000 calls",
            "description": "Your price, in your currency. Used for the estimated cost of a run.",
            "schema": {"type": ["number", "null"], "minimum": 0},
        },
        "image_encoding": {
            "label": "Image encoding",
            "description": (
                "How picture_classify gets bytes: as they are (multipart) or, for a gateway that "
                "does not pass multipart on, as base64, which is a third larger."
            ),
            "schema": {
                "type": ["string", "null"],
                "default": "multipart",
                "enum": ["multipart", "base64"],
            },
        },
        "sign_payload": {
            "label": "Sign the images",
            "description": (
                "Whether DetectLabelPro and DetectLabel sign the body of a request. false saves "
                "the digest of each image; https protects it all the same."
            ),
            "schema": {"type": ["string", "null"], "default": "true", "enum": ["true", "false"]},
        },
        "proxy": {
            "label": "Proxy",
            "description": "URL of an HTTP proxy. Empty: the proxy of the environment, if any.",
            # A proxy's URL may hold a password.
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "model": {
            "label": "Model",
            "description": (
                "For the API local: path or URI of an ONNX file. Empty: EfficientNet-Lite0."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "classes": {
            "label": "Classes",
            "description": (
                "For the API local: path or URI of the names of the model's classes, or "
                "imagenet-1k. Empty: the names that the model holds."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "threads": {
            "label": "Threads",
            "description": (
                "For the API local: images that are labelled at the same time. Empty: the cores "
                "that the worker may use."
            ),
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "true, false, or the path of a file of certificate authorities.",
            "schema": {"type": ["string", "null"], "default": "true"},
        },
    }


_CONFIG_TEXT = "Settings of the image-label provider.\n"


def _config_options() -> dict[str, Any]:
    return {
        "allowed_local_paths": {
            "description": (
                "Absolute folders under which a task may read images from the worker's own disk,\n"
                "separated by colons or commas. Image names come from data, so nothing is allowed\n"
                "unless it is listed here.\n"
            ),
            "version_added": "0.1.0",
            "type": "string",
            "example": "/data/photos:/mnt/images",
            "default": "",
        },
        "allowed_private_hosts": {
            "description": (
                "Hosts of private networks that a task with fetch='worker' may download images\n"
                "from, names or addresses as they stand in the URL, separated by commas.\n"
            ),
            "version_added": "0.1.0",
            "type": "string",
            "example": "images.intranet.example,10.1.2.3",
            "default": "",
        },
        "allowed_connections": {
            "description": (
                "Storage connections that image URIs from data, such as s3://my_s3@bucket/key in\n"
                "a table, may name, separated by commas; none for no connection. Empty: all\n"
                "connections of the storage's own type. What the DAG file itself names is always\n"
                "allowed.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "photos_s3,archive_s3",
            "default": "",
        },
        "checkpoint_path": {
            "description": (
                "Folder on any object storage where a task without a store keeps its paid answers\n"
                "until it succeeds, so that a retry goes on where the last try stopped. Empty\n"
                "keeps nothing.\n"
            ),
            "version_added": "0.1.0",
            "type": "string",
            "example": "s3://aws_default@airflow/imagetag-checkpoints",
            "default": "",
        },
        "model_cache_path": {
            "description": (
                "Folder of the worker that keeps local models: the graph that is built once from\n"
                "the packaged weights, and copies of models of object storages. Empty: the folder\n"
                "airflow-provider-imagetag in XDG_CACHE_HOME, or in ~/.cache.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "/var/cache/imagetag",
            "default": "",
        },
        "max_result_rows": {
            "description": (
                "Labels that a task without a store may return. As Airflow keeps a DataFrame, the\n"
                "default makes about 15 MB in the metadata database.\n"
            ),
            "version_added": "0.1.0",
            "type": "integer",
            "example": None,
            "default": "500000",
        },
        "retry_pauses": {
            "description": (
                "With a store, the pauses before an image is tried again whose link is dead or\n"
                "that the storage or the service failed for. The last pause is repeated. Numbers\n"
                "with s, m, h or d, separated by commas.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "30m, 6h, 2d",
            "default": "1h, 4h, 1d, 3d, 7d",
        },
        "give_up_after": {
            "description": (
                "Time after the first failure when such an image is given up: it is tried again\n"
                "only when its version changes, or with retry_failed.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "90d",
            "default": "30d",
        },
        "ui_stores": {
            "description": (
                "Stores that Airflow's UI shows to everyone who may see assets (Airflow 3.1 and\n"
                "newer): NAME = PLACE, separated by commas or in lines. A place is CONN_ID:TABLE,\n"
                "the folder of a Parquet dataset, or delta:FOLDER. Empty: no page.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "products = warehouse:product_labels, photos = s3://aws_default@lake/labels",
            "default": "",
        },
        "ui_fetch_urls": {
            "description": (
                "Whether reports and pages may download images behind http(s) URLs to show small\n"
                "pictures of them. Private networks stay refused, but for allowed_private_hosts.\n"
            ),
            "version_added": "0.2.0",
            "type": "boolean",
            "example": None,
            "default": "False",
        },
        "user_agent": {
            "description": (
                "Header User-Agent of the images that fetch='worker' downloads. Empty:\n"
                "airflow-provider-imagetag and its version.\n"
            ),
            "version_added": "0.2.0",
            "type": "string",
            "example": "our-shop-images/1.0",
            "default": "",
        },
    }
