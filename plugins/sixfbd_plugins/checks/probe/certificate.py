"""The validity of an X.509 certificate, read from its DER form, so that it is known even where verification is off or failed.

Python hands out a certificate's fields only when it was verified; the two dates are the fourth item of the certificate
(RFC 5280, section 4.1: version, serial number, signature, issuer, validity), and that is all that is read here.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class Validity(NamedTuple):
    """When a certificate begins and ends to be valid, unix seconds."""

    not_before: float
    not_after: float


def validity(der: bytes) -> Validity:
    """Return the validity of the certificate in `der`; raises ValueError if it is not a certificate."""
    try:
        at, _ = _enter(der, 0, _SEQUENCE)  # Certificate
        at, _ = _enter(der, at, _SEQUENCE)  # TBSCertificate
        if der[at] == _VERSION:
            at = _enter(der, at, _VERSION)[1]
        for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, signature, issuer
            at = _enter(der, at, tag)[1]
        at, _ = _enter(der, at, _SEQUENCE)
        not_before, at = _time(der, at)
        not_after, _ = _time(der, at)
    except IndexError:
        raise ValueError("the certificate ends in the middle") from None
    return Validity(not_before, not_after)


def _enter(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where the content of the value at `at` begins and ends."""
    if der[at] != tag:
        raise ValueError(f"the certificate has tag {der[at]:#x} where {tag:#x} belongs")
    length = der[at + 1]
    begin = at + 2
    if length >= 0x80:
        begin += length - 0x80
        length = int.from_bytes(der[at + 2 : begin], "big")
    if begin + length > len(der):
        raise ValueError("the certificate ends in the middle")
    return begin, begin + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    tag = _GENERALIZED_TIME if der[at] == _GENERALIZED_TIME else _UTC_TIME
    begin, end = _enter(der, at, tag)
    text = der[begin:end].decode("ascii", errors="replace")
    if tag == _UTC_TIME:  # two digits of the year; RFC 5280, section 4.1.2.5.1
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp(), end
