"""Private: names of Airflow, wherever the installed Airflow keeps them.

The SDK of common-compat knows them all, but only from its release 1.8 on, some of them later. The
constraints of Airflow 2.11 and 3.0 name older ones, so the places of those versions stand here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import (
        AirflowException as AirflowException,
        AirflowFailException as AirflowFailException,
        AirflowNotFoundException as AirflowNotFoundException,
        AirflowSensorTimeout as AirflowSensorTimeout,
        AirflowSkipException as AirflowSkipException,
        AirflowTaskTimeout as AirflowTaskTimeout,
        Asset as Asset,
        BaseHook as BaseHook,
        BaseNotifier as BaseNotifier,
        BaseOperator as BaseOperator,
        BaseOperatorLink as BaseOperatorLink,
        BaseSensorOperator as BaseSensorOperator,
        Connection as Connection,
        Context as Context,
        DecoratedOperator as DecoratedOperator,
        ObjectStoragePath as ObjectStoragePath,
        PokeReturnValue as PokeReturnValue,
        Stats as Stats,
        TaskDecorator as TaskDecorator,
        Variable as Variable,
        XComArg as XComArg,
        conf as conf,
        context_merge as context_merge,
        determine_kwargs as determine_kwargs,
        mask_secret as mask_secret,
        task_decorator_factory as task_decorator_factory,
    )
    from airflow.sdk import timezone as timezone
    from airflow.triggers.base import BaseEventTrigger as BaseEventTrigger

COMPAT = "airflow.providers.common.compat.sdk"

PLACES: dict[str, tuple[str, ...]] = {
    "AirflowException": ("airflow.exceptions",),
    "AirflowFailException": ("airflow.exceptions",),
    "AirflowNotFoundException": ("airflow.exceptions",),
    "AirflowOptionalProviderFeatureException": ("airflow.exceptions",),
    "AirflowPlugin": ("airflow.plugins_manager",),
    "AirflowSensorTimeout": ("airflow.exceptions",),
    "AirflowSkipException": ("airflow.exceptions",),
    "AirflowTaskTimeout": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "Asset": ("airflow.sdk", "airflow.datasets:Dataset"),
    "BaseEventTrigger": ("airflow.triggers.base", "airflow.triggers.base:BaseTrigger"),
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseNotifier": ("airflow.sdk", "airflow.notifications.basenotifier"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "Connection": ("airflow.sdk", "airflow.models.connection"),
    "Context": ("airflow.sdk", "airflow.utils.context"),
    "DecoratedOperator": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "ObjectStoragePath": ("airflow.sdk", "airflow.io.path"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "Stats": ("airflow.stats",),
    "TaskDecorator": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "Variable": ("airflow.sdk", "airflow.models.variable"),
    "XComArg": ("airflow.sdk", "airflow.models.xcom_arg"),
    "conf": ("airflow.configuration",),
    "context_merge": ("airflow.sdk.definitions.context", "airflow.utils.context"),
    "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "get_current_context": ("airflow.sdk", "airflow.operators.python"),
    "mask_secret": (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ),
    "task_decorator_factory": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "timezone": ("airflow.utils:timezone",),
}
"""For each name the modules to try after common-compat: of Airflow 3, then of 2.11. A colon
separates another name."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for place in (COMPAT, *PLACES[name]):
        module, _, renamed = place.partition(":")
        try:
            found = _named(module, renamed or name)
        except (AttributeError, ImportError):
            continue
        globals()[name] = found
        return found
    raise ImportError(f"This Airflow has no {name!r}, or common-compat does not know it.")


def _named(module: str, name: str) -> Any:
    found = import_module(module)
    # A submodule is an attribute once it is imported.
    return getattr(found, name) if hasattr(found, name) else import_module(f"{module}.{name}")


def airflow_version() -> tuple[int, int]:
    """Return the major and minor version of the installed Airflow."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)
