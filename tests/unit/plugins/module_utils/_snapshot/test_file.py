# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a snapshot file is written completely or not at all, and that a restore refuses an incomplete file."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot import file as snapshot_file
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import (
    CannotWrite,
    Counter,
    Header,
    Snapshot,
    Writer,
    check_place,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import spread

pytestmark = pytest.mark.portability

Document = Dict[str, Any]

HEADER = Header("gw1", "6.18.1", "2030-01-31T12:00:00Z", {"voip": 5})
SAME: Document = {"family": "ipv4", "protocol": "udp"}
RECORDS: list[Document] = [
    {**SAME, "original.source": "10.0.0.1", "status": ["confirmed"], "mark": 0},
    {**SAME, "original.source": '10.0.0.2", "', "status": [], "mark": 7},
    {**SAME, "original.source": "10.0.0.3", "extra": {"99": "00"}},
]
EXPECTATION: Document = {"family": "ipv4", "tuple.protocol": "tcp"}


def write(path: Path, records: list[Document] | None = None, writer: Counter | None = None) -> Header:
    with Writer(str(path), HEADER) as own:
        for record in RECORDS if records is None else records:
            (writer or own).write("entries", {key: [value] for key, value in record.items()}, ("family", "protocol"))
        own.write("expectations", {key: [value] for key, value in EXPECTATION.items()})
    return own.header


def read(path: Path, of: str = "entries") -> list[Document]:
    with Snapshot(str(path)) as snapshot:
        return [dict(zip(block.keys, row)) for block in snapshot.blocks(of) for row in block.rows]


def sealed(lines: list[bytes]) -> bytes:
    """Return the lines with a valid checksum, as an attacker can write them."""
    header = json.loads(lines[0])
    header["sha256"] = "0" * 64
    first, body = json.dumps(header).encode() + b"\n", b"".join(line + b"\n" for line in lines[1:])
    digest = hashlib.sha256(body + first).hexdigest()
    return first.replace(b"0" * 64, digest.encode()) + body


@pytest.fixture(params=["snapshot", "snapshot.gz"])
def path(request: Any, tmp_path: Path) -> Path:
    return tmp_path / request.param


# file content


def test_written_records_are_read_back(path: Path) -> None:
    header = write(path)
    assert read(path) == RECORDS
    assert read(path, "expectations") == [EXPECTATION]
    assert (header.entries, header.expectations) == (3, 1)
    with Snapshot(str(path)) as snapshot:
        assert snapshot.header == header
        assert snapshot.keys["entries"] == {key for record in RECORDS for key in record}


def test_empty_table_can_be_saved(path: Path) -> None:
    write(path, [])
    assert read(path) == []


def test_file_is_readable_text(path: Path) -> None:
    write(path)
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii").splitlines()
    assert json.loads(lines[0])["entries"] == 3
    assert json.loads(lines[0])["format"] == "netops.conntrack snapshot"
    assert json.loads(lines[1]) == {"of": "entries", "alike": SAME, "keys": ["original.source", "status", "mark"]}
    assert lines[2] == '["10.0.0.1",["confirmed"],0]'
    assert (path.suffix == ".gz") == (data[:2] == b"\x1f\x8b")


def test_records_of_one_layout_store_their_keys_once(path: Path) -> None:
    write(path, [RECORDS[0]] * 1000)
    assert len(read(path)) == 1000
    with Snapshot(str(path)) as snapshot:
        assert len({id(block.keys) for block in snapshot.blocks("entries")}) == 1


def test_records_are_read_across_chunk_boundaries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    for size in range(1, 40):
        monkeypatch.setattr(snapshot_file, "_CHUNK", size)
        assert read(path) == RECORDS


def test_compression_is_detected_from_the_content(tmp_path: Path) -> None:
    write(tmp_path / "snapshot.gz")
    os.rename(tmp_path / "snapshot.gz", tmp_path / "other")
    assert read(tmp_path / "other") == RECORDS


def test_only_the_owner_can_read_the_file(path: Path) -> None:
    old = os.umask(0)
    try:
        write(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# atomic replacement


class Unplugged(Exception):
    pass


def test_failed_save_keeps_the_old_file_and_no_temporary_file(path: Path) -> None:
    write(path)
    before = path.read_bytes()

    class Broken(Counter):
        def write(self, of: str, columns: Any, alike: Any = ()) -> None:
            raise Unplugged

    with pytest.raises(Unplugged):
        write(path, writer=Broken())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "link", "rename"])
