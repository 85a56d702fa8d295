"""The account that an emulator serves."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Account:
    """Keys that requests are signed with.

    :param app_id: AppID; V1 and V2 need it, TIIA does not.
    :param bucket: the bucket that a signature of V1 or V2 must name; empty accepts any.
    :param token: what makes the keys temporary ones: requests of TIIA must present it. Empty for
        permanent keys, which have none.
    """

    app_id: str
    secret_id: str
    secret_key: str = field(repr=False)
    bucket: str = ""
    token: str = field(default="", repr=False)
