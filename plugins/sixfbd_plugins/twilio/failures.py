"""What Twilio's error codes mean for a message: whether another try may do, and what to do about it, in plain words.

https://www.twilio.com/docs/api/errors
"""

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """Whether another try of the same message may do, and what a person should know."""

    temporary: bool
    words: str


MEANINGS: Final = {
    20003: Meaning(False, "the credentials are refused: mend account_sid, auth_token or the API key"),
    20429: Meaning(True, "too many requests at once"),
    21211: Meaning(False, "the receiver's number is not valid"),
    21212: Meaning(False, "the sender's number is not valid"),
    21408: Meaning(False, "SMS to the receiver's country are switched off: enable it under Geo permissions"),
    21606: Meaning(False, "the sender is no number of this account that can send SMS to this receiver"),
    21610: Meaning(False, "the receiver has unsubscribed with STOP: only their own START lets messages through again"),
    21611: Meaning(True, "the sender's queue is full"),
    21612: Meaning(False, "the receiver cannot be reached from this sender"),
    21614: Meaning(False, "the receiver's number is not a mobile number"),
    21659: Meaning(False, "the sender is no number or short code of this account"),
    21703: Meaning(False, "the messaging service has no sender"),
    30001: Meaning(True, "the queue overflowed"),
    30002: Meaning(False, "the account is suspended"),
    30003: Meaning(True, "the phone is switched off or out of reach"),
    30004: Meaning(False, "the receiver or their carrier blocks the messages"),
    30005: Meaning(False, "the receiver's number is unknown or no longer in service"),
    30006: Meaning(False, "the receiver's number is a landline, or its carrier takes no SMS"),
    30007: Meaning(False, "the carrier took the message for spam and dropped it"),
    30008: Meaning(True, "the carrier gave no reason"),
    30022: Meaning(True, "the carrier's rate limit for this sender was exceeded"),
    30023: Meaning(True, "the carrier's daily limit for this sender was reached"),
    30034: Meaning(
        False,
        "the sender is not registered for A2P 10DLC, so that US carriers drop its messages: register it with Twilio",
    ),
}


def words_of(code: int, said: str = "") -> str:
    """Return what is known of a code, else what Twilio said."""
    meaning = MEANINGS.get(code)
    if meaning is not None:
        return f"{meaning.words} (code {code})"
    return said or (f"code {code}" if code else "no reason was given")


def is_temporary(code: int, default: bool) -> bool:
    """Tell whether another try may do; `default` where the code says nothing."""
    meaning = MEANINGS.get(code)
    return default if meaning is None else meaning.temporary