def test_disk_error_at_the_end_keeps_the_old_file(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    before = path.read_bytes()

    def fail(*_arguments: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CannotWrite, match="cannot be written: No space left on device"):
        write(path, RECORDS[:1])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_file_is_synced_before_it_replaces_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(old: str, new: str, **folders: int) -> None:
        steps.append("rename")
        with Snapshot(str(path.parent / old)):  # the file is already complete
            rename(old, new, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write(path)
    assert steps == ["file", "rename", "folder"]


def test_symbolic_link_is_kept_and_its_target_is_written(path: Path, tmp_path: Path) -> None:
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path)
    write(link)
    assert link.is_symlink()
    assert read(path) == RECORDS


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("root:x:0:0\n"), "exists and is not a snapshot; remove it first"),
        (lambda path: path.write_bytes(gzip.compress(b"tar")), "exists and is not a snapshot; remove it first"),
        (lambda path: path.parent.rmdir(), "there is no directory"),
        (os.mkfifo, "cannot be written: it is a FIFO, not a regular file"),
    ],
    ids=["directory", "passwd", "archive", "nowhere", "fifo"],
)
def test_other_files_are_not_overwritten(prepare: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "snapshot"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(InvalidValue, match=says):
        write(path)


def test_path_with_a_trailing_slash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("mine")
    for path in ("hosts/", "hosts/.", "new/"):
        says = f"^path: .*/{path} cannot be written: it names a directory; write"
        with pytest.raises(InvalidValue, match=says), Writer(f"{tmp_path}/{path}", HEADER):
            pass
    assert (tmp_path / "hosts").read_text() == "mine"
    assert os.listdir(str(tmp_path)) == ["hosts"]


@pytest.mark.parametrize("there", [True, False])
def test_a_planted_link_is_not_followed(there: bool, tmp_path: Path) -> None:
    """With such a link, a local user could make root overwrite or create any file."""
    if there:
        write(tmp_path / "target")
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    (public / "snapshot").symlink_to("../target")
    with pytest.raises(InvalidValue, match="cannot be written: the symbolic link snapshot is in a directory where"):
        write(public / "snapshot", RECORDS[:1])
    assert (tmp_path / "target").exists() == there
    assert not there or read(tmp_path / "target") == RECORDS


def test_file_that_cannot_be_examined_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts").write_text("mine")
    stats = os.stat

    def refused(path: Any, **more: Any) -> os.stat_result:
        if str(path).endswith("hosts"):
            raise PermissionError(13, "Permission denied")
        return stats(path, **more)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(InvalidValue, match="hosts cannot be written: Permission denied"):
        write(tmp_path / "hosts")
    assert (tmp_path / "hosts").read_text() == "mine"


def test_file_created_during_the_save_is_not_overwritten(path: Path) -> None:
    with pytest.raises(InvalidValue, match="exists and is not a snapshot"), Writer(str(path), HEADER):
        path.write_text("mine")
    assert path.read_text() == "mine"
    assert os.listdir(str(path.parent)) == [path.name]


def test_an_empty_file_is_overwritten(path: Path) -> None:
    """The module tempfile creates such a file."""
    path.touch()
    write(path)
    assert read(path) == RECORDS


def test_a_damaged_snapshot_is_overwritten(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert check_place(str(path)) is not None
    write(path)
    assert read(path) == RECORDS


# refused files


def test_truncated_file_is_refused(path: Path) -> None:
    write(path)
    whole = path.read_bytes()
    for length in spread(range(len(whole))):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidValue) as refused:
            read(path)
        assert str(refused.value).startswith(f"path: {path} ")
        assert "\n" not in str(refused.value)


def test_file_with_a_changed_byte_is_refused_or_reads_the_same(path: Path) -> None:
    """A few bytes of a compressed file, such as its time, have no meaning."""
    write(path)
    whole = path.read_bytes()
    accepted = 0
    for place in spread(range(len(whole))):
        for bit in (0x01, 0x20, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                found = read(path)
            except InvalidValue:
                continue
            assert found == RECORDS
            accepted += 1
    assert accepted == 0 or (path.suffix == ".gz" and accepted < 60)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a snapshot"),
        (b"\n", "is not a snapshot"),
        (b"{}\n", "is not a snapshot"),
        (b"[1]\n", "is not a snapshot"),
        (b'{"format": "tar"}\n', "is not a snapshot"),
        (b"ipv4     2 udp      17 29 src=10.0.0.1\n", "is not a snapshot"),
        (b'{"format": "netops.conntrack snapshot", "version": 2, "new": []}\n', "of format 2.*update the collection"),
        (b'{"format": "netops.conntrack snapshot", "version": 1}\n', "has an incomplete header"),
        (b'{"format": "netops.conntrack snapshot", "version": "1"}\n', "has an incomplete header"),
        (b'{\n    "entries": []\n}\n', "is not a snapshot"),
        (b"{" * 100_000 + b"\n", "is not a snapshot"),
        (b'{"format": "netops.conntrack snapshot", "version": ' + b"[" * 100_000, "has a line that is not a record"),
        (b"x" * 3_000_000, "is not a snapshot"),
    ],
)
def test_other_content_is_refused_with_one_sentence(content: bytes, says: str, path: Path) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(InvalidValue, match=says):
        read(path)


