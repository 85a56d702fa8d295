"""A package that has a service of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airflow_imagetag.errors import AuthenticationError, ImageDecodeError
from airflow_imagetag.models import Label
from airflow_imagetag.services import (
    Account,
    HttpResponse,
    Limits,
    ParsedLabels,
    Payload,
    Request,
    Service,
    find_service,
    most_probable_first,
    response_parsing,
)


class Colours(Service):
    """Names the colours of an image."""

    api = "colours"
    host = "colours.example"
    required = ("password",)

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Refuse an account without a region."""
        yield from super().validation_errors(account)
        if not account.region:
            yield "region is missing. Set it in the connection"

    @property
    def limits(self) -> Limits:
        """Return the limits of an image."""
        return Limits(max_content_bytes=1_000_000, formats=frozenset({"JPEG"}))

    def build(self, payload: Payload) -> Request:
        """Return a request with the bytes."""
        headers = {"Authorization": self.account.secret_key}
        return Request(f"{self.account.endpoint}/colours", headers, payload.content or b"")

    def read(self, response: HttpResponse) -> ParsedLabels:
        """Return the colours."""
        if response.status == 401:
            raise AuthenticationError("The key is refused.", status=401)
        document = response_parsing.json_object(response)
        if document is None:
            raise response_parsing.status_error(response, document)
        colours: Sequence[str] = document.get("colours", ())
        return ParsedLabels(most_probable_first([Label(name, 1.0) for name in colours]))

    def build_probe(self) -> Request:
        """Return a request without an image."""
        return self.build(Payload(content=b""))

    def check_probe(self, response: HttpResponse) -> None:
        """Accept the refusal of an image."""
        try:
            self.read(response)
        except ImageDecodeError:
            return


found: type[Service] = find_service("colours")
