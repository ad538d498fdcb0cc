"""The form of sealed chunks on disk, lossless to the bit: encode and decode. No files, no cache.

A chunk is the times and values of up to BAND series of one layout, usually 120 rows. Times are kept as second
differences. A column of decimals (12.3, 1048576) is kept as differences of the scaled integers, any other as each value's
bits XORed with the one before. All of it are 64-bit words that are small where little changes: their bytes are laid out
plane by plane (all lowest bytes first) and deflated, whose Adler-32 tells a damaged chunk. NaN and infinities, STALE and
ABSENT among them, stand in words of their own. Gorilla (https://www.vldb.org/pvldb/vol8/p1816-teller.pdf) and Blosc's
shuffle are the models.
"""

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from sixfbd.window.blocks import Times, Values

BAND: Final = 64
"""Columns of one chunk at most: a select of one series of a wide layout decodes no more than these."""

_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BBHI")  # version, flags, columns, rows
_SPECIALS: Final = 1  # flag: words for NaN and infinities follow
_XOR: Final = 255  # a column's mode; 0..4: decimals with so many places
_PLACES: Final = 5
_EXACT: Final = 2.0**53
_LEVEL: Final = 1

Words = npt.NDArray[np.uint64]


class ChunkDamagedError(ValueError):
    """The bytes are not a chunk, or not the one that was written."""


def encode(t_ms: Times, v: Values) -> bytes:
    """Return the chunk of times (n,), strictly increasing, and values (n, K) with K at most 65,535."""
    rows, columns = v.shape
    bits = np.array(v.T, dtype=np.float64, order="C").view(np.uint64)
    specials = np.where(np.isfinite(bits.view(np.float64)), np.uint64(0), bits)
    values = _filled(bits, specials == 0).view(np.float64)
    modes, integers = _decimals(values)
    words = np.empty((columns + 1, rows), dtype=np.uint64)
    words[0] = _zigzag(_differences(_differences(t_ms[np.newaxis])))[0]
    decimal = modes != _XOR
    words[1:][decimal] = _zigzag(_differences(integers[decimal]))
    raw = values.view(np.uint64)[~decimal]
    raw[:, 1:] ^= raw[:, :-1].copy()
    words[1:][~decimal] = raw
    parts = [modes.tobytes(), _planes(words)]
    if specials.any():
        parts.append(_planes(specials))
    header = _HEADER.pack(_VERSION, _SPECIALS if len(parts) == 3 else 0, columns, rows)
    return header + zlib.compress(b"".join(parts), _LEVEL)


def decode(blob: bytes) -> tuple[Times, Values]:
    """Return times (n,) and values (n, K), as they were to the bit. Raises ChunkDamagedError."""
    try:
        version, flags, columns, rows = _HEADER.unpack_from(blob)
        body = zlib.decompress(memoryview(blob)[_HEADER.size :])
    except (struct.error, zlib.error) as error:
        raise ChunkDamagedError(str(error)) from error
    size = 8 * rows
    special_size = columns * size if flags & _SPECIALS else 0
    if version != _VERSION or len(body) != columns + (columns + 1) * size + special_size:
        raise ChunkDamagedError(f"version {version}, {columns} columns and {rows} rows do not fit {len(body)} bytes")
    modes = np.frombuffer(body, np.uint8, columns)
    words = _unplanes(body, columns, columns + 1, rows)
    t_ms = np.cumsum(np.cumsum(_unzigzag(words[0])))
    values = _values(modes, words[1:])
    if special_size:
        specials = _unplanes(body, columns + (columns + 1) * size, columns, rows)
        np.copyto(values, specials, where=specials != 0)
    return t_ms, np.ascontiguousarray(values.view(np.float64).T)


def _filled(bits: Words, plain: npt.NDArray[np.bool_]) -> Words:
    """Put the value before it (0.0 at the start) in place of whatever is not plain: it then costs no bits."""
    if plain.all():
        return bits
    source = np.maximum.accumulate(np.where(plain, np.arange(bits.shape[1]), -1), axis=1)
    filled = np.take_along_axis(bits, np.maximum(source, 0), axis=1)
    filled[source < 0] = 0
    return filled


def _decimals(values: Values) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return each column's mode, and its scaled integers where the mode says so."""
    modes = np.full(len(values), _XOR, dtype=np.uint8)
    integers = np.zeros(values.shape, dtype=np.int64)
    rest = np.arange(len(values))
    for places in range(_PLACES):
        part = values[rest]
        with np.errstate(over="ignore"):
            scaled = np.rint(part * 10.0**places)
        whole = np.where(np.abs(scaled) < _EXACT, scaled, 0.0).astype(np.int64)
        same = (_unscaled(whole, places).view(np.uint64) == part.view(np.uint64)).all(axis=1)
        modes[rest[same]] = places
        integers[rest[same]] = whole[same]
        rest = rest[~same]
        if not rest.size:
            break
    return modes, integers


def _unscaled(integers: npt.NDArray[np.int64], places: int) -> Values:
    return integers / 10.0**places


def _values(modes: npt.NDArray[np.uint8], words: Words) -> Words:
    """Return the bits of the values (K, n), specials not yet in their places."""
    values = np.empty(words.shape, dtype=np.uint64)
    for mode in np.unique(modes):
        mine = modes == mode
        if mode == _XOR:
            values[mine] = np.bitwise_xor.accumulate(words[mine], axis=1)
        else:
            integers = np.cumsum(_unzigzag(words[mine]), axis=1)
            values[mine] = _unscaled(integers, int(mode)).view(np.uint64)
    return values


def _differences(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.diff(numbers, axis=1, prepend=np.int64(0))


def _zigzag(numbers: npt.NDArray[np.int64]) -> Words:
    return ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)


def _unzigzag(words: Words) -> npt.NDArray[np.int64]:
    one = np.uint64(1)
    return (words >> one).view(np.int64) ^ -(words & one).view(np.int64)


def _planes(words: Words) -> bytes:
    return words.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8).T.tobytes()


def _unplanes(body: bytes, offset: int, rows: int, columns: int) -> Words:
    planes = np.frombuffer(body, np.uint8, 8 * rows * columns, offset).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view("<u8").astype(np.uint64, copy=False).reshape(rows, columns)
