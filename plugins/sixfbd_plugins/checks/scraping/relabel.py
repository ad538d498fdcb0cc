"""Prometheus' metric_relabel_configs: rules that rewrite, keep and drop series by their labels.

Semantics of https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config with RE2 as there.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from sixfbd_plugins.checks.regex import compile_regex

LabelMap: TypeAlias = dict[str, str]  # `__name__` is one of them
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE: Final = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))", re.ASCII)
_ALL: Final = "(.*)"
_NEEDS_TARGET: Final = frozenset({"replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal"})


class RelabelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `relabel`."""

    source_labels: Annotated[tuple[str, ...], msgspec.Meta(description="Labels whose values are joined.")] = ()
    separator: Annotated[str, msgspec.Meta(description="What joins them.")] = ";"
    regex: Annotated[str, msgspec.Meta(description="RE2 that the whole joined value must match.")] = _ALL
    modulus: Annotated[int, msgspec.Meta(description="For hashmod.", ge=0)] = 0
    target_label: Annotated[str, msgspec.Meta(description="Label that is written.")] = ""
    replacement: Annotated[str, msgspec.Meta(description="What is written; $1 is the first group.")] = "$1"
    action: Annotated[
        Literal[
            "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop", "labelkeep",
            "lowercase", "uppercase",
        ],
        msgspec.Meta(description="What is done."),
    ] = "replace"  # fmt: skip

    def __post_init__(self) -> None:
        if self.action in _NEEDS_TARGET and not self.target_label:
            raise ValueError(f"relabel: action {self.action} needs target_label")
        if self.action == "hashmod" and self.modulus < 1:
            raise ValueError("relabel: action hashmod needs a modulus of at least 1")
        compile_anchored(self.regex)


def compile_anchored(pattern: str) -> Any:
    """Compile as Prometheus does: the whole text must match, and `.` takes line breaks. Raises ValueError."""
    compile_regex(pattern)  # alone first, so that the error shows what was written
    return compile_regex(f"^(?s:{pattern})$")


def compile_rules(rules: Sequence[RelabelRule]) -> Callable[[LabelMap], LabelMap | None]:
    """Return a function that rewrites a label map in place and returns it, or None if the series is dropped."""
    steps = [(rule, compile_anchored(rule.regex)) for rule in rules]

    def relabel(labels: LabelMap) -> LabelMap | None:
        for rule, regex in steps:
            if not _apply(rule, regex, labels):
                return None
        return labels

    return relabel


def _apply(rule: RelabelRule, regex: Any, labels: LabelMap) -> bool:
    """Apply one rule; False drops the series."""
    joined = rule.separator.join(labels.get(name, "") for name in rule.source_labels)
    match rule.action:
        case "keep":
            return regex.match(joined) is not None
        case "drop":
            return regex.match(joined) is None
        case "keepequal":
            return labels.get(rule.target_label, "") == joined
        case "dropequal":
            return labels.get(rule.target_label, "") != joined
        case "replace":
            _replace(rule, regex, joined, labels)
        case "lowercase" | "uppercase":
            _set(labels, rule.target_label, joined.lower() if rule.action == "lowercase" else joined.upper())
        case "hashmod":
            digest = hashlib.md5(joined.encode(), usedforsecurity=False).digest()
            _set(labels, rule.target_label, str(int.from_bytes(digest[8:], "big") % rule.modulus))
        case "labelmap":
            for name, value in list(labels.items()):
                if found := regex.match(name):
                    _set(labels, expand(rule.replacement, found), value)
        case "labeldrop" | "labelkeep":
            for name in [name for name in labels if (regex.match(name) is None) is (rule.action == "labelkeep")]:
                del labels[name]
    return True


def _replace(rule: RelabelRule, regex: Any, joined: str, labels: LabelMap) -> None:
    found = regex.match(joined)
    if found is None:
        return
    target = expand(rule.target_label, found)
    if _LABEL_NAME.fullmatch(target):  # Prometheus passes over a name that is not one
        _set(labels, target, expand(rule.replacement, found))


def _set(labels: LabelMap, name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


def expand(template: str, match: Any) -> str:
    """Fill `$1`, `${1}`, `$name` and `$$` as Go's regexp.Expand does; a group that does not exist is empty."""
    groups: dict[str, str | None] = {str(i): value for i, value in enumerate((match.group(0), *match.groups()))}
    groups |= match.groupdict()
    return _REFERENCE.sub(lambda ref: "$" if ref[0] == "$$" else groups.get(ref[1] or ref[2]) or "", template)
