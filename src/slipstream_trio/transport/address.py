"""The address of a URL: the host in the one form that DNS, SNI and the `Host` header share."""

import re
from typing import Final
from urllib.parse import urlsplit

import idna
from attrs import frozen

from ..errors import ConnectError
from .base import OpenRequest

_ENCRYPTED: Final = ("wss", "https")
_LABELS: Final = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*\.?", re.DOTALL)


@frozen
class Address:
    """The address of a URL and the options beside it; `host`, for DNS and proxies, has an IPv6 address as it is."""

    host: str
    port: int
    encrypted: bool
    server_hostname: str
    host_header: str
    target: str


def address_of(request: OpenRequest) -> Address:
    """Return where a request leads; raises `ConnectError` for a host that has no form in DNS."""
    parts = urlsplit(request.url)
    encrypted = parts.scheme in _ENCRYPTED
    host = ascii_host(parts.hostname or "")
    default = 443 if encrypted else 80
    named = host.partition("%")[0]  # the zone of an IPv6 address means nothing on another machine
    in_url = f"[{named}]" if ":" in named else named
    port, name = parts.port or default, request.server_hostname
    return Address(
        host=host,
        port=port,
        encrypted=encrypted,
        server_hostname=(ascii_host(name) if name else named).rstrip("."),  # SNI has no dot at its end
        host_header=_ascii_authority(request.host) or (in_url if port == default else f"{in_url}:{port}"),
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _ascii_authority(host: str | None) -> str | None:
    name, colon, port = (host or "").partition(":")
    return host if host is None or host.isascii() else f"{ascii_host(name)}{colon}{port}"


def ascii_host(host: str) -> str:
    """Return a host in ASCII, by IDNA 2008: what the standard library does, IDNA 2003, names other hosts (ß, ς).

    Labels that are ASCII stay as they are, as names of machines may have what domain names have not (_). Raises
    `ConnectError` for a host that has no such form.
    """
    if ":" in host:
        return host.replace("%25", "%", 1)  # RFC 6874: how a URL writes the zone of an IPv6 address
    try:
        labels = [] if host.isascii() else idna.uts46_remap(host, std3_rules=False).split(".")
        ascii_labels = [label if label.isascii() else idna.alabel(label).decode() for label in labels]
        name = ".".join(ascii_labels) or host
        if not _LABELS.fullmatch(name):
            raise ConnectError(f"no connection to {host}: a part of its name is empty, or above 63 characters")
    except idna.IDNAError as error:
        raise ConnectError(f"no connection to {host}: IDNA has no form for its name ({error})") from error
    return name
