"""What is kept of people in events: by the names of fields, at any depth, and nothing else is touched."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.privacy import PERSONAL, PSEUDONYM, Privacy, forgotten

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"path": "/tickets", "ip": "192.0.2.7", "userAgent": "a program"}, {"path": "/tickets"}),
        ({"remote_addr": "192.0.2.7", "X-Forwarded-For": "a, b", "Email": "jane@example.com"}, {}),
        ({"customer": {"name": "Jane Doe", "email": "j@example.com", "plan": "vip"}}, {"customer": {"plan": "vip"}}),
        ({"Customer": {"Name": "Jane Doe", "first_name": "Jane", "tier": "vip"}}, {"Customer": {"tier": "vip"}}),
        ({"attendees": [{"name": "Jane"}, {"name": "John", "seat": 4}]}, {"attendees": [{}, {"seat": 4}]}),
        ({"name": "spring sale", "tier": {"name": "VIP"}}, {"name": "spring sale", "tier": {"name": "VIP"}}),
        ({"phone": "+1 352 555 0123"}, {"phone": "…0123"}),
        ({"phone": 13525550123}, {"phone": "…0123"}),
        ({"phone": "n/a"}, {}),
        ({"message": "mail to jane.doe+x@example.co.uk bounced"}, {"message": "mail to [e-mail] bounced"}),
        ({"path": "/orders/jane%40example.com/edit?token=a#b"}, {"path": "/orders/[e-mail]/edit"}),
        ({"tags": ["a", "b@example.com"]}, {"tags": ["a", "[e-mail]"]}),
        ({"billingAddress": {"line1": "1 Main St", "city": "Dallas"}}, {}),
        ({"customerId": None, "cityId": "dallas", "amount": 5}, {"customerId": None, "cityId": "dallas", "amount": 5}),
        ({"handle": "@everyone", "price": "5 @ 3"}, {"handle": "@everyone", "price": "5 @ 3"}),
    ],
)
def test_what_names_a_person_is_not_kept_and_all_else_is(data, kept):
    assert Privacy(KEY).masked(data) == kept


def test_what_holds_nothing_personal_is_the_same_object_and_what_comes_in_is_never_changed():
    data = {"orderId": "o-1", "remainingInventory": {"ga": 3}, "tags": ["a"]}
    assert Privacy(KEY).masked(data) is data
    personal = {"customerId": "jane", "nested": {"email": "j@example.com"}}
    Privacy(KEY).masked(personal)
    assert personal == {"customerId": "jane", "nested": {"email": "j@example.com"}}


def test_a_customer_is_the_same_pseudonym_each_time_under_one_key_and_another_under_another():
    one, other = Privacy(KEY), Privacy(KEY[::-1])
    pseudonym = one.masked({"customerId": "jane"})["customerId"]
    assert (
        PSEUDONYM.fullmatch(pseudonym)
        and pseudonym == one.pseudonym("jane") == one.masked({"user_id": "jane"})["user_id"]
    )
    assert one.pseudonym("john") != pseudonym != other.pseudonym("jane")
    assert one.masked({"customerId": pseudonym}) == {"customerId": pseudonym}, "what was exported may come in again"
    assert one.masked({"customerId": 17}) == {"customerId": one.pseudonym("17")}


def test_what_the_site_may_keep_is_kept_and_what_was_done_is_counted():
    privacy = Privacy(KEY, keep=["ip", "user-agent"])
    assert privacy.masked({"ip": "192.0.2.7", "userAgent": "x", "email": "j@example.com"}) == {
        "ip": "192.0.2.7",
        "userAgent": "x",
    }
    privacy.masked({"customerId": "jane", "phone": "5550123", "path": "/a?b", "reason": "j@example.com"})
    assert privacy.counts == {"drop": 1, "pseudonym": 1, "last4": 1, "query": 1, "email": 1}
    privacy.keep([])
    assert privacy.masked({"ip": "192.0.2.7"}) == {}


SECRET = "jane.doe@example.com"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PERSONAL, "a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*PERSONAL, "a", "message"]), VALUES, max_size=6))
def test_no_address_is_left_anywhere_and_what_was_masked_once_stays_as_it_is(data):
    privacy = Privacy(KEY)
    kept = privacy.masked(data)
    assert SECRET not in json.dumps(kept)
    assert privacy.masked(kept) == kept


def test_whoever_is_forgotten_is_so_wherever_a_customer_stands_and_nowhere_else():
    pseudonym = Privacy(KEY).pseudonym("7")
    data = {
        "customerId": "7",
        "orderId": "7",
        "quantity": 7,
        "guest": {"id": pseudonym},
        "buyer_id": 7,
        "more": [pseudonym, "7"],
    }
    assert forgotten(data, {"7", pseudonym}) == {
        "customerId": "erased",
        "orderId": "7",
        "quantity": 7,
        "guest": {"id": "erased"},
        "buyer_id": "erased",
        "more": ["erased", "7"],
    }
    assert forgotten(data, {"8"}) is data
