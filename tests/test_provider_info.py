"""The provider information: Airflow's own schema, its own commands and its own form."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata, resources

import airflow
import jsonschema
import pytest
from surface import PUBLIC_MODULES

from airflow_imagetag.adapters.connection_form import connection_form_widgets, ui_field_behaviour
from airflow_imagetag.get_provider_info import get_provider_info

AIRFLOW_2 = airflow.__version__.startswith("2.")
PARTS = ("hooks", "operators", "sensors", "triggers")
FIELDS = {
    "app_id",
    "bucket",
    "api",
    "requests_per_second",
    "max_in_flight",
    "timeout_seconds",
    "price_per_thousand",
    "image_encoding",
    "proxy",
    "quota_conn_id",
    "quota_fallback_share",
    "verify",
    "region",
    "scenes",
    "token",
    "credentials",
    "role",
    "sign_payload",
    "model",
    "classes",
    "threads",
}


FOR_LOCAL = {"model", "classes", "threads"}
"""Fields of a local model; the account keeps them as one."""


@pytest.fixture(scope="module")
def connection_type() -> dict:
    """Return the only connection type that the package declares."""
    [declared] = get_provider_info()["connection-types"]
    return declared


@pytest.fixture(scope="module")
def airflow_command(tmp_path_factory):
    """Return a function that runs an ``airflow`` command and gives its JSON output."""
    home = tmp_path_factory.mktemp("airflow")
    env = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }

    def run(*arguments: str) -> list[dict]:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments, "--output", "json"],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        # Log lines may come before the answer, which is a list that starts a line of its own.
        start = 0 if done.stdout.startswith("[{") else done.stdout.index("\n[{") + 1
        return json.loads(done.stdout[start:])

    return run


def airflows_schema(name: str) -> dict:
    """Return a JSON schema that the installed Airflow carries."""
    return json.loads(resources.files("airflow").joinpath(name).read_text())


def class_names(info: dict) -> list[str]:
    """Return every class and decorator that the provider information names."""
    return [
        *(item["hook-class-name"] for item in info["connection-types"]),
        *(item["class-name"] for item in info["task-decorators"]),
        *(item[name] for item in info["asset-uris"] for name in ("handler", "factory")),
    ]


def modules(info: dict) -> list[str]:
    """Return every module that the provider information lists."""
    return [m for part in PARTS for item in info.get(part, []) for m in item["python-modules"]]


def test_provider_info_passes_airflows_own_schema():
    """The provider information passes the check that Airflow makes at start-up."""
    jsonschema.validate(get_provider_info(), airflows_schema("provider_info.schema.json"))


def test_field_behaviour_passes_airflows_own_schema():
    """The form's behaviour has the shape that both Airflow versions accept."""
    schema = airflows_schema("customized_form_field_behaviours.schema.json")
    jsonschema.validate(ui_field_behaviour(), schema)


def test_provider_info_is_json_and_new_at_each_call():
    """Airflow adds to the dictionary that it gets, so each reader gets a new one."""
    first = get_provider_info()
    first["connection-types"][0]["conn-fields"].clear()
    assert set(get_provider_info()["connection-types"][0]["conn-fields"]) == FIELDS
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


@pytest.mark.parametrize("name", class_names(get_provider_info()))
def test_every_class_that_is_named_exists(name):
    """Each class that Airflow will import by name can be imported."""
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", modules(get_provider_info()))
def test_every_module_that_is_listed_exists(name):
    """Each module that Airflow lists can be imported and has a docstring."""
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_package_is_listed(part):
    """Airflow is told of every module with a hook, an operator, a sensor or a trigger."""
    [item] = get_provider_info()[part]
    public = [name for name in PUBLIC_MODULES if name.startswith(f"airflow_imagetag.{part}.")]
    assert item["python-modules"] == public


def test_asset_uris_are_declared_under_both_names():
    """Assets of Airflow 3 are datasets in Airflow 2.11."""
    info = get_provider_info()
    assert info["asset-uris"] == info["dataset-uris"]
    assert info["asset-uris"][0]["schemes"] == ["imagetag"]


def asset_uri_resources() -> tuple[dict, dict | None]:
    """Return Airflow's handlers and factories of asset URIs; 2.11 has no factories."""
    if AIRFLOW_2:
        from airflow.providers_manager import ProvidersManager

        return ProvidersManager().dataset_uri_handlers, None
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    manager = ProvidersManagerTaskRuntime()
    return manager.asset_uri_handlers, manager.asset_factories


def test_airflow_finds_the_handler_of_our_asset_uris():
    """Airflow's provider manager has our functions for the scheme ``imagetag``."""
    from airflow_imagetag.assets import create_asset, sanitize_uri

    handlers, factories = asset_uri_resources()
    assert handlers["imagetag"] is sanitize_uri
    assert factories is None or factories["imagetag"] is create_asset


