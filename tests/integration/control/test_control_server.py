"""The control socket over a real Unix socket: what it answers, and what rubbish, floods and hang-ups cost whom."""

import json
import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from sixfbd.control.address import ControlSocketError, is_answered
from sixfbd.control.client import ControlClient
from sixfbd.control.protocol import (
    BUSY,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_REQUEST_BYTES,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REFUSED,
    STOPPING,
    RpcError,
)
from sixfbd.control.server import serve_control

Until = Callable[[str, Callable[[], bool]], None]
ME = f"uid:{os.getuid()} {pwd.getpwuid(os.getuid()).pw_name}"


class Wire:
    """A raw connection: bytes in, lines out."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        try:
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise
        self._lines = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, method: str, call_id: Any = 1, **params: Any) -> dict[str, Any]:
        self.send(json.dumps({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}).encode() + b"\n")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, "the server ended the connection"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def is_ended(self) -> bool:
        """Return whether the server ends the connection without another word."""
        try:
            return self._lines.readline() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@contextmanager
def wire(path: Path) -> Iterator[Wire]:
    made = Wire(path)
    try:
        yield made
    finally:
        made.close()


def test_a_method_is_answered_with_its_result_and_its_id(served: Any) -> None:
    with wire(served.path) as line:
        answer = line.ask("status", "some id")
    assert answer["id"] == "some id"
    assert answer["result"]["site"] == "workshop"


def test_many_calls_on_one_connection_are_answered_in_their_order(served: Any) -> None:
    with wire(served.path) as line:
        calls = [{"jsonrpc": "2.0", "id": i, "method": "checks"} for i in range(100)]
        line.send(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
        assert [line.answer()["id"] for _ in range(100)] == list(range(100))


def test_a_request_in_many_pieces_is_one_request(served: Any) -> None:
    with wire(served.path) as line:
        for byte in b'\n  \r\n{"jsonrpc": "2.0", "id": 5, "method": "status"}\r\n':
            line.send(bytes([byte]))
        assert line.answer()["id"] == 5


def test_a_last_line_without_its_end_is_answered_when_the_client_ends_its_sending(served: Any) -> None:
    with wire(served.path) as line:
        line.send(b'{"jsonrpc": "2.0", "id": 5, "method": "status"}')
        line.socket.shutdown(socket.SHUT_WR)
        assert line.answer()["id"] == 5
        assert line.is_ended()


def test_a_notification_is_run_and_not_answered(served: Any, until: Until) -> None:
    with wire(served.path) as line:
        line.send(b'{"jsonrpc": "2.0", "method": "check.pause", "params": {"name": "shop"}}\n')
        assert line.ask("status")["id"] == 1
    assert ("pause_check", "shop", True, ME) in served.engine.calls


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"rubbish\n", PARSE_ERROR),
        (b"\x00\xff\xfe\n", PARSE_ERROR),
        (b"[1, 2]\n", INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "nonsense"}\n', METHOD_NOT_FOUND),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "query"}\n', INVALID_PARAMS),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "query", "params": {"expr": 5}}\n', INVALID_PARAMS),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"x": 1}}\n', INVALID_PARAMS),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "why", "params": {"alert": "inc-9"}}\n', REFUSED),
    ],
)
def test_each_fault_has_its_code_and_the_connection_goes_on(served: Any, sent: bytes, code: int) -> None:
    with wire(served.path) as line:
        line.send(sent)
        assert line.answer()["error"]["code"] == code
        assert line.ask("status")["result"]["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("query", {}, ['"expr" is missing: text of 1 to 16384 characters (PromQL)', "parameters: expr, at"]),
        ("query", {"expr": 5}, ['"expr" is 5; it must be text of 1 to 16384 characters']),
        ("query", {"expr": "up", "at": 1e300}, ['"at" is 1e300; it must be a number from 0 to 253402300799']),
        ("query", {"exr": "up"}, ['there is no "exr": did you mean "expr"?', '"expr" is missing']),
        ("query_range", {"expr": "up", "start": 1, "end": 2, "step": 0}, ['"step" is 0; it must be a number above 0']),
        ("events.list", {"limit": 0}, ['"limit" is 0; it must be a whole number from 1 to 10000']),
        ("events.list", {"type": [1]}, ['"type" is [1]; it must be text']),
        ("outbox.list", {"state": "x" * 500}, ["it must be one of accepted, dead, delivered, open", "…;"]),
        ("token.create", {"name": "a b"}, ['"name" is "a b"; it must be 1 to 64 letters, digits']),
        ("token.create", {"name": "a", "scopes": "read"}, ['"scopes" is "read"; it must be a list of texts']),
        ("events.emit", {"type": "x", "data": []}, ['"data" is []; it must be an object']),
        ("status", {"x": 1}, ['there is no "x"', "parameters: none"]),
    ],
)
def test_wrong_parameters_are_named_with_what_is_wanted(
    served: Any, method: str, params: dict[str, Any], words: list[str]
) -> None:
    with wire(served.path) as line:
        error = line.ask(method, **params)["error"]
    assert error["code"] == INVALID_PARAMS
    assert [part for part in words if part not in error["message"]] == [], error["message"]
    assert not any(part in error["message"] for part in ("$.", "Expected", "Object", "`"))


def test_a_method_that_is_not_known_is_answered_with_the_one_that_was_meant(served: Any) -> None:
    with wire(served.path) as line:
        assert line.ask("stauts")["error"]["message"] == 'there is no method "stauts": did you mean "status"?'
        assert line.ask("x" * 500)["error"]["message"].endswith("rpc.commands lists them")


def test_a_question_ends_when_who_asked_it_hangs_up_and_a_command_does_not(served: Any, until: Until) -> None:
    ended: list[str] = []

    async def hang() -> Any:
        try:
            await trio.sleep(60)
        finally:
            ended.append("question")

    async def run_check(name: str, actor: Any) -> Any:
        await trio.sleep(1.5)  # longer than a hang-up takes to be seen
        ended.append("command")
        return None

    served.engine.on_status = hang
    served.engine.run_check = run_check
    with wire(served.path) as asking, wire(served.path) as commanding:
        asking.send(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
        commanding.send(b'{"jsonrpc": "2.0", "id": 1, "method": "check.run", "params": {"name": "shop"}}\n')
    until("both have ended", lambda: len(ended) == 2)
    until("the command is written down", lambda: len(served.engine.audited) == 1)
    assert sorted(ended) == ["command", "question"]
    assert served.engine.audited[0][1:] == ('check.run {"name":"shop"}', "ok")


def test_many_silent_connections_keep_nobody_out(serve: Any, until: Until) -> None:
    served = serve(connections=4, spare_s=0.2)
    with ExitStack() as held:
        working = held.enter_context(wire(served.path))
        working.send(b'{"jsonrpc": "2.0", "id": 1, "method": "events.follow"}\n')
        assert working.answer()["method"] == "next"
        silent = [held.enter_context(wire(served.path)) for _ in range(3)]
        until("one that works is let in", lambda: _is_taken(served.path))
        assert "makes room" in silent[0].answer()["error"]["message"] and silent[0].is_ended()
        assert working.answer()["method"] == "next", "a connection at work stays"


def test_a_thousand_connections_cost_the_others_nothing(serve: Any, until: Until) -> None:
    served = serve(spare_s=0.2)
    with ExitStack() as held, wire(served.path) as working:
        working.send(b'{"jsonrpc": "2.0", "id": 1, "method": "events.follow"}\n')
        for _ in range(1000):
            line = held.enter_context(socket.socket(socket.AF_UNIX))
            until("the kernel queues it", lambda line=line: line.connect_ex(str(served.path)) == 0)
        assert [working.answer()["method"] for _ in range(2)] == ["next", "next"]
        until("another is let in", lambda: _is_taken(served.path))
        assert served.engine.followers == 1


def test_a_method_that_raises_is_an_internal_error_that_tells_no_details_but_to_the_log(served: Any) -> None:
    def fail() -> Any:
        raise RuntimeError("the secret is hunter2")

    served.engine.on_status = fail
    with capture_logs() as logs, wire(served.path) as line:
        error = line.ask("status")["error"]
        assert line.ask("checks")["result"]
    assert error["code"] == INTERNAL_ERROR
    assert "RuntimeError" in error["message"] and "hunter2" not in error["message"]
    assert [entry["method"] for entry in logs if entry["event"] == "control.method_failed"] == ["status"]


def test_a_method_that_raises_a_group_is_contained_as_well(served: Any) -> None:
    async def fail() -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("inside")

    served.engine.on_status = fail
    with wire(served.path) as line:
        assert "ValueError" in line.ask("status")["error"]["message"]
        served.engine.on_status = None
        assert line.ask("status")["result"]


def test_a_result_that_is_no_json_is_an_internal_error(served: Any) -> None:
    served.engine.on_status = object
    with wire(served.path) as line:
        assert line.ask("status")["error"]["code"] == INTERNAL_ERROR


def test_a_line_that_is_too_long_is_refused_and_ends_only_its_own_connection(served: Any) -> None:
    with wire(served.path) as line, wire(served.path) as other:
        thread = threading.Thread(target=_send_or_break, args=(line, b"x" * (MAX_REQUEST_BYTES + 100_000)))
        thread.start()
        error = line.answer()["error"]
        assert error["code"] == INVALID_REQUEST and "1048576 bytes at most" in error["message"]
        assert line.is_ended()
        thread.join(10)
        assert other.ask("status")["result"]


def _send_or_break(line: Wire, data: bytes) -> None:
    with suppress(OSError):  # cut off before all was sent, as it should be
        line.send(data)


def test_half_a_line_and_then_nothing_ends_the_connection(serve: Any) -> None:
    served = serve(half_line_s=0.05)
    with wire(served.path) as line:
        line.send(b'{"jsonrpc"')
        assert "half a line" in line.answer()["error"]["message"]
        assert line.is_ended()


def test_a_silent_connection_ends_and_one_that_waits_for_its_answer_does_not(serve: Any) -> None:
    served = serve(idle_s=0.1)

    async def slow() -> Any:
        await trio.sleep(0.4)
        return "late"

    served.engine.on_status = slow
    with wire(served.path) as line:
        assert line.ask("status")["result"] == "late"
        assert "nothing asked" in line.answer()["error"]["message"]
        assert line.is_ended()


def test_one_connection_too_many_is_told_so_and_the_next_after_one_left_is_taken(serve: Any, until: Until) -> None:
    served = serve(connections=2)
    with wire(served.path) as first, wire(served.path) as second:
        assert first.ask("status")["result"] and second.ask("status")["result"]
        with wire(served.path) as third:
            assert third.answer()["error"]["code"] == BUSY
            assert third.is_ended()
        second.close()
        until("a place is free", lambda: _is_taken(served.path))
        assert first.ask("status")["result"]


def _is_taken(path: Path) -> bool:
    try:
        with wire(path) as line:
            line.send(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
            return "result" in line.answer()
    except (BrokenPipeError, ConnectionResetError, BlockingIOError):  # turned away, or the queue is full
        return False


def test_clients_that_hang_up_at_any_moment_harm_nobody(served: Any) -> None:
    whole = b'{"jsonrpc": "2.0", "id": 1, "method": "checks"}\n' * 5
    with capture_logs() as logs, wire(served.path) as steady:
        for cut in range(0, len(whole), 7):
            with wire(served.path) as line:
                line.send(whole[:cut])
            assert steady.ask("status")["result"]
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def test_a_client_that_floods_and_never_reads_is_cut_off_and_others_are_served(serve: Any) -> None:
    served = serve(send_s=0.2)
    flood = b'{"jsonrpc": "2.0", "id": 1, "method": "checks"}\n' * 20_000
    with wire(served.path) as deaf, wire(served.path) as other:
        thread = threading.Thread(target=_send_or_break, args=(deaf, flood))
        thread.start()
        for _ in range(20):
            assert other.ask("status")["result"]
        thread.join(20)
        assert not thread.is_alive()
        assert other.ask("status")["result"]


def test_a_slow_call_does_not_delay_other_connections(served: Any) -> None:
    released = threading.Event()

    async def slow() -> Any:
        while not released.is_set():  # noqa: ASYNC110 - set by the test's own thread
            await trio.sleep(0.01)
        return "late"

    served.engine.on_status = slow
    with wire(served.path) as waiting, wire(served.path) as other:
        waiting.send(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
        assert other.ask("checks")["result"]
        released.set()
        assert waiting.answer()["result"] == "late"


def test_a_stream_sends_values_as_they_come_and_its_count_at_the_end(served: Any) -> None:
    with wire(served.path) as line:
        first = line.ask("journal.export", "x")
        assert first == {
            "jsonrpc": "2.0",
            "method": "next",
            "params": {"id": "x", "value": {"kind": "record", "seq": 0}},
        }
        assert [line.answer()["params"]["value"]["seq"] for _ in range(2)] == [1, 2]
        assert line.answer()["result"] == {"count": 3}
        assert line.ask("journal.export")["method"] == "next"


def test_a_stream_ends_when_its_client_leaves(served: Any, until: Until) -> None:
    with wire(served.path) as line:
        line.ask("events.follow", after=2)
        assert served.engine.followers == 1
    until("the stream has ended", lambda: served.engine.followers == 0)


def test_a_stream_goes_on_for_a_client_that_only_ended_its_sending(served: Any) -> None:
    with wire(served.path) as line:
        line.send(b'{"jsonrpc": "2.0", "id": 1, "method": "events.follow"}\n')
        line.socket.shutdown(socket.SHUT_WR)
        assert [line.answer()["params"]["value"]["seq"] for _ in range(2)] == [3, 4]
        assert served.engine.followers == 1


def test_who_commands_is_known_by_the_sockets_credentials_and_written_down_with_the_outcome(served: Any) -> None:
    with wire(served.path) as line:
        line.ask("token.revoke", name="shop")
        line.ask("check.run", name="nosuch")
        line.ask("status")
    [done, refused] = served.engine.audited
    assert done == (ME, 'token.revoke {"name":"shop"}', "ok")
    assert refused[:2] == (ME, 'check.run {"name":"nosuch"}') and refused[2].startswith("refused: ")


def test_a_command_is_answered_though_it_could_not_be_written_down(served: Any) -> None:
    def broken() -> None:
        raise OSError("disk full")

    served.engine.on_audit = broken
    with capture_logs() as logs, wire(served.path) as line:
        assert "result" in line.ask("token.revoke", name="shop")
    assert any(entry["event"] == "control.audit_failed" for entry in logs)


def test_every_method_that_changes_something_is_audited_and_none_that_only_reads(served: Any) -> None:
    reading = {"status", "checks", "series", "query", "query_range", "alerts", "events.list", "outbox.list", "why"}
    params: dict[str, dict[str, Any]] = {
        "query": {"expr": "up"},
        "query_range": {"expr": "up", "start": 0, "end": 1, "step": 1},
        "why": {"alert": "inc-1"},
        "check.run": {"name": "shop"},
        "check.pause": {"name": "shop"},
        "check.resume": {"name": "shop"},
        "ack": {"alert": "inc-1"},
        "token.create": {"name": "shop"},
        "token.revoke": {"name": "shop"},
        "journal.backup": {"path": "/tmp/copy.db"},
    }
    judged = {"check.pause", "check.resume", "ack"}  # written down by the judge, in the commit that carries them out
    changing = {"check.run", "token.create", "token.revoke", "journal.backup"}
    with wire(served.path) as line:
        for method in sorted(reading | judged | changing | {"reload"}):
            assert "result" in line.ask(method, **params.get(method, {})), method
    assert {command.split()[0] for _, command, _ in served.engine.audited} == changing | {"reload"}


def test_the_commands_describe_themselves_with_docs_and_schemas(served: Any) -> None:
    with wire(served.path) as line:
        commands = line.ask("rpc.commands")["result"]
    assert {"status", "check.run", "events.follow", "journal.export", "stop"} <= set(commands)
    assert commands["events.follow"]["stream"] is True
    assert all(command["doc"] for command in commands.values())
    schema = commands["query"]["params"]
    assert "expr" in json.dumps(schema)


@pytest.mark.parametrize(
    ("start", "end", "step", "words"),
    [
        (2, 1, 1, "before the start"),
        (0, 11_001, 1, "more than 11000 points a series; take a step of at least 1s1ms"),
        (0, 3600, 0.001, "take a step of at least 328ms"),
        (0, 1_000_000_000, 1, "take a step of at least 1d1h15m10s"),
    ],
)
def test_a_span_that_cannot_be_is_refused_with_the_mend(
    served: Any, start: float, end: float, step: float, words: str
) -> None:
    with wire(served.path) as line:
        assert words in line.ask("query_range", expr="up", start=start, end=end, step=step)["error"]["message"]


def test_stopping_answers_first_ends_streams_by_name_and_removes_the_socket(served: Any, until: Until) -> None:
    served.engine.export_size = 0  # a stream that never ends by itself
    with ControlClient(served.path) as follower, ControlClient(served.path) as client:
        ended: list[RpcError] = []

        def follow() -> None:
            try:
                list(follower.stream("events.follow"))
            except RpcError as error:
                ended.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        until("the stream runs", lambda: served.engine.followers == 1)
        assert client.call("stop")["within_s"] == 1.0
        thread.join(10)
    assert [error.code for error in ended] == [STOPPING]
    served.stop()
    assert not served.path.exists()


def test_a_call_that_runs_when_the_stop_comes_is_answered_first(served: Any, until: Until) -> None:
    begun = threading.Event()

    async def slow() -> Any:
        begun.set()
        await trio.sleep(0.2)
        return "done"

    served.engine.on_status = slow
    with wire(served.path) as line:
        line.send(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
        assert begun.wait(10)
        stopper = threading.Thread(target=served.stop)
        stopper.start()
        assert line.answer()["result"] == "done"
        assert line.is_ended()
        stopper.join(10)


def test_idle_connections_do_not_delay_the_stop(served: Any) -> None:
    with wire(served.path) as line:
        assert line.ask("status")["result"]
        served.stop()
        assert line.is_ended()


async def test_a_second_server_on_the_same_socket_is_refused(served: Any) -> None:
    class Clock:
        def now(self) -> float:
            return 0.0

    with pytest.raises(ControlSocketError, match="another sixfbd answers"):
        await serve_control(served.path, {}, clock=Clock(), stop=trio.Event())
    assert await trio.to_thread.run_sync(is_answered, served.path)
