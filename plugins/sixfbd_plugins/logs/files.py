"""Log files and where their reading stands, over rotation, truncation and restarts.

A file is known by its inode and a mark, a hash of its first bytes and of the last ones that were read, not by its name. A
file that was renamed is read to its end; of one that was copied and cut off (`copytruncate`), the rest is read from the
copy. Files stay open between two looks, so that one that is compressed or removed meanwhile is still read to its end.

Owns the open files. Blocks: for worker threads.
"""

import glob
import os
import stat
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

LONGEST_LINE: Final = 16 * 1024  # bytes; the rest of a line is passed by
MOST_FILES: Final = 100
MOST_NEIGHBOURS: Final = 2000  # names of a directory that are looked at for a file's rest
MARKED: Final = 256  # bytes at the beginning, and before the place
LINGER_S: Final = 60.0  # a rotated file may still be written: some servers keep it open for a while
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4")


class Place(Struct, frozen=True, omit_defaults=True):
    """Where the reading of one file stands: all before `offset` (bytes) was read. `skipping`: the rest of a line that was
    cut, or was begun before the reading, comes next. `named` is the pattern that names the file, or did before it was
    rotated."""

    path: str
    inode: int
    named: str
    offset: int = 0
    mark: str = ""
    skipping: bool = False


class Piece(Struct, frozen=True):
    """Whole lines of a file, without their ends, and the place before and after them. A line may be longer than LONGEST_LINE."""

    lines: Sequence[bytes]
    before: Place
    after: Place
    begins: int = 0  # offset of the first line


class Looked(Struct, frozen=True):
    """Where the reading of each file stands; files of which some lines can no longer be found; what cannot be read, and why."""

    places: tuple[Place, ...]
    gaps: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()


class _File(Struct, frozen=True):
    path: str
    fd: int
    device: int
    inode: int
    named: str

    @property
    def key(self) -> tuple[int, int]:
        return self.device, self.inode

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def idle_s(self, wall: float) -> float:
        return wall - os.fstat(self.fd).st_mtime

    def mark(self, offset: int) -> str:
        """Return the mark of who has read up to `offset`: of the first bytes and of those before it."""
        if not offset:
            return ""
        ends = os.pread(self.fd, min(MARKED, offset), 0) + os.pread(self.fd, MARKED, max(0, offset - MARKED))[:offset]
        return blake2b(ends, digest_size=12).hexdigest()

    def goes_on(self, place: Place) -> bool:
        """Tell whether what was read up to a place is what the file begins with."""
        return self.size() >= place.offset and self.mark(place.offset) == place.mark