def test_unreadable_path_is_refused_with_one_sentence(tmp_path: Path) -> None:
    for name, says in (("absent", "No such file"), (".", "Is a directory")):
        with pytest.raises(InvalidValue, match=says):
            read(tmp_path / name)


def forgeries() -> Iterator[Any]:
    lines = json.dumps({"format": snapshot_file.FORMAT, **HEADER._asdict(), "entries": 1}).encode()
    layout = b'{"of": "entries", "alike": {}, "keys": ["mark"]}'
    for name, body in {
        "no layout": [b"[1]"],
        "another number": [layout],
        "more": [layout, b"[1]", b"[1]"],
        "too long": [layout, b"[1,2]"],
        "too short": [layout, b"[]"],
        "no JSON": [layout, b"[1"],
        "a number": [layout, b"1"],
        "two in one": [layout, b"[1],[2]"],
        "deep": [layout, b"[" * 100_000],
        "unknown kind": [b'{"of": "others", "alike": {}, "keys": ["mark"]}', b"[1]"],
        "no keys": [b'{"of": "entries", "alike": {}}', b"[1]"],
        "invalid keys": [b'{"of": "entries", "alike": {}, "keys": [1]}', b"[1]"],
        "a key that is invalid text": [b'{"of": "entries", "alike": {}, "keys": ["\\ud800"]}', b"[1]"],
        "a key twice": [b'{"of": "entries", "alike": {"mark": 1}, "keys": ["mark"]}', b"[1]"],
        "invalid kind": [b'{"of": [], "alike": {}, "keys": ["mark"]}', b"[1]"],
        "a long line": [layout, b"[" + b" " * 3_000_000 + b"1]"],
    }.items():
        yield pytest.param([lines, *body], id=name)


