"""Templates of messages: what the language has, that nothing in it can run away, which template applies, what is told if one
fails."""

import json
import time

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sixfbd.cli import cli
from sixfbd.config import PluginSources, check_config, plugin_sources
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.model import Alert, AlertKey, Message, Notice, Obligation, Severity, Target
from sixfbd.outbox.previews import shown
from sixfbd.outbox.render import MAX_TITLE, Place, render
from sixfbd.outbox.templates import (
    CONTEXT_NAMES,
    MAX_BYTES,
    MAX_CPU_S,
    MessageTemplate,
    TemplateFailedError,
    TemplateRefusedError,
    Texts,
)
from sixfbd.outbox.wording import TemplateName, Templates, context_of
from sixfbd.rules import bind_rules
from sixfbd.rules.defaults import ENGINE_RULES
from sixfbd.rules.thresholds import thresholds_of

AT = 1_800_000_000.0
PLACE = Place("shop", "test", "http://127.0.0.1:9632/", thresholds={"Hot": {Severity.HIGH: "> 1"}})
TARGET = Target("primary", "hook")
GIVEN = dict.fromkeys(CONTEXT_NAMES, "") | {
    "alerts": [{"id": f"a{n}", "labels": Texts(host="x"), "value": 1.5} for n in range(100)],
    "alert": {"id": "a0", "labels": Texts(host="x"), "value": 1.5},
    "text": "t" * 4000,
    "now": AT,
}


def alerting(kind="fire", host="a", summary="it is hot"):
    about = Alert(
        key=AlertKey("Hot", (("host", host),)), id=f"id-{host}", state="resolved" if kind == "resolve" else "firing",
        since=AT, severity=Severity.HIGH, value=2.0, labels={"host": host, "alertname": "Hot", "severity": "high"},
        annotations={"summary": summary}, fired_at=AT, resolved_at=AT + 60 if kind == "resolve" else None,
    )  # fmt: skip
    return Obligation(
        id=f"{kind}-{host}",
        kind=kind,
        target=TARGET,
        state="sending",
        at=AT,
        subject=about.id,
        severity=Severity.HIGH,
        about=about,
    )


def noticing(name="sale", text="Sale: 2 × VIP", **data):
    notice = Notice(name=name, type=name, source="shop", at=AT, labels={"notice": name}, data=data)
    return Obligation(
        id=f"notice-{name}", kind="notice", target=TARGET, state="sending", at=AT, subject="shop/1", severity=Severity.LOW,
        notice=notice, text=text,
    )  # fmt: skip


def worded(texts, *obligations, channel="", remarks=()):
    """Return (plain, as the templates have it, templates)."""
    message = Message(
        id="m1",
        target=TARGET,
        state="sending",
        created_at=AT,
        expires_at=AT + 9,
        obligations=(),
        group="Hot",
        attempt=1,
    )
    plain = render(message, obligations, PLACE, AT + 125, remarks)
    templates = Templates(texts)
    return plain, templates.apply(plain, obligations, PLACE, channel), templates


def rendered(text, **changes):
    return MessageTemplate("t", text).render(GIVEN | changes)


