"""Asks every route of the pages in Airflow's own application, as readers of each role; prints JSON.

Runs in a process of its own: Airflow reads its configuration and plugins once.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

ROLES = ("none", "viewer", "user", "op", "admin")


def main() -> None:
    """Print the status, the policy and the length of each answer by role and path."""
    from airflow.utils.db import initdb

    initdb()
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from starlette.testclient import TestClient

    client = TestClient(create_app(apps="core"), raise_server_exceptions=False)
    manager: Any = get_auth_manager()
    tokens: dict[str, str | None] = {"anonymous": None, "forged": "x.y.z"}
    for role in ROLES:
        named = None if role == "none" else role
        tokens[role] = manager.generate_jwt(SimpleAuthManagerUser(username=role, role=named))
    found: dict[str, dict[str, Any]] = {}
    for role, token in tokens.items():
        client.cookies.clear()
        if token is not None:
            client.cookies.set("_token", token)
        for path in sys.argv[1:]:
            answer = client.get(f"/imagetag{path}", follow_redirects=False)
            found.setdefault(role, {})[path] = {
                "status": answer.status_code,
                "policy": answer.headers.get("content-security-policy"),
                "nosniff": answer.headers.get("x-content-type-options"),
                "referrer": answer.headers.get("referrer-policy"),
                "tells": "product_labels" in answer.text,
            }
    posted = client.post("/imagetag/products/gallery").status_code
    plugins = client.get("/api/v2/plugins").json()
    views = [view for plugin in plugins["plugins"] for view in plugin["external_views"]]
    print(json.dumps({"found": found, "posted": posted, "views": views}))


if __name__ == "__main__":
    main()
