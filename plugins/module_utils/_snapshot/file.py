# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshot files: a header and records. A file is replaced atomically, and read only if it is complete.

This module does not depend on the kernel.

A snapshot consists of lines of JSON, in a file that may be compressed with gzip. The first line is the header: the
format, the host, the time, the number of records, and the checksum. After it, a line with `keys` describes the records
that follow, up to the next such line. A record is a list of the values of these keys, in this order. Keys that have the
same value in all of these records are in `alike`::

    {"format": "netops.conntrack snapshot", "version": 1, "host": "gw1", "kernel": "6.18.1",
     "time": "2030-01-31T12:00:00Z", "labels": {}, "entries": 2, "expectations": 0, "sha256": "…"}
    {"of": "entries", "alike": {"family": "ipv4", "protocol": "udp"}, "keys": ["original.source", …, "timeout"]}
    ["10.1.0.2", …, 118]
    ["10.1.0.3", …, 30]

The checksum is the SHA-256 of all lines after the header, followed by the header with zeros in place of the checksum.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from itertools import compress, count, repeat
from json.encoder import encode_basestring_ascii
from operator import is_
from typing import IO, Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from .._atomic_file import Place, Replacement
from ..client import input_file
from ..client.codec.types import LABEL_BITS
from ..client.errors import ConntrackError, InvalidValue

FORMAT = "netops.conntrack snapshot"
VERSION = 1
#: The kinds of records in a snapshot.
ENTRIES, EXPECTATIONS = KINDS = ("entries", "expectations")

_ZEROS = "0" * 64
_HEXADECIMAL = frozenset("0123456789abcdef")
#: Numbers from this one on are not version numbers.
_NO_VERSION = 1 << 16
#: The maximum length of a text in a header.
_LONGEST_TEXT = 256
#: Blanks reserved in the header for each number, which is known only at the end.
_DIGITS = 12
#: The number of bytes read at a time. The records of a larger piece leave the processor's cache before they are used.
_CHUNK = 1 << 16
#: The maximum length of a line.
_LONGEST = 1 << 20
#: The maximum number of different keys in the records of one kind.
_MOST_KEYS = 1000
#: The maximum number of layouts in memory, and of records in a block.
_SOME = 4096
_GZIP = b"\x1f\x8b"
#: The gzip level. Higher levels take twice the time to save a tenth of the size.
_COMPRESSION = 1


class CannotWrite(ConntrackError):
    """The file could not be written. A file that existed before is unchanged."""


class Header(NamedTuple):
    """The header of a snapshot: where and when it was taken, the names of label bits, and the number of records."""

    host: str
    kernel: str
    time: str
    labels: dict[str, int]
    entries: int = 0
    expectations: int = 0
    sha256: str = _ZEROS
    version: int = VERSION

    def as_result(self) -> dict[str, Any]:
        """Return the header as a part of a module's result."""
        shown = self._asdict()
        del shown["labels"]
        return {"checksum": shown.pop("sha256"), "snapshot": shown}

    def as_line(self) -> str:
        """Return the header as a line of a diff."""
        return f"{self.amount()} of {self.host} (Linux {self.kernel}) at {self.time}\n"

    def amount(self) -> str:
        """Return the number of entries and expectations for a sentence."""
        parts = [numbered(self.entries, "entry", "entries")] if self.entries or not self.expectations else []
        if self.expectations:
            parts.append(numbered(self.expectations, "expectation", "expectations"))
        return " and ".join(parts)


def numbered(number: int, one: str, several: str) -> str:
    """Return a number with its noun for a sentence."""
    return f"{number} {one if number == 1 else several}"


class Block(NamedTuple):
    """Consecutive records: their keys, the same object in all blocks of a layout, and the values of each record."""

    of: str
    keys: tuple[str, ...]
    rows: list[list[Any]]


# writing