@pytest.mark.parametrize("lines", list(forgeries()))
def test_forged_file_with_a_valid_checksum_is_refused(lines: list[bytes], tmp_path: Path) -> None:
    """The checksum is valid, because an attacker can calculate it."""
    path = tmp_path / "snapshot"
    path.write_bytes(sealed(lines))
    with pytest.raises(InvalidValue):
        read(path)


def test_valid_file_with_a_calculated_checksum_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    header = json.dumps({"format": snapshot_file.FORMAT, **HEADER._asdict(), "entries": 1}).encode()
    path.write_bytes(sealed([header, b'{"of": "entries", "alike": {}, "keys": ["mark"]}', b"[1]"]))
    assert read(path) == [{"mark": 1}]


#: Half of a surrogate pair, which is invalid in any text.
HALF = "\ud800"


@pytest.mark.parametrize(
    "change",
    [
        *({key: value} for key in ("host", "kernel", "time") for value in (None, 5, HALF, "gw1\n", "x" * 300)),
        *({key: value} for key in ("entries", "expectations") for value in (None, "1", 1.0, True, -1, 10**30)),
        *({"sha256": value} for value in (5, "", "0" * 63, "0" * 65, "G" * 64, "\u0661" * 64, HALF, HALF * 64)),
        *({"version": value} for value in (None, "1", 1.0, True, 0, -3, 10**30)),
        *({"labels": value} for value in (None, [], [["voip", 5]], {"voip": "5"}, {"voip": True}, {"voip": 5.0})),
        *({"labels": value} for value in ({"voip": -1}, {"voip": 128}, {HALF: 5}, {"a\nb": 5}, {"x" * 300: 5})),
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_invalid_header_is_refused(change: Document, tmp_path: Path) -> None:
    """The result shows the whole header, and an attacker can calculate a valid checksum."""
    path = tmp_path / "snapshot"
    header = {"format": snapshot_file.FORMAT, **HEADER._asdict(), **change}
    seal = sealed if "sha256" not in change else b"".join
    path.write_bytes(seal([json.dumps(header).encode()]) + b"\n" * ("sha256" in change))
    many = isinstance(change.get("entries", change.get("expectations")), int) and 10**30 in change.values()
    with pytest.raises(InvalidValue) as refused:
        read(path)
    sentence = str(refused.value)
    assert ("the number of records in its header" if many else "has no valid header; use another copy") in sentence
    if not many:
        with pytest.raises(InvalidValue, match="exists and is not a snapshot"):
            check_place(str(path))


def test_valid_header_with_a_calculated_checksum_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(sealed([json.dumps({"format": snapshot_file.FORMAT, **HEADER._asdict()}).encode()]))
    assert read(path) == []


@pytest.mark.parametrize("use", [snapshot_file.check_place, Snapshot])
@pytest.mark.parametrize("nothing", ["", None])
def test_empty_path_is_refused(use: Any, nothing: Any) -> None:
    """An empty name would stand for the current directory."""
    with pytest.raises(InvalidValue, match="^path: is empty; write the name of a file$"):
        use(nothing)


@pytest.mark.parametrize(
    ("entries", "expectations", "says"),
    [(0, 0, "0 entries"), (1, 0, "1 entry"), (0, 1, "1 expectation"), (2, 1, "2 entries and 1 expectation"),
     (1, 2, "1 entry and 2 expectations")],
)  # fmt: skip
def test_header_shows_the_number_of_records(entries: int, expectations: int, says: str) -> None:
    header = HEADER._replace(entries=entries, expectations=expectations)
    assert header.amount() == says
    assert header.as_line().startswith(f"{says} of gw1 (Linux 6.18.1) at ")


def test_refused_file_is_closed(path: Path) -> None:
    """An unclosed file emits a warning, which is an error in this test suite."""
    write(path)
    path.write_bytes(path.read_bytes()[:-1])
    for _attempt in range(2):
        with pytest.raises(InvalidValue):
            Snapshot(str(path))


# the verified content is the content that is used


def values_of(snapshot: Snapshot, found: list[Any] | None = None) -> list[Any]:
    """Add the last value of each record to a list, which the caller can also read after an exception."""
    found = [] if found is None else found
    for of in ("entries", "expectations"):
        for block in snapshot.blocks(of):
            found += [row[-1] for row in block.rows]
    return found


@pytest.mark.parametrize("place", ["header", "first", "last", "more", "less"])
def test_snapshot_changed_after_its_verification_is_refused(
    place: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program writes into the open file, so that other entries would follow the old checksum."""
    monkeypatch.setattr(snapshot_file, "_CHUNK", 64)
    write(path, [{**SAME, "mark": mark} for mark in range(100)])
    with Snapshot(str(path)) as snapshot:
        expected = values_of(snapshot)
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    changed = {
        "header": text.replace(b"gw1", b"gw2", 1),
        "first": text.replace(b"[0]", b"[7]"),
        "last": text.replace(b"[99]", b"[98]"),
        "more": text + b'{"of": "entries", "alike": {}, "keys": ["mark"]}\n[5]\n',
        "less": text[: text.index(b"[50]")],
    }[place]
    with Snapshot(str(path)) as snapshot:
        with path.open("r+b") as file:
            file.truncate()
            file.write(gzip.compress(changed) if path.suffix == ".gz" else changed)
        found: list[Any] = []
        with pytest.raises(InvalidValue, match="was changed while it was read; run the task again|damaged"):
            values_of(snapshot, found)
    assert found == expected[: len(found)]


def test_verified_snapshot_can_be_read_repeatedly(path: Path) -> None:
    write(path)
    with Snapshot(str(path)) as snapshot:
        for _time in range(3):
            assert [row for block in snapshot.blocks("entries") for row in block.rows][-1][-1] == {"99": "00"}


# memory use of a small file


def forged(path: Path, *lines: bytes, entries: int = 0) -> None:
    header = json.dumps({"format": snapshot_file.FORMAT, **HEADER._asdict(), "entries": entries}).encode()
    path.write_bytes(gzip.compress(sealed([header, *lines])))


def layout(*keys: str, alike: Document | None = None) -> bytes:
    return json.dumps({"of": "entries", "alike": alike or {}, "keys": keys}).encode()


def test_number_of_different_keys_is_limited(tmp_path: Path) -> None:
    forged(tmp_path / "some", *(layout(f"key {number}") for number in range(1000)))
    with Snapshot(str(tmp_path / "some")) as snapshot:
        assert len(snapshot.keys["entries"]) == 1000
    for name, lines in (
        ("many", [layout(f"key {number}") for number in range(1001)]),
        ("at once", [layout(*(f"key {number}" for number in range(1001)))]),
    ):
        forged(tmp_path / name, *lines)
        with pytest.raises(InvalidValue, match="more different keys than a snapshot can have"):
            Snapshot(str(tmp_path / name))


def test_memory_use_of_many_layouts_is_limited(tmp_path: Path) -> None:
    """Each layout has one record, and values that are the same in all records of the layout."""
    number, text = 9000, "x" * 1000
    lines = [line for each in range(number) for line in (layout("mark", alike={"a": f"{each}{text}"}), b"[1]")]
    forged(tmp_path / "snapshot", *lines, entries=number)
    with Snapshot(str(tmp_path / "snapshot")) as snapshot:
        tracemalloc.start()
        try:
            assert sum(len(block.rows) for block in snapshot.blocks("entries")) == number
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_memory_use_of_records_with_many_common_values_is_limited(tmp_path: Path) -> None:
    forged(
        tmp_path / "snapshot", layout(alike={f"key {key}": 0 for key in range(900)}), *[b"[]"] * 50_000, entries=50_000
    )
    with Snapshot(str(tmp_path / "snapshot")) as snapshot:
        tracemalloc.start()
        try:
            assert sum(len(block.rows) for block in snapshot.blocks("entries")) == 50_000
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()
