"""The interfaces that the ``api`` of a connection can name."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_imagetag.service.base import Service
from airflow_imagetag.service.picture_classify import PictureClassify

SERVICES: Mapping[str, Service] = {service.api: service for service in (PictureClassify(),)}