class Counter:
    """Accepts records as a `Writer` does, but only counts them."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)

    def write(self, of: str, columns: Mapping[str, Sequence[Any]], alike: Sequence[str] = ()) -> None:
        """Add records, given as a column of values per key. Keys in `alike` have the same value in all records."""
        self.counts[of] += len(next(iter(columns.values())))

    def counted(self, header: Header) -> Header:
        """Return the header with the numbers of records."""
        return header._replace(entries=self.counts[ENTRIES], expectations=self.counts[EXPECTATIONS])


class Writer(Counter):
    """Writes a snapshot, and puts it in place when the `with` block ends. If that fails, no file is left behind.

    Raises `InvalidValue` if there is a file at `path` that is not a snapshot, and `CannotWrite`.
    """

    def __init__(self, path: str, header: Header) -> None:
        super().__init__()
        self._path = path
        #: The header as given, and after the `with` block the header as written.
        self.header = header
        self._compressed = path.endswith(".gz")
        self._digest = hashlib.sha256()
        self._room = len(_line(header)) + len(KINDS) * _DIGITS
        self._layout = ""

    def __enter__(self) -> Writer:
        with contextlib.ExitStack() as opened:
            self._place = opened.enter_context(_place(self._path))
            _check_there(self._place, self._path)
            with writing(self._path):
                self._replacement = opened.enter_context(Replacement(self._place))
                self._file = self._body = self._replacement.file
                self._write_header()
                if self._compressed:
                    self._body = gzip.GzipFile("", "wb", _COMPRESSION, self._file, mtime=0)  # type: ignore[assignment]
            self._opened = opened.pop_all()
        return self

    def write(self, of: str, columns: Mapping[str, Sequence[Any]], alike: Sequence[str] = ()) -> None:
        super().write(of, columns)
        same = {key: columns[key][0] for key in alike if key in columns}
        keys = [key for key in columns if key not in same]
        layout = json.dumps({"of": of, "alike": same, "keys": keys}) + "\n"
        records = "]\n[".join(map(",".join, zip(*[_texts(columns[key]) for key in keys])))
        text = f"{'' if layout == self._layout else layout}[{records}]\n".encode("ascii")
        self._layout = layout
        self._digest.update(text)
        with writing(self._path):
            self._body.write(text)

    def __exit__(self, kind: object, *exception: object) -> None:
        with self._opened:
            try:
                if kind is None:
                    self._put_in_place()
            finally:
                if self._body is not self._file:
                    with contextlib.suppress(OSError, ValueError):
                        self._body.close()

    def _put_in_place(self) -> None:
        self.header = self.counted(self.header)
        self._digest.update(self._header_line())
        self.header = self.header._replace(sha256=self._digest.hexdigest())
        with writing(self._path):
            if self._body is not self._file:
                self._body.close()
            self._file.seek(0)
            self._write_header()
        _check_there(self._place, self._path)
        with writing(self._path):
            self._replacement.commit()

    def _write_header(self) -> None:
        """Write the header. At the end it is written again with the numbers, in the same length."""
        line = self._header_line()
        self._file.write(gzip.compress(line, 0, mtime=0) if self._compressed else line)

    def _header_line(self) -> bytes:
        return f"{_line(self.header):{self._room}}\n".encode("ascii")


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise `CannotWrite` for the file at `path` if the block raises `OSError`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror or error}") from error


def check_place(path: str) -> Header | None:
    """Return the header of the snapshot at `path`, None if there is no file or an empty one.

    Raises `InvalidValue` if there is anything else, and if a file cannot be written there.
    """
    with _place(path) as place:
        return _check_there(place, path)


def _place(path: str) -> Place:
    _check_named(path)
    if os.path.isdir(path):
        raise InvalidValue("path", f"{path} is a directory; write the name of a file in it")
    try:
        return Place(path)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(path))
        raise InvalidValue("path", f"there is no directory {folder}; create it first") from None
    except OSError as error:
        raise _unwritable(path, error) from error


def _check_there(place: Place, path: str) -> Header | None:
    """Return the header of the snapshot at a place, None if there is no file or an empty one.

    Raises `InvalidValue` if there is anything else.
    """
    try:
        there = place.status()
        if there is None:
            return None
        file = place.open()
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        found = _header_in(file, path)
    if there.st_size and found is None:
        raise InvalidValue("path", f"{path} exists and is not a snapshot; remove it first, or write another name")
    return found


def _unwritable(path: str, error: OSError) -> InvalidValue:
    return InvalidValue("path", f"{path} cannot be written: {error.strerror}; write the path of another file")


def _check_named(path: str) -> None:
    if not path:
        raise InvalidValue("path", "is empty; write the name of a file")


def _header_in(file: IO[bytes], path: str) -> Header | None:
    """Return the header of a snapshot, whose records may be damaged. Return None if the file is not a snapshot."""
    try:
        with _unpacked(file, path) as snapshot:
            return _header_of(_first_line(snapshot, path), path)
    except InvalidValue:
        return None


def _line(header: Header) -> str:
    return json.dumps({"format": FORMAT, "version": header.version, **header._asdict()})


def _texts(column: Sequence[Any]) -> Iterable[str]:
    """Return values as JSON. A list object that occurs several times is encoded once."""
    kinds = set(map(type, column))
    if kinds == {int}:
        return map(str, column)
    if kinds == {str}:
        return map(encode_basestring_ascii, column)
    words = {number: json.dumps(value) for number, value in {id(value): value for value in column}.items()}
    return [words[id(value)] for value in column]


# reading


class Snapshot:
    """A snapshot that was read completely and verified. Close it after use.

    Raises `InvalidValue` for any other file, and for a snapshot that is incomplete or was changed after it was written.
    """

    def __init__(self, path: str) -> None:
        _check_named(path)
        self._path = path
        #: All keys of the records, by their kind.
        self.keys: dict[str, set[str]] = {of: set() for of in KINDS}
        #: The digest after each verified piece, to verify the pieces again when the records are read.
        self._digests: list[bytes] = []
        with contextlib.ExitStack() as opened:
            self._file = opened.enter_context(_opened(path))
            self._line = _first_line(self._file, path)
            self.header = _header_of(self._line, path)
            self._verify()
            self._opened = opened.pop_all()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def blocks(self, of: str) -> Iterator[Block]:
        """Yield the records of one kind in their order.

        Raises `InvalidValue` if a line is not a record, or if the file was changed after it was verified.
        """
        with _reading(self._path):
            self._file.seek(0)
        if _first_line(self._file, self._path) != self._line:
            raise self._changed()
        layout = _NO_LAYOUT
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        for lines in self._lines(self._verified()):
            try:
                items = json.loads(b"[" + b",".join(lines) + b"]")
            except (ValueError, RecursionError) as error:
                raise _no_record(self._path) from error
            if len(items) != len(lines):
                raise _no_record(self._path)
            start = 0
            for place in [*compress(count(), map(is_, map(type, items), repeat(dict))), len(items)]:
                if layout.of == of:
                    for first in range(start, place, _SOME):
                        some = items[first : min(first + _SOME, place)]
                        yield Block(of, layout.keys, layout.rows(some, self._path))
                start = place + 1
                if place < len(items):
                    layout = _layout_of(items[place], self._path)
                    if len(known) >= _SOME:
                        known.clear()
                    layout = layout._replace(keys=known.setdefault((*layout.keys, repr(layout.alike)), layout.keys))

    def _verify(self) -> None:
        digest = hashlib.sha256()
        counts = dict.fromkeys(("", *KINDS), 0)
        layout = _NO_LAYOUT
        for lines in self._lines(self._hashed(digest)):
            start = 0
            for place in [*(place for place, line in enumerate(lines) if line[:1] == b"{"), len(lines)]:
                counts[layout.of] += place - start
                start = place + 1
                if place < len(lines):
                    layout = _layout_of(_parsed(lines[place], self._path), self._path)
                    self.keys[layout.of].update(layout.keys)
                    if len(self.keys[layout.of]) > _MOST_KEYS:
                        raise _fault(self._path, "has records with more different keys than a snapshot can have")
        digest.update(self._line.replace(self.header.sha256.encode(), _ZEROS.encode()))
        if digest.hexdigest() != self.header.sha256:
            raise _fault(self._path, "does not match its checksum: it is truncated or was changed")
        if counts != {"": 0, **{of: getattr(self.header, of) for of in KINDS}}:
            raise _fault(self._path, "does not have the number of records in its header")

    def _pieces(self) -> Iterator[bytes]:
        """Yield the content after the header in pieces of up to `_CHUNK` bytes."""
        while True:
            with _reading(self._path):
                piece = self._file.read(_CHUNK)
            if not piece:
                return
            yield piece

    def _hashed(self, digest: Any) -> Iterator[bytes]:
        for piece in self._pieces():
            digest.update(piece)
            self._digests.append(digest.copy().digest())
            yield piece

    def _verified(self) -> Iterator[bytes]:
        digest, expected = hashlib.sha256(), iter(self._digests)
        for piece in self._pieces():
            digest.update(piece)
            if digest.copy().digest() != next(expected, None):
                raise self._changed()
            yield piece
        if next(expected, None) is not None:
            raise self._changed()

    def _changed(self) -> InvalidValue:
        return InvalidValue(
            "path", f"{self._path} was changed while it was read; run the task again when no other program writes to it"
        )

    def _lines(self, pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield the lines that each piece completes. Raises `InvalidValue` if a line is too long or has no end."""
        rest = b""
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST:
                raise _no_record(self._path)
            if lines:
                yield lines
        if rest:
            raise _fault(self._path, "is truncated: its last line has no end")


