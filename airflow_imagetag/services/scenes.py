"""Interfaces whose labels depend on the scene of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Service


class SceneService(Service):
    """A service that is asked for one scene or several; the vendor bills each scene as a call."""

    known_scenes: ClassVar[Mapping[str, str]]
    """Scenes, each with the part of the response that has its labels."""

    default_scene: ClassVar[str]
    """The scene of a connection that names none."""

    @classmethod
    def scene_errors(cls, account: Account) -> Iterator[str]:
        """Yield a reason to refuse an account with a scene that the interface does not have."""
        if unknown := [scene for scene in account.scenes if scene not in cls.known_scenes]:
            known = ", ".join(cls.known_scenes)
            yield f"scenes in extra must be of {known}, not {', '.join(unknown)}"

    @property
    def calls_per_image(self) -> int:
        """One for each scene."""
        return len(self.scenes)

    @property
    def scenes(self) -> tuple[str, ...]:
        """The scenes that each image is labelled for."""
        return self.account.scenes or (self.default_scene,)
