"""What is kept of people in events (SEED, Privacy): nothing that names them, and of customers what tells one from another.

Every event passes here at intake, before it is written, shown or judged. By the names of fields, at any depth: addresses of the
network, programs, e-mail, names, post and the texts of messages are dropped, customers become pseudonyms, of telephone numbers
the last four digits stay. E-mail addresses in other texts are blotted out, and what follows a path's "?" is cut off.

A pseudonym is an HMAC-SHA256 of the customer under a key that stays in the state directory: the same customer has the same one
for as long as the key is there, and without it nobody can tell whose it is, or try all customers.
"""

import hashlib
import hmac
import re
from base64 import b32encode
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias

KEY_FILE: Final = "privacy.key"
PREFIX: Final = "cust_"
PSEUDONYM: Final = re.compile(r"cust_[a-z2-7]{16}", re.ASCII)
ERASED: Final = "erased"
MOST_NAMES: Final = 4096  # of fields, whose meaning is remembered

Action: TypeAlias = Literal["drop", "pseudonym", "last4", "email", "query"]
FORMS: Final[Mapping[Action, str]] = {
    "drop": "dropped",
    "pseudonym": "a pseudonym in their place",
    "last4": "the last four digits are kept",
    "email": "an e-mail address in a text is blotted out",
    "query": 'what follows "?" in a path is cut off',
}

PERSONAL: Final[Mapping[str, Action]] = {
    **dict.fromkeys(
        [
            "ip",
            "ipaddress",
            "clientip",
            "remoteip",
            "remoteaddr",
            "remoteaddress",
            "sourceip",
            "xforwardedfor",
            "useragent",
            "fingerprint",
            "email",
            "emailaddress",
            "mail",
            "customeremail",
            "buyeremail",
            "useremail",
            "replyto",
            "firstname",
            "lastname",
            "fullname",
            "surname",
            "givenname",
            "familyname",
            "middlename",
            "displayname",
            "username",
            "customername",
            "buyername",
            "attendeename",
            "recipientname",
            "cardholder",
            "cardholdername",
            "nameoncard",
            "birthday",
            "birthdate",
            "dateofbirth",
            "address",
            "street",
            "streetaddress",
            "addressline1",
            "addressline2",
            "line1",
            "line2",
            "postalcode",
            "postcode",
            "zip",
            "zipcode",
            "billingaddress",
            "shippingaddress",
            "body",
            "messagebody",
            "messagetext",
            "smsbody",
            "htmlbody",
        ],
        "drop",
    ),
    **dict.fromkeys(
        ["customer", "customerid", "userid", "buyerid", "memberid", "guestid", "accountid", "payerid"], "pseudonym"
    ),
    **dict.fromkeys(
        ["phone", "phonenumber", "mobile", "mobilenumber", "telephone", "tel", "cell", "customerphone", "buyerphone"],
        "last4",
    ),
}
"""By a field's name without its case, underscores and hyphens."""

PEOPLE: Final = frozenset(
    [
        "customer",
        "customers",
        "buyer",
        "buyers",
        "attendee",
        "attendees",
        "recipient",
        "recipients",
        "billing",
        "billingdetails",
        "shipping",
        "contact",
        "user",
        "payer",
        "guest",
        "guests",
        "cardholder",
        "person",
    ]
)
"""Objects whose `name` is a person's."""

_LAST4: Final = re.compile(r"…\d{4}", re.ASCII)
_EMAIL: Final = re.compile(r"[\w.+\-]{1,64}(?:@|%40)[\w\-]{1,63}(?:\.[\w\-]{1,63})+", re.IGNORECASE)


