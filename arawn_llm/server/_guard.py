"""Who may ask: Host and Origin, the rate of each client, the token. Plain ASGI."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Mapping

from arawn_llm.server._statuses import Refusal

_OPEN = frozenset({"/health", "/docs", "/openapi.json"})  # they say nothing of the files, and a browser may ask
_MOST_CLIENTS = 4096
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\s]+)(:\d{1,5})?")


class Guard:
    """Let a request pass, or refuse it."""

    def __init__(self, token: str | None, hosts: frozenset[str], origins: frozenset[str], rate: int) -> None:
        self.hosts, self.origins, self.rate = frozenset(map(str.lower, hosts)), origins, rate
        self._digest = _digest(token) if token else None
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def asks_token(self) -> bool:
        """Tell whether clients need a token."""
        return self._digest is not None

    def check(self, path: str, client: str, headers: Mapping[str, str]) -> None:
        """Check a request's head.

        Raises:
            Refusal: It may not pass.
        """
        self._check_host(headers.get("host", ""))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        if path in _OPEN:
            return
        self._check_rate(client)
        if self._digest is not None and not _holds(headers.get("authorization", ""), self._digest):
            message = "this server asks for its token: Authorization: Bearer …"
            raise Refusal(401, message, headers={"www-authenticate": "Bearer"})

    def _check_host(self, host: str) -> None:
        """Refuse a foreign name: a page whose name was pointed at this machine still says that name."""
        found = _HOST.fullmatch(host.lower())
        if found is None or found[1] not in self.hosts:
            raise Refusal(
                403, "the Host header names no host of this server; arawn serve --allow-host adds one"
            )

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or origin in self.origins:
            return
        scheme, _, rest = origin.partition("://")
        if scheme not in {"http", "https"} or rest.lower() != host.lower():
            raise Refusal(403, "pages of this origin may not call; arawn serve --allow-origin adds one")

    def _check_rate(self, client: str) -> None:
        """Take one from the client's bucket, which holds a minute's worth and fills evenly."""
        if not self.rate:
            return
        now, per_second = time.monotonic(), self.rate / 60
        left, since = self._buckets.pop(client, (float(self.rate), now))
        left = min(float(self.rate), left + (now - since) * per_second)
        self._buckets[client] = (max(0.0, left - 1) if left >= 1 else left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            wait = math.ceil((1 - left) / per_second)
            message = f"more than {self.rate} requests in a minute"
            raise Refusal(429, message, headers={"retry-after": str(wait)})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _holds(authorization: str, digest: bytes) -> bool:
    scheme, _, token = authorization.partition(" ")
    return hmac.compare_digest(_digest(token.strip()), digest) and scheme.lower() == "bearer"
