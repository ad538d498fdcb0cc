"""What Monitoring plugins write: text, performance data in base units, and what cannot be read named and left out."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sixfbd_plugins.checks.monitoring_output import MOST_PERFDATA, Measured, parse_output, parse_perfdata


@pytest.mark.parametrize(
    ("written", "measured"),
    [
        (
            "load1=1.680;99.000;100.000;0;",
            Measured("load1", 1.68, "", (("warning", 99), ("critical", 100), ("min", 0))),
        ),
        ("'free space'=3KB;;;0;10", Measured("free space", 3000, "bytes", (("min", 0), ("max", 10000)))),
        ("'it''s'=1", Measured("it's", 1)),
        ("swap=2MiB", Measured("swap", 2 * 1024**2, "bytes")),
        (
            "rta=0.702000ms;100.000000;500.000000;0.000000",
            Measured("rta", 0.000702, "seconds", (("warning", 0.1), ("critical", 0.5), ("min", 0))),
        ),
        ("pl=20%;20;60;0;", Measured("pl", 0.2, "ratio", (("warning", 0.2), ("critical", 0.6), ("min", 0)))),
        ("requests=7c", Measured("requests", 7, "count")),
        ("temp=-3.5C", Measured("temp", -3.5, "C")),
        ("procs=101;1:5000;0:9;~:8", Measured("procs", 101, "", (("critical", 9), ("min", 8)))),
        ("half=0,5", Measured("half", 0.5)),
        ("time=1e-3s", Measured("time", 0.001, "seconds")),
    ],
)
def test_an_item_is_read_in_base_units_with_the_limits_that_are_numbers(written, measured):
    found, unread = parse_perfdata(written)
    assert unread == ()
    [one] = found
    assert (one.label, one.unit) == (measured.label, measured.unit)
    assert one.value == pytest.approx(measured.value)
    assert [name for name, _ in one.limits] == [name for name, _ in measured.limits]
    assert [value for _, value in one.limits] == pytest.approx([value for _, value in measured.limits])


@pytest.mark.parametrize(
    ("written", "labels", "unread"),
    [
        ("a=1 b=2", ["a", "b"], ()),
        ("a=1 a=2", ["a"], ()),
        ("a=U b=2", ["b"], ()),
        ("junk a=1", ["a"], ("junk",)),
        ("a=x b=1", ["b"], ("a=x",)),
        ("=1 b=1", ["b"], ("1",)),
        ("'open b=1", [], ("'open b=1",)),
        ("'q' =1 b=1", [], ("'q' =1 b=1",)),
        ("big=1e999 b=1", ["b"], ("big=1e999",)),
        ("", [], ()),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_is_read(written, labels, unread):
    found, said = parse_perfdata(written)
    assert ([one.label for one in found], said) == (labels, unread)


def test_output_of_several_lines_has_text_and_data_where_the_guidelines_put_them():
    output = parse_output("DISK OK - free | /=1B\nmore text\nlast line | /boot=2B\n/home=3B /srv=4B\n")
    assert output.text == "DISK OK - free"
    assert [(one.label, one.value) for one in output.measured] == [("/", 1), ("/boot", 2), ("/home", 3), ("/srv", 4)]


def test_no_more_items_are_read_than_a_check_should_report():
    found, unread = parse_perfdata(" ".join(f"a{n}={n}" for n in range(MOST_PERFDATA + 5)))
    assert len(found) == MOST_PERFDATA and len(unread) == 5


@example("'" * 60_000)
@example("'a'" * 20_000)
@example("|" * 60_000)
@given(st.text(alphabet="ab'=|;: 01.\n%", max_size=200))
def test_whatever_is_written_is_read_without_an_error(written):
    output = parse_output(written)
    assert len({one.label for one in output.measured}) == len(output.measured)
