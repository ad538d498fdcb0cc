"""Receivers' addresses as people may see them: their notifier says how, and what nobody says is hidden."""

import msgspec
import pytest

from sixfbd.config import Config
from sixfbd.config.tables import NotifierTable
from sixfbd.host import NotifierEntry, PluginCatalog
from sixfbd.journal.records import MessageChanged, Owed
from sixfbd.model import Message, MessageId, Obligation, Severity, Target
from sixfbd.plugin import Duration, Notifier
from sixfbd.readers.addresses import Addresses

ADDRESS = "+13525550101"


class Phones(Notifier):
    """Calls."""

    @classmethod
    def show_address(cls, address: str) -> str:
        return f"…{address[-2:]}"


class Broken(Notifier):
    """Cannot tell."""

    @classmethod
    def show_address(cls, address: str) -> str:
        raise RuntimeError(address)


@pytest.fixture
def addresses() -> Addresses:
    classes = {"phones": Phones, "plain": Notifier, "broken": Broken, "kept": Notifier}
    entries = {name: NotifierEntry(name, cls, "test", kept_out=name == "kept") for name, cls in classes.items()}
    tables = {
        name: NotifierTable(name=name, plugin=name, timeout=Duration(1), concurrency=1) for name in (*classes, "lost")
    }
    return Addresses(Config(notifiers=tables), PluginCatalog(notifiers=entries))


@pytest.mark.parametrize(
    ("notifier", "shown"),
    [
        ("phones", "…01"),
        ("plain", ADDRESS),
        ("broken", "…"),
        ("kept", "…0101"),
        ("lost", "…0101"),
        ("configured no more", "…0101"),
    ],
)
def test_an_address_is_shown_as_its_notifier_says(addresses, notifier, shown):
    assert addresses.shown(notifier, ADDRESS) == shown
    assert addresses.shown(notifier, "") == ""


def test_messages_obligations_and_their_records_show_no_more(addresses):
    target = Target("primary", "phones", ADDRESS)
    message = Message(
        id=MessageId("m-1"), target=target, state="pending", created_at=1.0, expires_at=2.0, obligations=()
    )
    owed = Obligation(
        id="o-1", kind="fire", target=target, severity=Severity.HIGH, state="pending", at=1.0, subject="i-1"
    )  # fmt: skip
    for one in (
        addresses.message(message),
        addresses.obligation(owed),
        addresses.record(Owed(1.0, owed)),
        addresses.record(MessageChanged(1.0, message, "made")),
    ):
        text = msgspec.json.encode(one).decode()
        assert ADDRESS not in text
        assert "…01" in text


def test_in_json_every_target_is_found_and_nothing_else_is_changed(addresses):
    target = {"receiver": "primary", "notifier": "phones", "address": ADDRESS}
    record = {"kind": "record", "record": {"told": [{"target": target, "at": 1.5}], "address": ADDRESS, "none": None}}
    shown = addresses.everywhere(record)
    assert shown["record"]["told"] == [{"target": {**target, "address": "…01"}, "at": 1.5}]
    assert shown["record"]["address"] == ADDRESS
    assert target["address"] == ADDRESS
