"""The tree of routes as Alertmanager's, receivers, channels by severity."""

import pytest

from sixfbd.alerting.routes import Routing, compile_route, matching, parse_matcher
from sixfbd.config.tables import Channel, RouteTable, SeverityTable
from sixfbd.model import Severity, Target


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ('severity="high"', {"severity": "high"}, True),
        ('severity="high"', {"severity": "higher"}, False),
        ("severity=high", {"severity": "high"}, True),
        (' severity = "high" ', {"severity": "high"}, True),
        ('severity!="high"', {"severity": "low"}, True),
        ('severity!="high"', {"severity": "high"}, False),
        ('severity=~"high|critical"', {"severity": "critical"}, True),
        ('severity=~"high|critical"', {"severity": "criticals"}, False),
        ('severity=~"hi.*"', {"severity": "high"}, True),
        ('severity!~"hi.*"', {"severity": "high"}, False),
        ('severity!~"hi.*"', {"severity": "low"}, True),
        ('team=""', {}, True),
        ('team!=""', {}, False),
        ('team!=""', {"team": "web"}, True),
        ('path="a=b"', {"path": "a=b"}, True),
        (r'say="\"hi\""', {"say": '"hi"'}, True),
        (r'dot=~"a\.b"', {"dot": "a.b"}, True),
        (r'dot=~"a\.b"', {"dot": "axb"}, False),
    ],
)
def test_a_matcher_compares_the_whole_value_and_a_missing_label_is_empty(text, labels, matches):
    assert parse_matcher(text).matches(labels) is matches


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("severity", "is not a matcher; write severity="),
        ('1x="a"', "is not a matcher"),
        ('severity="high', 'the value is not quoted right; write severity="value"'),
        ("severity='high'", "the value is not quoted right"),
        ('severity="a","b"', "the value is not quoted right"),
        ('severity=~"("', "is not a regular expression of RE2"),
        (r'severity=~"(?=a)"', "is not a regular expression of RE2"),
    ],
)
def test_a_wrong_matcher_is_an_error_that_says_how_to_write_it(text, said, capfd):
    with pytest.raises(ValueError, match=r"severity|1x") as raised:
        parse_matcher(text)
    assert said in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_tree_names_the_route():
    table = RouteTable(receiver="a", routes=(RouteTable(), RouteTable(routes=(RouteTable(matchers=("nonsense",)),))))
    with pytest.raises(ValueError, match=r"^route\.routes\[1\]\.routes\[0\]\.matchers: 'nonsense' is not a matcher"):
        compile_route(table)


TREE = RouteTable(
    receiver="default",
    routes=(
        RouteTable(receiver="log", continue_=True),
        RouteTable(
            matchers=('team="shop"',),
            receiver="shop",
            routes=(
                RouteTable(matchers=('severity="critical"',), receiver="boss", continue_=True),
                RouteTable(matchers=('severity=~"high|critical"',)),
            ),
        ),
        RouteTable(matchers=('team=~"shop|web"',), receiver="web"),
    ),
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, [("log", "route.routes[0]")]),
        ({"team": "web"}, [("log", "route.routes[0]"), ("web", "route.routes[2]")]),
        ({"team": "shop"}, [("log", "route.routes[0]"), ("shop", "route.routes[1]")]),
        (
            {"team": "shop", "severity": "critical"},
            [
                ("log", "route.routes[0]"),
                ("boss", "route.routes[1].routes[0]"),
                ("shop", "route.routes[1].routes[1]"),
            ],
        ),
    ],
)
def test_the_deepest_route_that_matches_wins_continue_goes_on_and_receivers_are_inherited(labels, expected):
    found = [(route.receiver, route.path) for route in matching(compile_route(TREE), labels)]
    assert found == expected


def test_without_a_child_that_matches_the_node_itself_is_the_route():
    tree = compile_route(RouteTable(receiver="default", routes=(RouteTable(matchers=("a=b",), receiver="x"),)))
    assert [route.receiver for route in matching(tree, {})] == ["default"]


RECEIVERS = {
    "primary": {
        "sms": Channel(via="twilio", to=("+1 555-0100", "+1 555-0101")),
        "email": Channel(via="mail", to=("ops@example.com",)),
        "log": Channel(via="log"),
    },
    "second": {"email": Channel(via="mail", to=("ops@example.com",))},
}


def targets(route, severity, severities):
    routing = Routing(compile_route(route), RECEIVERS, severities)
    return routing.targets({"severity": severity}, severity, 0.0)


def test_a_receiver_is_told_by_the_channels_of_the_severity():
    severities = {
        Severity.LOW: SeverityTable(channels=("email",)),
        Severity.HIGH: SeverityTable(channels=("sms", "email")),
    }
    route = RouteTable(receiver="primary")
    assert [one.target for one in targets(route, Severity.LOW, severities)] == [
        Target("primary", "mail", "ops@example.com")
    ]
    assert [one.target for one in targets(route, Severity.HIGH, severities)] == [
        Target("primary", "twilio", "+1 555-0100"),
        Target("primary", "twilio", "+1 555-0101"),
        Target("primary", "mail", "ops@example.com"),
    ]
    assert len(targets(route, Severity.MEDIUM, severities)) == 4, "a severity without a table uses every channel"


def test_a_target_that_two_routes_name_is_told_once_by_the_first():
    route = RouteTable(
        receiver="second", routes=(RouteTable(receiver="primary", continue_=True), RouteTable(receiver="primary"))
    )
    found = targets(route, Severity.LOW, {})
    assert len(found) == 4
    assert {one.path for one in found} == {"route.routes[0]"}


def test_why_nobody_is_told_is_said():
    routing = Routing(compile_route(RouteTable()), RECEIVERS, {Severity.LOW: SeverityTable(channels=("fax",))})
    assert routing.targets({}, Severity.LOW, 0.0) == []
    assert routing.nobody({}, Severity.LOW) == "no receiver: no route names one"
    routing = Routing(compile_route(RouteTable(receiver="second")), RECEIVERS, routing.severities)
    assert routing.targets({}, Severity.LOW, 0.0) == []
    assert routing.nobody({}, Severity.LOW) == "no receiver: second has no channel that severity low uses"