class _Layout(NamedTuple):
    """The kind of records, all of their keys, and the values of the first keys, which are the same in all records."""

    of: str
    keys: tuple[str, ...]
    alike: list[Any]

    def rows(self, records: list[Any], path: str) -> list[list[Any]]:
        if set(map(type, records)) != {list} or set(map(len, records)) != {len(self.keys) - len(self.alike)}:
            raise _no_record(path)
        return list(map(self.alike.__add__, records))


_NO_LAYOUT = _Layout("", (), [])


def _layout_of(item: Any, path: str) -> _Layout:
    of, alike, keys = item.get("of"), item.get("alike"), item.get("keys")
    if of not in KINDS or not isinstance(alike, dict) or not isinstance(keys, list):
        raise _no_record(path)
    together = (*alike, *keys)
    if not together or not all(map(is_readable, together)) or len(set(together)) != len(together):
        raise _no_record(path)
    return _Layout(of, together, list(alike.values()))


def _header_of(line: bytes, path: str) -> Header:
    # Other files can also begin with a brace, for example indented JSON
    about = _parsed(line, path) if line[:1] == b"{" and FORMAT.encode() in line else {}
    if about.pop("format", None) != FORMAT:
        raise InvalidValue("path", f"{path} is not a snapshot; name a file that conntrack_snapshot has written")
    version = about.get("version")
    if version.__class__ is int and VERSION < version < _NO_VERSION:
        raise InvalidValue(
            "path",
            f"{path} is of format {version}, and this version of the collection reads no later one than {VERSION}; "
            "update the collection",
        )
    try:
        header = Header(**{key: about[key] for key in Header._fields})
    except KeyError:
        raise _fault(path, "has an incomplete header") from None
    if not _is_sound(header):
        raise _fault(path, "has no valid header")
    return header


