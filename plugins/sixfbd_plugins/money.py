"""Amounts of money for people, from the integers in minor units that events hold."""

from typing import Final

NO_MINOR_UNIT: Final = (
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
    "VND", "VUV", "XAF", "XOF", "XPF",
)  # fmt: skip
MINOR_DIGITS: Final = {
    **dict.fromkeys(NO_MINOR_UNIT, 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""Digits of a currency's minor unit where they are not 2 (ISO 4217, list one)."""

SIGNS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def major_units(amount_minor: int, currency: str) -> float:
    """Return an amount in major units: 1999 USD is 19.99, 1999 JPY is 1999, 1999 KWD is 1.999."""
    return amount_minor / 10.0 ** MINOR_DIGITS.get(currency.upper(), 2)


def show_money(amount_minor: int, currency: str) -> str:
    """Return an amount as people write it: $1,300.00, ¥1,999, 1.999 KWD. Exact, however large."""
    code = currency.upper()
    digits = MINOR_DIGITS.get(code, 2)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    number = f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "")
    minus = "-" if amount_minor < 0 else ""
    return f"{minus}{SIGNS[code]}{number}" if code in SIGNS else f"{minus}{number} {code}".rstrip()