def test_an_asset_named_by_its_uri_is_the_stores_own():
    """A URI, with or without a slash at its end, names the same asset as the store."""
    from airflow.providers.common.compat.sdk import Asset

    from airflow_imagetag.assets import create_asset
    from airflow_imagetag.stores import SqlLabelStore

    store = SqlLabelStore("warehouse", table="labels", schema="shop")
    assert Asset("imagetag://warehouse/shop/labels") == store.asset
    assert Asset("imagetag://warehouse/shop/labels/").uri == store.asset.uri
    assert create_asset(conn_id="warehouse", table="labels", schema="shop") == store.asset


@pytest.mark.parametrize("uri", ["imagetag://warehouse", "imagetag://warehouse/a/b/c"])
def test_a_uri_that_names_no_label_table_is_refused(uri):
    """Airflow 3 refuses the URI, Airflow 2.11 warns; both say how to write it."""
    from airflow.providers.common.compat.sdk import Asset

    refused = (
        pytest.warns(UserWarning, match="connection/table")
        if AIRFLOW_2
        else pytest.raises(ValueError, match="connection/table")
    )
    with refused:
        Asset(uri)


def test_every_integration_is_declared():
    """A module is listed under an integration that the package declares."""
    info = get_provider_info()
    declared = {item["integration-name"] for item in info["integrations"]}
    used = {item["integration-name"] for part in PARTS for item in info.get(part, [])}
    assert used <= declared


def test_the_secret_key_goes_into_the_password_field(connection_type):
    """SecretKey is the field that Airflow masks and encrypts, not one of the extra's."""
    relabeling = connection_type["ui-field-behaviour"]["relabeling"]
    assert relabeling["password"] == "SecretKey"
    assert relabeling["login"] == "SecretId"
    assert not {"secret_key", "secret_id"} & set(connection_type["conn-fields"])


def test_each_default_satisfies_the_schema_of_its_field(connection_type):
    """A form that is saved unchanged holds valid values."""
    for field in connection_type["conn-fields"].values():
        jsonschema.Draft202012Validator.check_schema(field["schema"])
        jsonschema.validate(field["schema"].get("default"), field["schema"])
        assert field["label"]
        assert field["description"]


def test_the_defaults_of_the_form_are_those_of_the_parser(connection_type):
    """The form shows the value that the parser takes for an empty field."""
    from airflow_imagetag.services.account import Account

    account = Account(app_id="1", secret_id="i", secret_key="k")
    shown = {
        name: field["schema"].get("default")
        for name, field in connection_type["conn-fields"].items()
    }
    assert shown.pop("app_id") is None, "an account's number has no default"
    for name in ("verify", "sign_payload"):
        assert (shown.pop(name), getattr(account, name)) == ("true", True)
    assert shown.pop("requests_per_second") is None, "it depends on the api"
    assert {shown.pop(name) for name in FOR_LOCAL} == {None}
    assert shown == {name: getattr(account, name) or None for name in shown}


def test_the_hook_agrees_with_the_declaration(connection_type):
    """Airflow warns, and drops the hook, when class and declaration differ."""
    from airflow_imagetag.hooks.imagetag import ImageTagHook

    assert ImageTagHook.conn_type == connection_type["connection-type"]
    assert ImageTagHook.hook_name == connection_type["hook-name"]


def test_the_form_proposes_every_interface_and_forbids_none(connection_type):
    """An enum would refuse the interfaces of other packages; proposals refuse nothing."""
    from airflow_imagetag.services.account import DEFAULT_API
    from airflow_imagetag.services.registry import BUILT_IN

    field = connection_type["conn-fields"]["api"]
    assert sorted(field["schema"]["examples"]) == sorted([*BUILT_IN, "local"])
    assert field["schema"]["default"] == field["schema"]["examples"][0] == DEFAULT_API
    assert "enum" not in field["schema"]
    assert all(api in field["description"] for api in BUILT_IN)
    jsonschema.validate("of-another-package", field["schema"])


def test_the_form_offers_the_values_that_the_parser_takes(connection_type):
    """Where a field has a closed list, it is the parser's, and the help names every scene."""
    from airflow_imagetag.services.account import CREDENTIALS, IMAGE_ENCODINGS
    from airflow_imagetag.services.tiia.detect_label import SCENES

    fields = connection_type["conn-fields"]
    assert set(fields["credentials"]["schema"]["enum"]) == CREDENTIALS
    assert set(fields["image_encoding"]["schema"]["enum"]) == IMAGE_ENCODINGS
    assert ", ".join(SCENES) in fields["scenes"]["description"]


def test_the_form_has_each_name_that_the_extra_may_hold(connection_type):
    """The parser reads each field that the form stores, and warns of none."""
    from airflow_imagetag.services.account import EXTRA_NAMES

    assert set(connection_type["conn-fields"]) == EXTRA_NAMES | FOR_LOCAL