def _is_sound(header: Header) -> bool:
    """Return whether each value of a header is valid. All of them are shown to the user."""
    labels, sha256, numbers = header.labels, header.sha256, (header.entries, header.expectations)
    return (
        all(map(is_readable, (header.host, header.kernel, header.time)))
        and labels.__class__ is dict
        and all(is_readable(name) and bit.__class__ is int and 0 <= bit < LABEL_BITS for name, bit in labels.items())
        and all(number.__class__ is int and number >= 0 for number in numbers)
        and header.version.__class__ is int
        and header.version == VERSION
        and sha256.__class__ is str
        and len(sha256) == len(_ZEROS)
        and not set(sha256) - _HEXADECIMAL
    )


def is_readable(value: object) -> bool:
    """Return whether a value is printable text of at most `_LONGEST_TEXT` characters."""
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_TEXT


def _first_line(file: IO[bytes], path: str) -> bytes:
    with _reading(path):
        return file.readline(_LONGEST)


def _parsed(line: bytes, path: str) -> dict[str, Any]:
    """Parse a line that begins with a brace. Raises `InvalidValue`."""
    try:
        found: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_record(path) from error
    return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    with _reading(path):
        raw = input_file.binary(path)
    with raw, _unpacked(raw, path) as file:
        yield file


def _unpacked(raw: IO[bytes], path: str) -> IO[bytes]:
    """Return a file object with the content, decompressed if the file is compressed with gzip."""
    with _reading(path):
        start = raw.read(len(_GZIP))
        raw.seek(0)
    return raw if start != _GZIP else gzip.GzipFile("", "rb", fileobj=raw)  # type: ignore[return-value]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise _fault(path, f"is truncated or damaged ({error})") from error
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise _fault(path, f"is truncated or damaged ({error})") from error
        raise InvalidValue("path", f"{path} cannot be read: {error.strerror or error}") from error


def _fault(path: str, what: str) -> InvalidValue:
    return InvalidValue("path", f"{path} {what}; use another copy of it")


def _no_record(path: str) -> InvalidValue:
    return _fault(path, "has a line that is not a record")
