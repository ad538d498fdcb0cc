"""What is wrong with JSON that somebody sent, in the words of those who sent it: texts of msgspec's errors, made ours.

Pure functions. Says nothing of who sent it, or where.
"""

import re
from typing import Final

import msgspec

WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
LIMITS: Final = {
    " >= ": " of at least ",
    " > ": " above ",
    " <= ": " of at most ",
    " < ": " below ",
    " of length >= ": " of at least this length: ",
    " of length <= ": " of at most this length: ",
}
_WRONG = re.compile(r"Expected `([^`]+)`(.*?)(?:, got `([^`]+)`)?")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_PLACE = re.compile(r"\(byte (\d+)\)")


def not_json(error: msgspec.DecodeError | RecursionError) -> str:
    """Return why a text is no JSON: "byte 13 cannot be there" (counted from 0), "it ends too early"."""
    text = str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if place := _PLACE.search(text):
        return "something else follows it" if "trailing" in text else f"byte {place[1]} cannot be there"
    return "a number in it is too large" if "out of range" in text else "it ends too early"


def unfit(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the path of the field that does not fit ("items[2].name", "" for the whole), and what is wrong with it."""
    text, _, where = str(error).partition(" - at `$")
    path = where.removesuffix("`").lstrip(".")
    if field := _FIELD.fullmatch(text):
        path = f"{path}.{field[2]}" if path else field[2]
        return path, "is missing" if field[1] == "missing required" else "is not a field that is known here"
    wrong = _WRONG.fullmatch(text)
    if wrong is None:
        return path, text[:1].lower() + text[1:]
    limit = wrong[2]
    for sign, words in LIMITS.items():
        if limit.startswith(sign):
            limit = words + limit.removeprefix(sign)
    return path, f"must be {_named(wrong[1])}{limit}" + (f", not {_named(wrong[3])}" if wrong[3] else "")


def _named(types: str) -> str:
    return " or ".join(WORDS.get(one, one) for one in types.split(" | "))
