"""The cache keeps to its bytes and forgets what was touched longest ago."""

from hypothesis import given
from hypothesis import strategies as st

from sixfbd.window.cache import ByteLru


def test_what_was_touched_longest_ago_is_forgotten_first():
    cache: ByteLru[str, int] = ByteLru(30)
    for name in "abc":
        cache.put(name, ord(name), 10)
    assert cache.get("a") == ord("a")
    cache.put("d", 4, 10)
    assert [cache.peek(name) for name in "abcd"] == [97, None, 99, 4]


def test_looking_without_touching_keeps_nothing_longer():
    cache: ByteLru[str, int] = ByteLru(20)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    assert cache.peek("a") == 1
    cache.put("c", 3, 10)
    assert cache.peek("a") is None


def test_a_value_larger_than_the_limit_is_not_kept_and_drives_nothing_out():
    cache: ByteLru[str, int] = ByteLru(20)
    cache.put("a", 1, 10)
    cache.put("b", 2, 21)
    assert (cache.peek("a"), cache.peek("b")) == (1, None)


def test_a_lower_limit_holds_at_once():
    cache: ByteLru[str, int] = ByteLru(30)
    for name in "abc":
        cache.put(name, ord(name), 10)
    cache.limit(15)
    assert (cache.size_bytes, [cache.peek(name) for name in "abc"]) == (10, [None, None, 99])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40))))
def test_the_sizes_of_what_is_kept_add_up_and_stay_within_the_limit(puts):
    cache: ByteLru[int, int] = ByteLru(100)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        sizes[key] = size
        kept = [size for key, size in sizes.items() if cache.peek(key) is not None]
        assert cache.size_bytes == sum(kept) <= 100
        assert len(cache) == len(kept)
        assert cache.peek(key) == size
