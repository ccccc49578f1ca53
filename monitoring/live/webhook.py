"""One HTTP POST of JSON to where people want to be told. The URL is a secret."""

from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from monitoring.live.errors import WebhookFailed

TIMEOUT_S: Final = 10.0


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would send the message, and the secret in its path, somewhere else."""

    def redirect_request(self, *_args: object) -> None:
        return None


def post(url: str, message: object, timeout_s: float = TIMEOUT_S) -> None:
    """Send a message as JSON. Raises ``WebhookFailed``, whose text does not show the URL."""
    if not url.startswith(("http://", "https://")):
        raise WebhookFailed("the webhook's URL does not begin with http:// or https://")
    try:
        request = Request(  # noqa: S310  the scheme is checked above
            url,
            data=msgspec.json.encode(message),
            headers={"Content-Type": "application/json", "User-Agent": "treeline"},
            method="POST",
        )
        with build_opener(_NoRedirect).open(request, timeout=timeout_s):
            return
    except HTTPError as error:
        error.close()
        raise WebhookFailed(f"the webhook answered {error.code}") from None
    except (URLError, OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise WebhookFailed(f"the webhook cannot be reached: {type(reason).__name__}") from None