# ---- the language --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ alert.labels.host }}|{{ alert.labels.nope }}|{{ alert.value }}", "x||1.5"),
        ("{% for one in alerts[:3] %}{{ loop.index }}/{{ loop.length }} {{ one.id }} {% endfor %}", "1/3 a0 2/3 a1 3/3 a2 "),
        ("{% for name, value in alert.labels|pairs %}{{ name }}={{ value }}{% endfor %}", "host=x"),
        ("{% if alert.value > 1 and 'x' in ['x', 'y'] %}{{ alert.value * 2 }}{% else %}no{% endif %}", "3"),
        ("{% set more = alerts|length - 1 %}and {{ more }} more, {{ 'a' ~ more ~ 'b' + 'c' }}", "and 99 more, a99bc"),
        ("{{ now|time }} {{ 75|duration }} {{ 0.123|humanizePercentage }}", "2027-01-15 08:00:00 UTC 1m15s 12.3%"),
        ("{{ alerts|join(', ', 'id')|truncate(6) }} {{ 'a.b'|replace('.', '-')|upper }}", "a0, a… A-B"),
        ("{{ (alerts|selectattr('id', 'eq', 'a7')|first).id }}", "a7"),
        ("{% if alert %}\n  {% if true %}\nyes\n  {% endif %}\n{% endif %}\n", "yes\n"),
    ],
)  # fmt: skip
def test_a_template_says_what_it_is_given(text, made):
    assert rendered(text) == made


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n{% if %}", 2, "Expected an expression"),
        ("\n\n{{ range(9) }}", 3, "no calls"),
        ("{{ 2 ** 9 }}", 1, "no powers"),
        ("{% macro m() %}{% endmacro %}", 1, "no macros"),
        ("{% include 'other' %}", 1, "no includes"),
        ("{% set x = [text, text] %}", 1, "texts and numbers only"),
        ("{{ alert|bogus }}", 1, "bogus"),
        ("{% for a in alerts recursive %}{% endfor %}", 1, "recursive"),
        ("{% set alert = 1 %}", 1, "'alert' is given"),
        ("{{ _budget }}", 1, "begins with _"),
        ("x" * (MAX_BYTES + 1), None, "larger than 64 KiB"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", None, "nested too deeply"),
    ],
)
def test_what_the_language_does_not_have_is_refused_with_its_line(text, line, said):
    with pytest.raises(TemplateRefusedError, match=said) as refused:
        MessageTemplate("t", text)
    assert refused.value.line == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ nope }}", "'nope' is undefined"),
        ("\n{{ alert.nope }}", "there is no 'nope' here; there are id, labels, value"),
        ("{{ alert.__class__ }}", "no '__class__'"),
        ("{{ text.join }}", "unsafe"),
        ("{{ alert }}", "no text"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ text * 9 }}", "needs two numbers"),
        ("{{ '%999999999d' % 1 }}", "needs two numbers"),
        ("{% for c in text %}{% endfor %}", "a text is no list"),
        ("{{ text|replace('t', text) }}", "replaces too much"),
        ("{% set x = text %}" + "{% set x = x ~ x %}" * 60, "more than 64 Ki"),
        ("{% set x = 9 %}" + "{% set x = x * x %}" * 60, "too large"),
        ("{% for a in alerts %}{{ text }}{% endfor %}", "makes more than 64 KiB"),
        (
            "{% for a in alerts %}{% for b in alerts %}{% for c in alerts %}{% endfor %}{% endfor %}{% endfor %}",
            "more than",
        ),
    ],
)
def test_what_goes_wrong_ends_soon_and_says_what(text, said):
    template = MessageTemplate("t", text)
    began = time.thread_time()
    with pytest.raises(TemplateFailedError, match=said):
        template.render(GIVEN)
    assert time.thread_time() - began < 10 * MAX_CPU_S


def test_an_error_says_at_which_line_it_arose():
    with pytest.raises(TemplateFailedError) as failed:
        rendered("{{ now|time }}\n\n{{ alert.nope }}")
    assert failed.value.line == 3


def test_a_template_that_takes_too_long_is_cut_off(monkeypatch):
    times = iter(range(1000))
    monkeypatch.setattr("sixfbd.outbox.templates.time.thread_time", lambda: next(times) * MAX_CPU_S / 10)
    with pytest.raises(TemplateFailedError, match="takes more than 50 ms"):
        rendered("{% for a in alerts %}{{ a.id }}{% endfor %}")


