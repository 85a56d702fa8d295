"""The signature of the recognition service, versions 1 and 2 of the label API."""

from airflow_imagetag.services.recognition.signature import (
    MAX_LIFETIME_SECONDS,
    MAX_NONCE,
    ReusableSignature,
    sign,
)

__all__ = ["MAX_LIFETIME_SECONDS", "MAX_NONCE", "ReusableSignature", "sign"]
