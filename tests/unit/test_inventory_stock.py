"""Reading stock: the seed's shape, rows, what is refused; thresholds; milestones as properties."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.plugin import InvalidOptions
from sixfbd_plugins.inventory.levels import CityOptions, Sale, TierLevels, crossed, levels_of, looked
from sixfbd_plugins.inventory.stock import Dates, SourceError, Stock, parse_time, reading_of_document

STATUS = {"publicAvailable": {"ga": 9, "vip": 0}, "sold": {"ga": 91, "vip": 20}, "publicLimits": {"ga": 100, "vip": 20}}
BOTH = (Stock("dallas", "ga", 9, 91, 100), Stock("dallas", "vip", 0, 20, 20))


@pytest.mark.parametrize(
    "document",
    [
        {"success": True, "data": {"cities": [{"cityId": "dallas", "status": STATUS, "velocity": {}}]}},
        {"data": [{"cityId": "dallas", **STATUS}]},
        {"cities": {"dallas": STATUS}},
        {"dallas": STATUS},
        [{"city": "dallas", "status": STATUS}],
        [
            {"city": "dallas", "tier": "ga", "available": 9.0, "sold": 91, "limit": 100},
            {"cityId": "dallas", "tier": "vip", "sold": 20, "limit": 20},
        ],
    ],
)
def test_the_seeds_status_is_read_wherever_a_shop_puts_it_and_so_are_rows(document):
    assert reading_of_document(document).stocks == BOTH


def test_what_is_available_is_the_limit_less_the_sold_where_it_is_not_told():
    document = [{"cityId": 7, "status": {"sold": {"early bird": 3}, "publicLimits": {"early bird": 2}}}]
    assert reading_of_document(document).stocks == (Stock("7", "early bird", -1, 3, 2),)


def test_dates_are_read_with_the_status():
    city = {"cityId": "dallas", "status": STATUS, "startsAt": "2026-03-14T18:00:00-06:00"}
    read = reading_of_document([city, {"cityId": "austin", **STATUS, "salesCloseAt": "2026-03-01T00:00:00Z"}])
    assert read.dates == {
        "dallas": Dates(starts_at=parse_time("2026-03-15T00:00:00+00:00")),
        "austin": Dates(sales_close_at=parse_time("2026-03-01T00:00:00+00:00")),
    }
    assert read.dates["dallas"].closes_at == read.dates["dallas"].starts_at


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("sold out", "the answer is a text, not a list of cities"),
        ([], "it holds no stock at all"),
        ([7], "entry 0 is a number, not an object"),
        ([{"status": STATUS}], "entry 0: cityId is missing, not a text"),
        ([{"cityId": "dallas", "status": {}}], "dallas: there is neither publicAvailable nor sold"),
        ([{"cityId": "d", "publicAvailable": [9]}], "d: publicAvailable is a list, not an object of tiers"),
        ([{"cityId": "d", "publicAvailable": {"ga": "9"}}], "d ga: publicAvailable is a text, not a number of tickets"),
        ([{"cityId": "d", "publicAvailable": {"ga": True}}], "d ga: publicAvailable is true or false"),
        ([{"cityId": "d", "publicAvailable": {"ga": 1.5}}], "d ga: publicAvailable is 1.5, not a number"),
        ([{"cityId": "d", "publicAvailable": {"ga": float("nan")}}], "d ga: publicAvailable is a number, not"),
        ([{"cityId": "d", "publicAvailable": {"ga": 1e300}}], "d ga: publicAvailable is 1e+300, not a number"),
        ([{"cityId": "d", "publicAvailable": {"ga": None}}], "d: there is neither publicAvailable nor"),
        ([{"cityId": "d" * 101, **STATUS}], "entry 0: cityId is a text, not a text of 1 to 100"),
        ([{"cityId": "a\nb", **STATUS}], "entry 0: cityId is a text"),
        ([{"cityId": "d", **STATUS}, {"cityId": "d", **STATUS}], "d ga stands there twice"),
        ([{"cityId": "d", **STATUS, "startsAt": "2026-03-14"}], "d: startsAt is no time with its offset"),
        ([{"city": str(n), "tier": "ga", "available": 1} for n in range(301)], "more than 300"),
        ([{"city": "d", "tier": "ga"}], "d ga: there is neither what is available nor"),
    ],
)
def test_what_is_not_stock_is_named_and_nothing_of_the_rest_is_believed(document, text):
    with pytest.raises(SourceError, match=r".") as refused:
        reading_of_document(document)
    assert text in str(refused.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["data", "cities", "cityId", "status", "tier", "sold", "publicAvailable", "ga"]), inner
            )
        ),
    )
)
def test_whatever_a_shop_answers_is_read_or_refused_and_never_more(document):
    try:
        read = reading_of_document(document)
    except SourceError:
        return
    assert all(isinstance(stock.available, int) for stock in read.stocks)


def test_the_thresholds_of_a_city_are_over_those_of_the_tier_and_those_over_the_usual_ones():
    general = {"GA": TierLevels(low=20, milestones=(50,))}
    assert levels_of("ga").edges == {"low": 10, "critical": 5, "sold_out": 0}
    merged = levels_of("Ga", general, {"ga": TierLevels(critical=8)})
    assert (merged.edges, merged.milestones) == ({"low": 20, "critical": 8, "sold_out": 0}, (50,))
    assert levels_of("student").edges == {}


def test_options_that_do_not_fit_are_named():
    with pytest.raises(InvalidOptions, match="low: is below critical"):
        TierLevels(low=5, critical=10)
    with pytest.raises(InvalidOptions, match="starts_at: '2026-03-14' is not a time with its offset"):
        CityOptions(starts_at="2026-03-14")


MILESTONES = (25, 15, 10, 5, 2, 0)


@given(st.lists(st.integers(-3, 40), min_size=2, max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_milestone_is_told_exactly_when_the_stock_falls_to_it_from_above(stocks, restarts):
    memory, told, expected = None, [], []
    for place, left in enumerate(stocks):
        after = looked(memory, Stock("dallas", "ga", left), None, levels_of("ga"), float(place))
        told.append(crossed(memory, after))
        before = stocks[place - 1] if place else left
        expected.append([one for one in MILESTONES if left <= one < before])
        memory = msgspec.json.decode(msgspec.json.encode(after), type=type(after)) if restarts[place] else after
    assert told == expected


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_what_remains_is_the_lower_of_stock_and_sale_until_the_stock_rises(first, second, said):
    before = looked(None, Stock("dallas", "ga", first), None, levels_of("ga"), 100.0)
    after = looked(before, Stock("dallas", "ga", second), Sale(said, at=150.0), levels_of("ga"), 160.0)
    assert after.remaining == (second if second > first else min(second, said))