def test_secrets_of_the_extra_are_typed_like_passwords(connection_type):
    """The form hides a token, and a proxy's URL, as it hides a password."""
    fields = connection_type["conn-fields"]
    secret = {name for name, field in fields.items() if "format" in field["schema"]}
    assert secret == {"proxy", "token"}


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2.11 asks the hook for its form")
def test_airflow_3_builds_the_form_without_importing_the_hook():
    """On Airflow 3 the form comes from the declaration, defaults included."""
    from airflow.providers_manager import ProvidersManager

    widgets = ProvidersManager().connection_form_widgets
    ours = {key: info for key, info in widgets.items() if key.startswith("extra__imagetag__")}
    assert {info.field_name for info in ours.values()} == FIELDS
    assert ours["extra__imagetag__timeout_seconds"].field["value"] == 30
    assert ours["extra__imagetag__proxy"].is_sensitive
    assert ours["extra__imagetag__token"].is_sensitive
    assert ours["extra__imagetag__api"].field["schema"]["examples"]


@pytest.mark.skipif(not AIRFLOW_2, reason="Flask-AppBuilder's form is that of Airflow 2.11")
def test_airflow_2_takes_every_widget():
    """On Airflow 2.11 the hook's widgets are of the classes that Airflow accepts."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    # Widgets are gathered when the hooks are imported, and reading the hook imports it.
    hook = manager.hooks["imagetag"]
    assert hook is not None
    assert hook.hook_name == "Image labels (ImageTag)"
    ours = {key for key in manager.connection_form_widgets if key.startswith("extra__imagetag__")}
    assert ours == {f"extra__imagetag__{name}" for name in FIELDS}
    assert manager.field_behaviours["imagetag"]["relabeling"]["password"] == "SecretKey"


@pytest.mark.skipif(not AIRFLOW_2, reason="Flask-AppBuilder's form is that of Airflow 2.11")
@pytest.mark.parametrize(
    ("name", "text", "valid"),
    [
        ("requests_per_second", "0.5", True),
        ("requests_per_second", "", True),
        ("requests_per_second", "many", False),
        ("max_in_flight", "0", False),
        ("max_in_flight", "", True),
        ("api", "picture_classify", True),
        ("api", "DetectLabelPro", True),
        ("api", "of-another-package", True),
        ("credentials", "cvm_role", True),
        ("credentials", "", True),
        ("credentials", "somewhere", False),
        ("image_encoding", "gzip", False),
        ("scenes", "WEB,NEWS", True),
        ("verify", "/etc/ssl/ca.pem", True),
    ],
)
def test_the_form_of_airflow_2_has_the_limits_of_the_schema(name, text, valid):
    """The 2.11 form holds the limits of the JSON schema, and takes an empty field as unset."""
    from werkzeug.datastructures import MultiDict
    from wtforms import Form

    form = type("OneField", (Form,), {name: connection_form_widgets()[name]})
    assert form(MultiDict({name: text})).validate() is valid


def test_airflow_lists_the_provider(airflow_command):
    """``airflow providers list`` shows the package with its version."""
    [ours] = [
        row
        for row in airflow_command("providers", "list")
        if row["package_name"] == "airflow-provider-imagetag"
    ]
    assert ours["version"] == metadata.version("airflow-provider-imagetag")


def test_airflow_shows_the_provider(airflow_command):
    """``airflow providers get`` finds the package by its distribution's name."""
    [ours] = airflow_command("providers", "get", "airflow-provider-imagetag")
    assert ours["Provider"] == "airflow-provider-imagetag"
    assert ours["Version"] == metadata.version("airflow-provider-imagetag")


def test_airflow_lists_the_hook(airflow_command):
    """``airflow providers hooks`` shows the connection type with the class behind it."""
    [ours] = [
        row for row in airflow_command("providers", "hooks") if row["connection_type"] == "imagetag"
    ]
    assert ours["class"] == "airflow_imagetag.hooks.imagetag.ImageTagHook"
    assert ours["hook_name"] == "Image labels (ImageTag)"
    assert ours["conn_id_attribute_name"] == "imagetag_conn_id"


def test_airflow_lists_the_trigger(airflow_command):
    """``airflow providers triggers`` shows the module."""
    listed = {row["class"] for row in airflow_command("providers", "triggers")}
    assert "airflow_imagetag.triggers.imagetag" in listed


def test_the_installed_entry_point_is_this_module():
    """Airflow finds the description through the distribution's entry point."""
    [point] = metadata.entry_points(group="apache_airflow_provider", name="provider_info").select(
        value="airflow_imagetag.get_provider_info:get_provider_info"
    )
    assert point.load() is get_provider_info


def test_no_local_path_is_allowed_unless_configured():
    """No folder of the worker's disk is readable until the configuration names one."""
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    assert conf.get("imagetag", "allowed_local_paths") == ""
