"""The sandbox's control: what `sixfbd-sandbox` asks over .run/sandbox.sock, answered as a house answers. HTTP and JSON.

GET /status, GET /inbox?after=N, GET /faults, POST /faults {"target", "words"}, DELETE /faults?name=N.
"""

import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sixfbd_plugins.sandbox.faults import Answer
from sixfbd_plugins.sandbox.switches import SwitchError
from sixfbd_plugins.sandbox.town import Town

if TYPE_CHECKING:
    from sixfbd_plugins.sandbox.courier import Courier, Reporter

TIMEOUT_S: Final = 10.0


class Wanted(msgspec.Struct, frozen=True):
    """A fault to be switched on."""

    target: str
    words: list[str]


class Control:
    """Answers requests of the control socket."""

    def __init__(self, town: Town, listen: Mapping[str, str], courier: "Courier", reporter: "Reporter") -> None:
        self._town = town
        self._listen = listen
        self._courier = courier
        self._reporter = reporter

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        try:
            match method, path:
                case "GET", "/status":
                    return _json(self._status())
                case "GET", "/inbox":
                    return _json(self._town.inbox(int(query.get("after", "0"))))
                case "GET", "/faults":
                    return _json([_shown(one) for one in self._town.switches])
                case "POST", "/faults":
                    wanted = msgspec.json.decode(body, type=Wanted)
                    return _json(_shown(self._town.switch(wanted.target, wanted.words)))
                case "DELETE", "/faults":
                    return _json([_shown(one) for one in self._town.clear(query.get("name", ""))])
        except (SwitchError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"error": f"there is no {method} {path}"}, 404)

    def _status(self) -> dict[str, Any]:
        shop = self._town.shop
        states = [order.state for order in shop.state.orders.values()]
        return {
            "listen": dict(self._listen),
            "faults": [_shown(one) for one in self._town.switches],
            "shop": {
                "visits": shop.visits,
                "orders": {state: states.count(state) for state in ("paid", "ticketed", "failed", "refunded")},
                "takenMinor": shop.state.taken_minor,
                "refundedMinor": shop.state.refunded_minor,
                "available": {
                    city.id: {name: tier.available for name, tier in city.tiers.items()}
                    for city in shop.state.cities.values()
                },
            },
            "webhooks": dict(self._courier.counts),
            "events": {
                **self._reporter.counts, "waiting": self._reporter.waiting, "trouble": self._reporter.trouble,
            },
        }  # fmt: skip


def _shown(switch: Any) -> dict[str, Any]:
    return {"number": switch.number, "target": switch.target, "words": switch.text}


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(status=status, headers={"content-type": "application/json"}, body=msgspec.json.encode(body))


# ---- the other side ------------------------------------------------------------------------------------------------------


class ControlError(Exception):
    """The sandbox does not do what was asked, or is not there; the text says why, and the mend."""


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("sandbox", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(TIMEOUT_S)
        try:
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        self.sock = made


def ask(path: Path, method: str, target: str, *, body: Any = None) -> Any:
    """Return what the sandbox behind the control socket `path` answers, decoded. Raises ControlError."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, target, body=None if body is None else msgspec.json.encode(body))
        answer = connection.getresponse()
        decoded = msgspec.json.decode(answer.read())
    except (OSError, HTTPException) as error:
        raise ControlError(f"no sandbox answers at {path} ({error}); ./run starts it with the daemon") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise ControlError(decoded["error"])
    return decoded
