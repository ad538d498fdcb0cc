"""Through which proxy an address is asked: what the environment says, as curl and others read it, and never for loopback.

HTTPS_PROXY, HTTP_PROXY and ALL_PROXY name one by the address's scheme, NO_PROXY the hosts that are asked directly ("*": all;
`example.com` and all below it; `example.com:8443`); lower case counts first, and HTTP_PROXY does not where a web server
might have set it (https://curl.se/docs/manpage.html#ENVIRONMENT). No value is ever shown: a password may be in it.
"""

import ipaddress
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from urllib.request import getproxies_environment, proxy_bypass

import httpcore
import httpx

PORTS: Final = {"http": 80, "https": 443}


class ProxyError(ValueError):
    """A variable of the environment names no proxy that can be used."""


class Proxies:
    """The proxies of this process; `named` as `getproxies_environment` returns them."""

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named = dict(named)

    @classmethod
    def of_environment(cls) -> "Proxies":
        """Read the environment, as it is now. Raises ProxyError, which names the variable, if one is no address."""
        found = cls(getproxies_environment())
        for scheme in found._named:
            if scheme != "no":
                found._proxy(scheme)
        return found

    def of(self, scheme: str, host: str, port: int | None) -> httpcore.Proxy | None:
        """Return the proxy that an address is asked through, None for none."""
        kind = next((one for one in (scheme, "all") if one in self._named), None)
        if kind is None or _is_loopback(host):
            return None
        place = f"{host}:{port or PORTS.get(scheme, 0)}"
        if proxy_bypass(place, self._named):
            return None
        return self._proxy(kind)

    def _proxy(self, kind: str) -> httpcore.Proxy:
        try:
            url = httpx.URL(self._named[kind])
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in PORTS or not url.host:
            variable = f"{kind.upper()}_PROXY" if f"{kind.upper()}_PROXY" in os.environ else f"{kind}_proxy"
            raise ProxyError(f"{variable} is not the address of a proxy; write it as http://proxy.example.com:3128")
        auth = (unquote(url.username), unquote(url.password)) if url.userinfo else None
        place = httpcore.URL(scheme=url.scheme, host=url.raw_host, port=url.port or PORTS[url.scheme], target=b"/")
        return httpcore.Proxy(place, auth=auth)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")
