"""One quota for all workers: ledgers of slots in Redis or in an SQL database."""

from __future__ import annotations

REMEDY = "Mend it, or set quota_fallback_share in the connection, so that tasks go on with a share."