class Files:
    """The files that some patterns name. Not for two threads at once."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._held: dict[tuple[int, int], _File] = {}
        self._live: set[tuple[int, int]] = set()
        self._of: dict[Place, _File] = {}

    def close(self) -> None:
        """Close all files."""
        self._keep_open(())

    # ---- which files there are -----------------------------------------------------------------------------------------

    def look(self, places: Sequence[Place], *, from_end: bool) -> Looked:
        """Find the files of the places, and new ones; those are read from their beginning, or else from their end."""
        found, troubles = self._open_named()
        self._live = {file.key for file in found}
        rotated = [file for file in self._held.values() if file.key not in self._live]
        at: dict[tuple[int, int], Place] = {}
        gaps = []
        for place in [one for one in places if one.named in self._patterns]:
            file = next((one for one in (*found, *rotated) if one.inode == place.inode and one.goes_on(place)), None)
            file = file or self._neighbour(place)
            if file is not None:
                found_at = replace(place, path=file.path, inode=file.inode)
                at[file.key] = min(at.get(file.key, found_at), found_at, key=lambda one: one.offset)
            elif place.offset:
                gaps.append(place.path)
        for file in found:
            if file.key not in at:
                at[file.key] = self._begin(file, places, from_end)
        self._keep_open(at)
        self._of = {place: self._held[key] for key, place in at.items()}
        self._of = dict(sorted(self._of.items(), key=lambda one: one[1].key in self._live))  # what was rotated is older
        return Looked(tuple(self._of), tuple(gaps), tuple(troubles))

    def _begin(self, file: _File, places: Sequence[Place], from_end: bool) -> Place:
        """Return where the reading of a file that is not known begins: a copy of what was read has been read."""
        copied = any(place.offset and file.goes_on(place) for place in places)
        if not (copied or from_end):
            return Place(file.path, file.inode, file.named)
        size = file.size()
        begun = size > 0 and os.pread(file.fd, 1, size - 1) != b"\n"
        return Place(file.path, file.inode, file.named, size, file.mark(size), skipping=begun)

    def _open_named(self) -> tuple[list[_File], list[str]]:
        """Open what the patterns name. A file that is open already stays so."""
        found: dict[tuple[int, int], _File] = {}
        troubles: list[str] = []
        for pattern in self._patterns:
            for name in _names(pattern):
                if len(found) >= MOST_FILES:
                    return list(found.values()), [*troubles, f"{pattern} names more than {MOST_FILES} files"]
                try:
                    file = self._open(name, pattern)
                except OSError as error:
                    troubles.append(_words_of(error, name))
                else:
                    found.setdefault(file.key, file)
        return list(found.values()), troubles

    def _open(self, name: str, named: str) -> _File:
        """Open a file, or take the one that is open already. Raises OSError if it is none that can be followed."""
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        held = self._held.get(key)
        if held is not None or not stat.S_ISREG(status.st_mode):
            os.close(fd)
        if held is None and not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is no regular file")
        kept = _File(name, fd, *key, named) if held is None else replace(held, path=name)
        self._held[key] = kept
        return kept

    def _neighbour(self, place: Place) -> _File | None:
        """Find where a file went while nobody looked: renamed within its directory, or copied there and cut off."""
        if not place.offset:
            return None
        path = Path(place.path)
        with suppress(OSError):
            for entry in _entries(path.parent):
                is_it = entry.inode() == place.inode or entry.name.startswith(path.name.split(".")[0])
                if is_it and not entry.name.endswith(COMPRESSED) and entry.is_file():
                    before = set(self._held)
                    file = self._open(entry.path, place.named)
                    if file.goes_on(place):
                        return file
                    if file.key not in before:
                        os.close(self._held.pop(file.key).fd)
        return None

    def _keep_open(self, keys: Container[tuple[int, int]]) -> None:
        for key in [key for key in self._held if key not in keys]:
            os.close(self._held.pop(key).fd)

    # ---- reading ---------------------------------------------------------------------------------------------------------

    def read(self, place: Place, most: int, wall: float) -> Piece | None:
        """Read whole lines of at most so many bytes, None if there are none. `most` is larger than LONGEST_LINE.

        The last line of a file that is rotated and no longer written need not have an end.
        """
        file = self._of[place]
        offset, skipping = place.offset, place.skipping
        data = os.pread(file.fd, most, offset)
        is_last = len(data) < most and self.is_left(place, wall)
        past, skipping = _passed_by(data, skipping)
        offset, data = offset + past, data[past:]
        if not data:
            return Piece((), place, self._at(place, offset, skipping), offset) if past else None
        end = data.rfind(b"\n") + 1
        if end:
            lines = data[: end - 1].split(b"\n")
        elif is_last or len(data) > LONGEST_LINE:
            lines, end, skipping = [data], len(data), not is_last
        else:
            lines = []
        return Piece(lines, place, self._at(place, offset + end, skipping), offset) if past or end else None

    def after(self, piece: Piece, taken: int) -> Place:
        """Return the place after so many of the lines of a piece."""
        if taken == len(piece.lines):
            return piece.after
        read = sum(len(line) + 1 for line in piece.lines[:taken])
        return self._at(piece.before, piece.begins + read, False)

    def _at(self, place: Place, offset: int, skipping: bool) -> Place:
        """Return the place at another offset of its file."""
        return replace(place, offset=offset, skipping=skipping, mark=self._of[place].mark(offset))

    def last_lines(self, place: Place) -> Sequence[bytes]:
        """Return lines that stand before a place, the last ones: a few, to see what they look like."""
        begins = max(0, place.offset - LONGEST_LINE)
        lines = os.pread(self._of[place].fd, place.offset - begins, begins).split(b"\n")
        return lines[1 if begins else 0 : -1]

    def unread(self, place: Place) -> int:
        """Return how many bytes come after a place of `look`."""
        return max(0, self._of[place].size() - place.offset)

    def is_left(self, place: Place, wall: float) -> bool:
        """Tell whether a file of `look` was rotated and is no longer written. `wall` is the wall clock in unix seconds."""
        file = self._of[place]
        return file.key not in self._live and file.idle_s(wall) >= LINGER_S


def _passed_by(data: bytes, skipping: bool) -> tuple[int, bool]:
    """Return how many bytes no line begins with, and whether the rest of a line is still to come.

    A log that was cut off under a server that does not append begins with zeros.
    """
    if skipping:
        end = data.find(b"\n") + 1
        return (end, False) if end else (len(data), True)
    return len(data) - len(data.lstrip(b"\0")), False


def _names(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    return sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")) if not path.name.endswith(COMPRESSED))


def _entries(folder: Path) -> "Iterator[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count == MOST_NEIGHBOURS:
                return
            yield entry


def _words_of(error: OSError, name: str) -> str:
    """Say what is wrong with a file, and how to mend it."""
    if isinstance(error, PermissionError):
        return f"{name} may not be read; add the daemon's user to the file's group, often adm"
    if isinstance(error, FileNotFoundError):
        return f"{name} is not there"
    return f"{name} {error.strerror}"