class Privacy:
    """The rules with a site's key; `keep` are names of fields that the site may keep as they are. `counts` is how many fields
    were changed, by what was done."""

    def __init__(self, key: bytes, keep: Collection[str] = ()) -> None:
        self.counts: Counter[Action] = Counter()
        self._key = key
        self.keep(keep)

    def keep(self, names: Collection[str]) -> None:
        """From now on, keep the fields of these names as they come, and no others."""
        self._keep = frozenset(_plain(name) for name in names)
        self._known: dict[str, Action | None] = {}

    def pseudonym(self, customer: str) -> str:
        """Return a customer's pseudonym, as it stands in events; a pseudonym stays as it is."""
        if PSEUDONYM.fullmatch(customer):
            return customer
        digest = hmac.digest(self._key, customer.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return PREFIX + b32encode(digest[:10]).decode().lower()

    def masked(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return an event's data without what is personal in them: the same object if there was nothing."""
        return self._object(data, of_person=False)

    def _object(self, data: dict[str, Any], of_person: bool) -> dict[str, Any]:
        changed: dict[str, Any] | None = None
        for name, value in data.items():
            after = self._value(name, value, of_person)
            if after is value:
                continue
            changed = dict(data) if changed is None else changed
            if after is _GONE:
                del changed[name]
            else:
                changed[name] = after
        return data if changed is None else changed

    def _value(self, name: str, value: Any, of_person: bool) -> Any:
        action = self._action(name)
        if action is None and of_person and _plain(name) == "name":
            action = "drop"
        if action is not None and not isinstance(value, dict | list):
            return self._by_action(action, value)
        if action == "drop":
            self.counts["drop"] += 1
            return _GONE
        if isinstance(value, str):
            return self._text(name, value)
        if isinstance(value, dict):
            return self._object(value, _plain(name) in PEOPLE)
        if isinstance(value, list):
            return self._list(name, value, _plain(name) in PEOPLE)
        return value

    def _list(self, name: str, values: list[Any], of_person: bool) -> list[Any]:
        after = [
            self._object(one, of_person) if isinstance(one, dict) else self._value(name, one, of_person)
            for one in values
        ]
        same = all(new is old for new, old in zip(after, values, strict=True))
        return values if same else [one for one in after if one is not _GONE]

    def _by_action(self, action: Action, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if action == "pseudonym":
            after: Any = self.pseudonym(value if isinstance(value, str) else f"{value}")
        elif action == "last4":
            if isinstance(value, str) and _LAST4.fullmatch(value):
                return value
            digits = "".join(char for char in f"{value}" if char.isdigit())
            after = f"…{digits[-4:]}" if len(digits) > 4 else _GONE
        else:
            after = _GONE
        if after == value:
            return value
        self.counts[action] += 1
        return after

    def _text(self, name: str, value: str) -> str:
        if name == "path" and ("?" in value or "#" in value):
            self.counts["query"] += 1
            value = value.partition("?")[0].partition("#")[0]
        if "@" in value or "%40" in value:
            after, found = _EMAIL.subn("[e-mail]", value)
            if found:
                self.counts["email"] += found
                return after
        return value

    def _action(self, name: str) -> Action | None:
        if name not in self._known:
            if len(self._known) >= MOST_NAMES:
                self._known.clear()
            plain = _plain(name)
            self._known[name] = None if plain in self._keep else PERSONAL.get(plain)
        return self._known[name]


def is_personal(name: str) -> bool:
    """Tell whether a field of this name says whose an event is: nothing but the event itself repeats it."""
    return _plain(name) in PERSONAL


def forgotten(data: Any, customers: Collection[str], name: str = "") -> Any:
    """Return an event's data with "erased" in place of customers (as they came, or as pseudonyms): the same object if there
    is none of them."""
    if isinstance(data, dict):
        after = {key: forgotten(value, customers, key) for key, value in data.items()}
        return data if all(after[key] is data[key] for key in data) else after
    if isinstance(data, list):
        items = [forgotten(value, customers, name) for value in data]
        return data if all(new is old for new, old in zip(items, data, strict=True)) else items
    is_one = isinstance(data, str | int) and not isinstance(data, bool) and f"{data}" in customers
    return ERASED if is_one and (PERSONAL.get(_plain(name)) == "pseudonym" or PSEUDONYM.fullmatch(f"{data}")) else data


class _Gone:
    """In place of a value: its field is left out."""


_GONE: Final = _Gone()


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
