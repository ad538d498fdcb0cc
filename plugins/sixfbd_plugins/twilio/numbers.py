"""Phone numbers: E.164 (ITU-T), also as people write them."""

import re
from typing import Final

E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_SHORT_CODE: Final = re.compile("[0-9]{3,8}")
_ALPHANUMERIC: Final = re.compile("(?=.*[A-Za-z])[A-Za-z0-9 &_+-]{1,11}")  # a sender id, where a country allows one
_BLANKS: Final = str.maketrans("", "", " -().\u00a0\u2011")


def normalized(text: str) -> str:
    """Return a number in E.164: "+1 (352) 555-0101" is "+13525550101". Raises ValueError, without the number."""
    number = text.translate(_BLANKS)
    if not E164.fullmatch(number):
        raise ValueError('is not a number with its country, such as "+1-352-555-0101"')
    return number


def normalized_sender(text: str) -> str:
    """Return a sender: a number in E.164, a short code or an alphanumeric id. Raises ValueError, without the sender."""
    number = text.translate(_BLANKS)
    if E164.fullmatch(number) or _SHORT_CODE.fullmatch(number):
        return number
    if _ALPHANUMERIC.fullmatch(text):
        return text
    raise ValueError('is no sender; write a number such as "+1-352-555-0101", a short code, or a name of 11 letters')
