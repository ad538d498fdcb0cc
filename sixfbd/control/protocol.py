"""The control protocol's frames, limits and errors; both ends build on it. Pure: bytes to values and back, no I/O.

JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one object a line, UTF-8. Deviations, all of them refusals: no
batches, and `params` by name only. A method that streams sends notifications `{"method": "next", "params": {"id": ...,
"value": ...}}`, `id` being the call's, and then the answer.

Error codes: the standard's five, and of the server's own range -32000 (the daemon said no: the text says why and how to
mend it), -32001 (too many connections), -32002 (the call took longer than its limit), -32003 (the daemon stops: a stream
is not whole).
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sixfbd.model import Json

MAX_REQUEST_BYTES: Final = 1024 * 1024  # one line from a client
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # one line from the daemon

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
BUSY: Final = -32001
TIMED_OUT: Final = -32002
STOPPING: Final = -32003


class RpcError(Exception):
    """An error answer of the protocol. `data` is JSON that programs may use, None where there is none."""

    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Refused(RpcError):  # noqa: N818 - an answer, not a fault
    """Raised by a method: the daemon understood and said no; the text says what, where and how to mend it."""

    def __init__(self, message: str, data: Json = None) -> None:
        super().__init__(REFUSED, message, data)


class Request(Struct, frozen=True):
    """One call. `id` UNSET makes it a notification: it is run and not answered."""

    method: str
    id: str | int | float | UnsetType | None = UNSET
    params: dict[str, Any] = msgspec.field(default_factory=dict)


def parse_request(line: bytes) -> Request:
    """Return the request in one line. Raises RpcError with the standard's code; the id is then not known."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"not a line of JSON: {error}") from None
    if isinstance(value, list):
        raise RpcError(INVALID_REQUEST, "batches are not taken; send one object a line")
    if not isinstance(value, dict):
        raise RpcError(INVALID_REQUEST, 'not a request; send {"jsonrpc": "2.0", "id": 1, "method": "status"}')
    if value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'the request must say "jsonrpc": "2.0"')
    method, params, call_id = value.get("method"), value.get("params", {}), value.get("id", UNSET)
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, 'the request needs "method", a text such as "status"')
    if isinstance(call_id, bool | dict | list):
        raise RpcError(INVALID_REQUEST, '"id" must be a text, a number or null')
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, 'params are taken by name only; send "params": {"name": value}')
    return Request(method, call_id, params)


def request_line(call_id: int, method: str, params: dict[str, Any]) -> bytes:
    """Return a call as a line."""
    return _line({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})


def result_line(call_id: object, result: object) -> bytes:
    """Return a result as a line. Raises RpcError if it is larger than a line may be, TypeError if it is not JSON."""
    line = _line({"jsonrpc": "2.0", "id": call_id, "result": result})
    if len(line) > MAX_ANSWER_BYTES:
        raise Refused(
            f"the answer would be {len(line) // 1024**2} MiB, more than {MAX_ANSWER_BYTES // 1024**2}; ask for less"
        )
    return line


def next_line(call_id: object, value: object) -> bytes:
    """Return one value of a stream as a line; raises like `result_line`."""
    line = _line({"jsonrpc": "2.0", "method": "next", "params": {"id": call_id, "value": value}})
    if len(line) > MAX_ANSWER_BYTES:
        raise Refused(f"one value of the stream is larger than {MAX_ANSWER_BYTES // 1024**2} MiB")
    return line


def error_line(call_id: object, error: RpcError) -> bytes:
    """Return an error answer as a line; `call_id` None where the request could not be read."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return _line({"jsonrpc": "2.0", "id": call_id, "error": body})


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
