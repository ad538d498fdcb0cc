"""Links that acknowledge: ours alone are genuine, for one alert and one receiver; the key stays."""

import stat
from urllib.parse import parse_qs, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from sixfbd.outbox.ack_links import KEY_BYTES, AckLinks, read_or_make_key

LINKS = AckLinks(b"k" * 32, "https://hooks.example.com/")


def signature_of(url):
    return parse_qs(urlsplit(url).query)["s"][0]


def test_a_link_is_genuine_for_its_alert_and_its_receiver_and_for_nothing_else():
    url = LINKS.url("abc", "primary")
    assert url.startswith("https://hooks.example.com/ack/abc?by=primary&s=")
    signature = signature_of(url)
    assert LINKS.is_genuine("abc", "primary", signature)
    assert not LINKS.is_genuine("abd", "primary", signature)
    assert not LINKS.is_genuine("abc", "secondary", signature)
    assert not AckLinks(b"j" * 32).is_genuine("abc", "primary", signature)
    assert LINKS.at("https://other.example.com").is_genuine("abc", "primary", signature)


def test_without_a_public_address_there_are_no_links():
    assert AckLinks(b"k" * 32).url("abc", "primary") == ""


@given(st.text(), st.text(), st.text(max_size=200))
def test_what_nobody_signed_is_not_genuine(alert, receiver, signature):
    assert not LINKS.is_genuine(alert, receiver, signature)


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    key = read_or_make_key(tmp_path)
    assert len(key) == KEY_BYTES and read_or_make_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "ack.key").stat().st_mode) == 0o600
    (tmp_path / "ack.key").write_bytes(b"short")
    assert len(read_or_make_key(tmp_path)) == KEY_BYTES, "one that is cut off is made anew"