_EXPRESSIONS = st.recursive(
    st.sampled_from(["alert", "alerts", "text", "alert.value", "alert.labels.host", "now", "1", "'ab'", "2.5", "nope"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "<", "and", "or", "in"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        st.tuples(inner, st.sampled_from(["upper", "length", "first", "join(text)", "replace('t', text)", "int", "float", "time",
                                          "pairs", "truncate(9)", "humanize", "duration", "default('x')"])).map("|".join),
        inner.map(lambda one: f"{one}[0]"),
        inner.map(lambda one: f"{one}.labels"),
    ),
    max_leaves=6,
)  # fmt: skip
_TEMPLATES = st.recursive(
    st.one_of(_EXPRESSIONS.map(lambda one: f"{{{{ {one} }}}}"), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.tuples(_EXPRESSIONS, inner).map(lambda parts: f"{{% for x in {parts[0]} %}}{parts[1]}{{% endfor %}}"),
        st.tuples(_EXPRESSIONS, inner).map(lambda parts: f"{{% if {parts[0]} %}}{parts[1]}{{% endif %}}"),
        st.tuples(_EXPRESSIONS, inner).map(lambda parts: f"{{% set text2 = {parts[0]} %}}{parts[1]}{{{{ text2 }}}}"),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(_TEMPLATES)
def test_whatever_a_template_says_it_ends_within_its_limits_or_is_refused(text):
    began = time.thread_time()
    try:
        made = MessageTemplate("t", text).render(GIVEN)
    except (TemplateRefusedError, TemplateFailedError):
        made = ""
    assert len(made.encode(errors="replace")) <= MAX_BYTES
    assert time.thread_time() - began < 20 * MAX_CPU_S


# ---- which one applies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("firing.text", TemplateName("firing", "text")),
        ("resolved@sms.title", TemplateName("resolved", "title", "", "sms")),
        ("notice.sale@e-mail.text", TemplateName("notice", "text", "sale", "e-mail")),
    ],
)
def test_the_name_of_a_template_says_for_what_it_is(name, means):
    assert TemplateName.parse(name) == means


@pytest.mark.parametrize("name", ["x", "firing", "firing.body", "Firing.text", "firing.sale.text", "notice@.text", ""])
def test_another_name_is_refused_with_an_example(name):
    with pytest.raises(ValueError, match=r"firing\.text\.j2"):
        TemplateName.parse(name)


def test_the_template_that_names_most_applies_and_a_notice_counts_more_than_a_channel():
    texts = {name: name for name in ("notice.text", "notice@sms.text", "notice.sale.text", "notice.sale@sms.text")}
    order = [("sale", "sms"), ("sale", "mail"), ("milestone", "sms"), ("milestone", "mail")]
    templates = Templates(texts)
    found = [templates.find("text", "notice", *each).name for each in order]
    assert found == ["notice.sale@sms.text", "notice.sale.text", "notice@sms.text", "notice.text"]
    assert templates.find("title", "notice", "sale", "sms") is None


def test_a_message_without_a_template_reads_as_it_does_without_any():
    plain, made, _ = worded({"resolved.text": "over"}, alerting())
    assert made is plain


def test_title_and_text_are_those_of_the_templates():
    _, made, _ = worded(
        {"firing.title": "{{ icon }} {{ alert.summary }}\n on {{ alert.labels.host }}",
         "firing.text": "{{ title }}: {{ alert.value|number }} is {{ alert.threshold }}; {{ alert.ack }}"},
        alerting(),
    )  # fmt: skip
    assert made.title == "🚨 it is hot on a"
    assert made.text == "🚨 it is hot on a: 2 is > 1; sixfbctl ack id-a"
    assert made.own_text


def test_a_title_of_its_own_stands_above_the_plain_text_too_and_is_one_short_line():
    plain, made, _ = worded({"firing.title": "{{ alert.summary }} " * 300}, alerting())
    assert len(made.title) == MAX_TITLE and "\n" not in made.title
    assert made.text == plain.text.replace(plain.title, made.title, 1)
    assert not made.own_text


def test_what_the_daemon_says_of_itself_is_in_every_text():
    _, made, _ = worded({"firing.text": "short"}, alerting(), remarks=("This is a sandbox.",))
    assert made.text == "This is a sandbox.\n\nshort"
    _, made, _ = worded({"firing.text": "{{ remarks|join }} short"}, alerting(), remarks=("This is a sandbox.",))
    assert made.text == "This is a sandbox. short"


def test_a_notice_gives_its_event_and_a_missing_key_of_it_is_the_empty_text():
    _, made, _ = worded(
        {"notice.sale.text": "{{ notice.data.orderId }}|{{ notice.data.nope }}|{{ notice.text }}"},
        noticing(orderId="o-1"),
    )
    assert made.text == "o-1||Sale: 2 × VIP"


def test_alerts_are_given_with_what_fires_first_each_as_it_is():
    _, made, _ = worded(
        {"firing.text": "{% for one in alerts %}{{ one.status }} {{ one.labels.host }} {{ one.ends_at|time }};{% endfor %}"},
        alerting("resolve", "a"), alerting("fire", "b"),
    )  # fmt: skip
    assert made.text == "firing b ;resolved a 2027-01-15 08:01:00 UTC;"


# ---- what fails ------------------------------------------------------------------------------------------------------------


def test_what_fails_is_told_in_plain_words_counted_and_logged_once_with_what_it_was_about():
    texts = {"firing.text": "{{ 1 / (alert.labels.host|length - 1) }}", "firing.title": "{{ alert.summary }}"}
    with capture_logs() as logs:
        plain, made, templates = worded(texts, alerting())
        again = templates.apply(plain, (alerting(),), PLACE, "")
    assert made.title == "it is hot" and made.text == plain.text.replace(plain.title, "it is hot", 1)
    assert again == made and not made.own_text
    assert dict(templates.failures) == {"firing.text": 2, "firing.title": 0}
    [line] = logs
    assert (line["event"], line["template"], line["about"]) == ("template.failed", "firing.text.j2", "Hot")
    assert "division by zero" in line["error"]


def test_an_empty_message_is_none():
    plain, made, templates = worded({"notice.text": "{% if false %}x{% endif %}\n "}, noticing())
    assert made == plain
    assert templates.failures["notice.text"] == 1


def test_what_a_template_is_given_is_bounded_however_much_an_alert_says():
    message = [alerting(host=str(n), summary="x" * 60_000) for n in range(100)]
    plain, _, _ = worded({}, *message)
    given = context_of(plain, message, PLACE, "")
    assert given.keys() == CONTEXT_NAMES
    assert len(repr(given)) < 2_000_000
    assert {len(one["summary"]) for one in given["alerts"]} == {4000}


# ---- the configuration -------------------------------------------------------------------------------------------------------

CONFIG = '[notifiers.log]\nplugin = "log"\n[receivers.primary]\nlog = {via = "log"}\n'


@pytest.fixture
def checked(tmp_path):
    def check(more="", **files):
        (tmp_path / "templates").mkdir(exist_ok=True)
        for name, text in files.items():
            name = name.replace("__", "@").replace("_", ".")
            (tmp_path / "templates" / f"{name}.j2").write_text(text)
        path = tmp_path / "sixfbd.toml"
        path.write_text(CONFIG + more)
        catalog = load_plugins(plugin_sources(path))
        config, problems = check_config(path, catalog)
        return config, [str(one).replace(f"{tmp_path}/", "") for one in problems], catalog

    return check


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"firing_text": "a\n{% if %}"}, "templates/firing.text.j2: line 2: Expected an expression"),
        ({"firing_text": "a\n\n{{ alert.nam }}"}, "firing.text.j2: line 3: on the preview's data: there is no 'nam' here"),
        ({"firing_text": "{% for a in alerts %}{{ 'x' * 1 }}{% endfor %}"}, "line 1: on the preview's data: TypeError: * needs"),
        ({"notice_text": "{% for n in notices %}" + "x" * 1000 + "{% endfor %}"}, "on the preview's data: makes more than 64 KiB"),
        ({"resolved_title": "x" * 70_000}, "templates/resolved.title.j2: is larger than 64 KiB"),
        ({"resolved_title": " "}, "templates/resolved.title.j2: on the preview's data: makes an empty text"),
        ({"fired_text": "x"}, "templates/fired.text.j2: is not the name of a template; names are such as"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_do_is_refused_with_file_line_and_mend(checked, files, said):
    config, problems, _ = checked(**files)
    assert config is None
    assert any(said in one for one in problems), problems


def test_a_template_that_no_message_will_use_is_odd(checked):
    config, problems, _ = checked(notice_sals_text="x", firing__logg_text="x")
    assert config is not None
    assert problems == [
        'templates/firing@logg.text.j2: warning: no receiver has a channel logg; did you mean "log"?',
        'templates/notice.sals.text.j2: warning: there is no notice sals; did you mean "sale"?',
    ]


def test_a_directory_that_is_named_must_be_there(checked):
    config, problems, _ = checked('[templates]\ndirectory = "nowhere"\n')
    assert config is None
    assert problems == [
        'sixfbd.toml: templates.directory: "nowhere" is no directory; make it, or leave [templates] out'
    ]


def test_the_preview_shows_every_notice_and_which_templates_apply(checked):
    config, problems, catalog = checked(
        notice_sale__log_text="Sold: {{ notice.data.quantity }} in {{ notice.labels.city }}"
    )
    assert problems == []
    found = {one.name: one for one in shown(config, catalog.event_types.values(), PLACE)}
    assert found.keys() == {"firing", "resolved", "sale", "milestone", "dispute", "notice"}
    assert (found["sale"].text, found["sale"].text_by, found["sale"].title_by) == (
        "Sold: 2 in dallas-2026-03",
        "notice.sale@log.text",
        "",
    )
    assert found["dispute"].title.startswith("[NOTICE] Dispute: $300.00, product not received")


def test_every_notice_of_our_plugins_reads_as_a_sentence():
    types = [one for one in load_plugins(PluginSources()).event_types.values() if one.notice]
    assert types and all(one.notice_text is not None and one.example for one in types)


# ---- thresholds ------------------------------------------------------------------------------------------------------------


def test_a_message_says_what_the_value_is_compared_with():
    found = thresholds_of(bind_rules(list(ENGINE_RULES)).rules.values())
    assert found["OutboxStuck"] == {Severity.HIGH: "> 600"}
    assert found["LoopBlocked"] == {Severity.MEDIUM: "> 1"}, "the left side of unless is what is passed on"
    assert "JournalVolatile" not in found, "a state is there or not"
    plain, _, _ = worded({}, alerting())
    assert "Value: 2 (threshold: > 1)" in plain.text


def test_the_empty_catalog_has_no_notices(checked):
    config, _, _ = checked()
    assert {one.name for one in shown(config, PluginCatalog().event_types.values(), PLACE)} == {
        "firing",
        "resolved",
        "notice",
    }


def test_the_command_shows_messages_and_names_what_is_not_there(checked, tmp_path):
    checked(notice_sale_title="Sold: {{ notice.text }}")
    asked = ["template", "preview", "--config", str(tmp_path / "sixfbd.toml")]
    shown_all = CliRunner().invoke(cli, asked)
    assert shown_all.exit_code == 0
    assert "==== firing, log: as sixfbd has it" in shown_all.stdout
    sale = CliRunner().invoke(cli, [*asked, "sale", "--channel", "log", "--json"])
    [one] = json.loads(sale.stdout)
    assert (one["title"], one["title_by"]) == (
        "Sold: Sale: 2 × VIP dallas-2026-03, $300.00, 18 left",
        "notice.sale.title",
    )
    rule = CliRunner().invoke(cli, [*asked, "firing", "--rule", "DiskSpaceLow"])
    assert "What to do: Find the largest: du -xh" in rule.stdout
    for more, said in ((["sail"], "sale"), (["--channel", "fax"], "log"), (["--rule", "DiskSpaceLo"], "DiskSpaceLow")):
        wrong = CliRunner().invoke(cli, [*asked, *more])
        assert wrong.exit_code == 1 and said in wrong.stderr


def test_what_our_rules_tell_of_high_and_critical_says_what_to_do():
    rules = load_plugins(PluginSources()).rules
    silent = {
        rule.name
        for rule in rules
        if rule.severity in (Severity.HIGH, Severity.CRITICAL)
        and not (rule.annotations.get("action") or rule.annotations.get("description"))
    }
    assert silent == set()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("", ""),
        (
            'receivers = ["primry"]',
            'drills[0] "weekly".receivers[0]: "primry" is not a receiver; did you mean "primary"?',
        ),
        ('during = "noons"', 'drills[0] "weekly".during: "noons" is not a time interval; did you mean "noon"?'),
        ("receivers = []", 'drills[0] "weekly".receivers: '),
        ("again", 'drills[1] "weekly".name: "weekly" is there twice; choose another name'),
    ],
)
def test_a_drill_needs_receivers_and_a_time_interval_that_there_are(checked, change, said):
    keys = {"name": 'name = "weekly"', "receivers": 'receivers = ["primary"]', "during": 'during = "noon"'}
    one = (
        "[[drills]]\n"
        + "\n".join((keys | {change.partition(" ")[0]: change} if " = " in change else keys).values())
        + "\n"
    )
    noon = '[time_intervals.noon]\nintervals = [{times = [{start_time = "12:00", end_time = "12:15"}]}]\n'
    config, problems, _ = checked(noon + one * (2 if change == "again" else 1))
    assert (config is not None) == (not said)
    assert any(said in problem for problem in problems) or not said, problems
