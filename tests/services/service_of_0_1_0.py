"""A service of another package that was written for version 0.1.0, import paths included."""

from __future__ import annotations

import json
from collections.abc import Iterator

from airflow_imagetag.errors import AuthenticationError, ImageDecodeError, ThrottledError
from airflow_imagetag.models import Label
from airflow_imagetag.service import answers
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import (
    Answer,
    Limits,
    Payload,
    Reading,
    Request,
    Service,
    most_probable_first,
)

MEANINGS = {
    401: answers.Meaning(AuthenticationError, "the key is refused: check password"),
    429: answers.Meaning(ThrottledError, "more requests than the quota allows"),
}


class Acme(Service):
    """Builds and reads requests of an imaginary vendor."""

    api = "acme"
    host = "labels.acme.example"
    required = ("password",)

    @classmethod
    def complaints(cls, account: Account) -> Iterator[str]:
        """Refuse a model that does not exist."""
        yield from super().complaints(account)
        if account.extra.get("acme_model") == "v0":
            yield "acme_model in extra is too old. Take v1"

    @property
    def limits(self) -> Limits:
        """Limits of an image."""
        return Limits(max_content_bytes=10_000_000, formats=frozenset({"JPEG", "PNG"}))

    def is_quick(self, payload: Payload) -> bool:
        """Have a say in the scheduling, as a service of 0.1.0 had."""
        return super().is_quick(payload)  # type: ignore[misc]

    def build(self, payload: Payload) -> Request:
        """Send the bytes as they are."""
        headers = {"Authorization": f"Bearer {self.account.secret_key}"}
        return Request(f"{self.account.endpoint}/bytes", headers, payload.content or b"")

    def read(self, answer: Answer) -> Reading:
        """Read labels, or an error of each kind."""
        document = answers.json_object(answer)
        if answer.status in MEANINGS:
            raise answers.error(
                MEANINGS[answer.status], answer=answer, code="c", said="its words", call="r-1"
            )
        if answer.status != 200 or document is None:
            raise answers.status_error(answer, document)
        if "error" in document:
            meaning = answers.Meaning(ImageDecodeError, "the service cannot read the image")
            raise answers.error(meaning, answer, "unreadable", document["error"])
        labels = document.get("labels")
        if not isinstance(labels, list):
            raise answers.malformed(answer=answer, why="it has no labels")
        return Reading(most_probable_first([self._label(answer, item) for item in labels]))

    def _label(self, answer: Answer, item: list[object]) -> Label:
        return Label(
            answers.label_name(answer=answer, value=item[0]),
            answers.probability(answer=answer, value=item[1], scale=100.0),
            answers.text(answer=answer, value=item[2], what="a category"),
        )

    def build_probe(self) -> Request:
        """Send no bytes."""
        return self.build(Payload(content=b""))

    def check_probe(self, answer: Answer) -> None:
        """Expect the refusal of the image."""
        try:
            self.read(answer=answer)
        except ImageDecodeError:
            return
        raise answers.malformed(answer, "an empty image was labelled")


def says(document: object, status: int = 200) -> Answer:
    """Return an answer of the vendor."""
    return Answer(status=status, headers={}, body=json.dumps(document).encode())
