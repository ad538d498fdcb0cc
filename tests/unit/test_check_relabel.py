"""Relabelling, after the examples and the tests of Prometheus' model/relabel."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd_plugins.checks.scraping.relabel import RelabelRule, compile_rules


def relabelled(labels: dict[str, str], *rules: dict[str, object]) -> dict[str, str] | None:
    return compile_rules([msgspec.convert(rule, RelabelRule) for rule in rules])(dict(labels))


@pytest.mark.parametrize(
    ("labels", "rule", "expected"),
    [
        (
            {"a": "foo", "b": "bar"},
            {"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "ch${1}-ch$1"},
            {"a": "foo", "b": "bar", "d": "choo-choo"},
        ),
        (
            {"a": "foo", "b": "bar"},
            {"source_labels": ["a", "b"], "regex": "(.*);(.*)", "target_label": "c", "replacement": "$2-$1"},
            {"a": "foo", "b": "bar", "c": "bar-foo"},
        ),
        ({"a": "foo"}, {"source_labels": ["a"], "regex": "o", "target_label": "b"}, {"a": "foo"}),
        ({"a": "foo"}, {"target_label": "b", "replacement": "x"}, {"a": "foo", "b": "x"}),
        ({"a": "foo"}, {"source_labels": ["a"], "regex": "f.*", "target_label": "a", "replacement": ""}, {}),
        ({"a": "foo"}, {"source_labels": ["a"], "regex": "(f).*", "target_label": "$1$1"}, {"a": "foo", "ff": "f"}),
        ({"a": "f-o"}, {"source_labels": ["a"], "target_label": "$1"}, {"a": "f-o"}),
        ({"a": "x\ny"}, {"source_labels": ["a"], "regex": "x.y", "target_label": "b", "replacement": "z"}, {"a": "x\ny", "b": "z"}),
        ({"a": "x"}, {"source_labels": ["a"], "target_label": "b", "replacement": "$$1-$1x"}, {"a": "x", "b": "$1-"}),
        (
            {"a": "xy"},
            {"source_labels": ["a"], "regex": "(?P<n>x).*", "target_label": "b", "replacement": "$n"},
            {"a": "xy", "b": "x"},
        ),
        ({"a": "foo"}, {"action": "keep", "source_labels": ["a"], "regex": "foo|bar"}, {"a": "foo"}),
        ({"a": "foo"}, {"action": "keep", "source_labels": ["a"], "regex": "fo"}, None),
        ({"a": "foo"}, {"action": "drop", "source_labels": ["a"], "regex": "fo."}, None),
        ({"a": "foo"}, {"action": "drop", "source_labels": ["missing"], "regex": "fo."}, {"a": "foo"}),
        ({"a": "x", "b": "x"}, {"action": "keepequal", "source_labels": ["a"], "target_label": "b"}, {"a": "x", "b": "x"}),
        ({"a": "x", "b": "x"}, {"action": "dropequal", "source_labels": ["a"], "target_label": "b"}, None),
        ({"a": "x", "b1": "y", "b2": "z"}, {"action": "labeldrop", "regex": "b.*"}, {"a": "x"}),
        ({"a": "x", "b1": "y", "b2": "z"}, {"action": "labelkeep", "regex": "b1|a"}, {"a": "x", "b1": "y"}),
        ({"pod_a": "x", "b": "y"}, {"action": "labelmap", "regex": "pod_(.*)"}, {"pod_a": "x", "a": "x", "b": "y"}),
        ({"a": "FoO"}, {"action": "lowercase", "source_labels": ["a"], "target_label": "b"}, {"a": "FoO", "b": "foo"}),
        ({"a": "FoO"}, {"action": "uppercase", "source_labels": ["a"], "target_label": "b"}, {"a": "FoO", "b": "FOO"}),
        # The value of Prometheus' own test of hashmod.
        (
            {"a": "foo", "b": "bar", "c": "baz"},
            {"action": "hashmod", "source_labels": ["c"], "separator": ";", "target_label": "d", "modulus": 1000},
            {"a": "foo", "b": "bar", "c": "baz", "d": "976"},
        ),
    ],
)  # fmt: skip
def test_each_action_does_what_prometheus_does(labels, rule, expected):
    assert relabelled(labels, rule) == expected


def test_rules_apply_in_order_and_a_drop_ends_them():
    rename = {"source_labels": ["__name__"], "regex": "old_(.*)", "target_label": "__name__", "replacement": "new_$1"}
    drop = {"action": "drop", "source_labels": ["__name__"], "regex": "new_secret"}
    assert relabelled({"__name__": "old_x"}, rename, drop) == {"__name__": "new_x"}
    assert relabelled({"__name__": "old_secret"}, rename, drop) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"regex": "("}, "'\\(' is not an RE2 expression"),
        ({"action": "replace"}, "needs target_label"),
        ({"action": "hashmod", "target_label": "x"}, "modulus"),
        ({"action": "delete", "target_label": "x"}, "Invalid enum value 'delete'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"target_label": "x", **rule} if "regex" in rule else rule, RelabelRule)


@given(st.dictionaries(st.sampled_from(["a", "b", "__name__"]), st.text(max_size=10)), st.text(max_size=10))
def test_no_template_and_no_value_breaks_a_replacement(labels, template):
    rule = RelabelRule(source_labels=("a", "b"), target_label="c", replacement=template)
    result = compile_rules([rule])({name: value for name, value in labels.items() if value})
    assert result is not None
    assert "" not in result.values()
