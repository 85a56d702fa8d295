"""Headers and the limit of an answer that both HTTP clients share."""

from __future__ import annotations

from airflow_imagetag import __version__

USER_AGENT = f"airflow-provider-imagetag/{__version__}"
"""Tells servers which client asks."""

CLIENT_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
"""Headers of every request. An answer of a few kilobytes gains nothing from being packed."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Maximum size of an answer of the service. Labels of one image are a few kilobytes, and so are
errors; the size is also the limit of the memory that one call can use up."""
