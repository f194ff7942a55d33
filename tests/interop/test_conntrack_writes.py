# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""conntrack(8) creates and changes entries. The client reads them and uses the same names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples, views
from tests.lab import Namespace
from tests.samples import CLIENT, INSIDE, OUTSIDE, SERVER

Document = dict[str, Any]

#: TCP values that conntrack(8) always sets: it disables the window check of the kernel.
LIBERAL = {"window_scale": 0, "flags": ["sack_permitted", "be_liberal"]}
#: The same values in the last states, in which the client has also started to close.
CLOSING = {"window_scale": 0, "flags": ["sack_permitted", "close_init", "be_liberal"]}


class Case(NamedTuple):
    """Options of `conntrack -I` besides the addresses, and the gathered entry."""

    name: str
    options: str
    gathered: Document


def tcp(state: str) -> Document:
    side = CLOSING if state in ("time_wait", "close", "syn_sent2") else LIBERAL
    return {**samples.flow("ipv4", "tcp", 1, 2), "tcp": {"state": state, "original": side, "reply": side}}


def udp(**more: Any) -> Document:
    return {**samples.flow("ipv4", "udp", 1, 2), **more}


def replied(document: Document, **reply: Any) -> Document:
    return {**document, "reply": {**document["reply"], **reply}}


def same(protocol: str | int, original: Document, reply: Document) -> Document:
    return {
        "protocol": protocol,
        "original": samples.ends("ipv4", **original),
        "reply": samples.turned("ipv4", **reply),
    }


TCP, UDP = "-p tcp --sport 1 --dport 2", "-p udp --sport 1 --dport 2"
SCTP = "-p sctp --sport 1 --dport 2"
ICMP = {"icmp_code": 0, "icmp_id": 65535}

CASES = [
    *(
        Case(f"tcp-{state}", f"{TCP} --state {state.upper()}", tcp(state))
        for state in views.TCP_STATES
        if state != "syn_sent2"
    ),
    Case("tcp-listen", f"{TCP} --state LISTEN", tcp("syn_sent2")),  # the old name of the state
    Case(
        "reply",
        f"{TCP} --state NONE -r 10.0.0.9 -q 10.0.0.8 --reply-port-src 22 --reply-port-dst 33",
        replied(tcp("none"), source="10.0.0.9", destination="10.0.0.8", **samples.ports(22, 33)),
    ),
    Case("udp", UDP, udp()),
    Case("long-names", "-p udp --orig-port-src 1 --orig-port-dst 2", udp()),
    Case("mark", f"{UDP} -m 0xffffffff", udp(mark=0xFFFFFFFF)),
    Case("zone", f"{UDP} -w 65535", udp(zone=65535)),
    Case("zone-zero", f"{UDP} -w 0", udp()),
    Case(
        "original-zone",
        f"{UDP} --orig-zone 3",
        {**udp(), "original": samples.ends("ipv4", **samples.ports(1, 2), zone=3)},
    ),
    Case("reply-zone", f"{UDP} --reply-zone 4", replied(udp(), zone=4)),
    Case("unset", f"{UDP} -u UNSET", udp()),
    Case("seen-reply", f"{UDP} -u SEEN_REPLY", udp(status=["seen_reply", "confirmed"])),
    Case("assured", f"{UDP} -u ASSURED,SEEN_REPLY", udp(status=["seen_reply", "assured", "confirmed"])),
    Case("fixed-timeout", f"{UDP} -u FIXED_TIMEOUT", udp(status=["confirmed", "fixed_timeout"])),
    Case("offload", f"{UDP} -u OFFLOAD", udp()),  # the kernel does not accept this bit
    # The program also writes the status into the mark, unless the option for the mark comes after it.
    Case(
        "status-and-mark",
        f"{UDP} -u SEEN_REPLY -m 7",
        udp(mark=7, status=["seen_reply", "confirmed"]),
    ),
    Case(
        "source-nat",
        f"{UDP} -n {OUTSIDE['ipv4']}",
        replied(
            udp(status=samples.SNAT, nat={"source": {"address": OUTSIDE["ipv4"], "port": 1}}),
            destination=OUTSIDE["ipv4"],
        ),
    ),
    Case(
        "source-nat-port",
        f"{UDP} -n {OUTSIDE['ipv4']}:99",
        replied(
            udp(status=samples.SNAT, nat={"source": {"address": OUTSIDE["ipv4"], "port": 99}}),
            destination=OUTSIDE["ipv4"],
            destination_port=99,
        ),
    ),
    Case(
        "destination-nat",
        f"{UDP} -g {INSIDE['ipv4']}",
        replied(
            udp(status=samples.DNAT, nat={"destination": {"address": INSIDE["ipv4"], "port": 2}}),
            source=INSIDE["ipv4"],
        ),
    ),
    Case(
        "both-nat",
        f"{UDP} -n {OUTSIDE['ipv4']}:77 -g {INSIDE['ipv4']}:88",
        replied(
            udp(
                status=samples.BOTH,
                nat={
                    "source": {"address": OUTSIDE["ipv4"], "port": 77},
                    "destination": {"address": INSIDE["ipv4"], "port": 88},
                },
            ),
            source=INSIDE["ipv4"],
            destination=OUTSIDE["ipv4"],
            **samples.ports(88, 77),
        ),
    ),
    Case("udplite", "-p udplite --sport 1 --dport 2", samples.flow("ipv4", "udplite", 1, 2)),
    *(
        Case(
            f"sctp-{state}",
            f"{SCTP} --state {state.upper()} --orig-vtag 0 --reply-vtag 0",
            samples.flow("ipv4", "sctp", 1, 2, sctp={**samples.IDLE_SCTP, "state": state}),
        )
        for state in views.SCTP_STATES[:8]
    ),
    # The program swaps the bytes of a tag once too often (tests/kernel/test_attributes.py has tags from packets).
    Case(
        "sctp-tags",
        f"{SCTP} --state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
        samples.flow(
            "ipv4",
            "sctp",
            1,
            2,
            sctp={"state": "established", "original_vtag": 1 << 24, "reply_vtag": 2 << 24},
        ),
    ),
    Case(
        "gre",
        "-p gre --srckey 1 --dstkey 0xffff",
        same(
            "gre",
            {"source_key": 1, "destination_key": 65535},
            {"source_key": 65535, "destination_key": 1},
        ),
    ),
    Case(
        "gre-reply",  # the program accepts these options and ignores them
        "-p gre --srckey 1 --dstkey 2 --reply-key-src 3 --reply-key-dst 0x10",
        same("gre", {"source_key": 1, "destination_key": 2}, {"source_key": 2, "destination_key": 1}),
    ),
    *(
        Case(
            f"icmp-{request}",
            f"-p icmp --icmp-type {request} --icmp-code 0 --icmp-id 65535",
            same("icmp", {"icmp_type": request, **ICMP}, {"icmp_type": answer, **ICMP}),
        )
        for request, answer in ((8, 0), (13, 14), (15, 16), (17, 18))
    ),
    *(Case(f"protocol-{number}", f"-p {number}", same(number, {}, {})) for number in (0, 50, 255)),
]

CASES_IPV6 = [
    Case(
        "tcp",
        f"{TCP} --state CLOSE_WAIT -m 1 -w 2",
        {
            **samples.flow("ipv6", "tcp", 1, 2),
            "tcp": {"state": "close_wait", "original": LIBERAL, "reply": LIBERAL},
            "mark": 1,
            "zone": 2,
        },
    ),
    Case(
        "icmpv6",
        "-p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7",
        {
            "protocol": "icmpv6",
            "original": samples.ends("ipv6", icmp_type=128, icmp_code=0, icmp_id=7),
            "reply": samples.turned("ipv6", icmp_type=129, icmp_code=0, icmp_id=7),
        },
    ),
    Case(
        "source-nat",
        f"{UDP} -n {OUTSIDE['ipv6']}",
        replied(
            {
                **samples.flow("ipv6", "udp", 1, 2),
                "status": samples.SNAT,
                "nat": {"source": {"address": OUTSIDE["ipv6"], "port": 1}},
            },
            destination=OUTSIDE["ipv6"],
        ),
    ),
    Case(
        "destination-nat",
        f"{UDP} -g [{INSIDE['ipv6']}]:99",
        replied(
            {
                **samples.flow("ipv6", "udp", 1, 2),
                "status": samples.DNAT,
                "nat": {"destination": {"address": INSIDE["ipv6"], "port": 99}},
            },
            source=INSIDE["ipv6"],
            source_port=99,
        ),
    ),
    Case(
        "esp",
        "-p esp",
        {"protocol": 50, "original": samples.ends("ipv6"), "reply": samples.turned("ipv6")},
    ),
]


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def insert(namespace: Namespace, options: str, family: str = "ipv4", command: str = "-I") -> None:
    ends = ("-s", CLIENT[family], "-d", SERVER[family], "-t", "300")
    namespace.conntrack(command, *ends, *options.split())


def gathered(table: Table) -> list[Document]:
    return [to_document(entry) for entry in table.dump()]


def expected(case: Case, family: str) -> Document:
    plain = {"family": family, "mark": 0, "timeout": 300, "status": ["confirmed"], "use": 1}
    return views.near(plain | case.gathered | {"timeout": 300})


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_inserts_ipv4(table: Table, namespace: Namespace, case: Case) -> None:
    insert(namespace, case.options)
    (found,) = gathered(table)
    assert found == {**expected(case, "ipv4"), "id": found["id"]}


@pytest.mark.parametrize("case", CASES_IPV6, ids=[case.name for case in CASES_IPV6])
def test_inserts_ipv6(table: Table, namespace: Namespace, case: Case) -> None:
    insert(namespace, case.options, "ipv6")
    (found,) = gathered(table)
    assert found == {**expected(case, "ipv6"), "id": found["id"]}


def test_inserts_dccp(table: Table, namespace: Namespace) -> None:
    """The entry has ports and state if the kernel tracks DCCP (before 6.17), otherwise neither."""
    insert(namespace, "-p dccp --sport 1 --dport 2 --state OPEN --role client")
    (found,) = gathered(table)
    if "dccp" in found:
        assert found["original"] == samples.ends("ipv4", **samples.ports(1, 2))
        assert (found["dccp"]["state"], found["dccp"]["role"]) == ("open", "client")
    else:
        assert found["original"] == samples.ends("ipv4")


@pytest.mark.parametrize("case", [*CASES, *CASES_IPV6], ids=lambda case: case.name)
def test_client_redeclares_inserted_entries(table: Table, namespace: Namespace, case: Case) -> None:
    insert(namespace, case.options, "ipv6" if case in CASES_IPV6 else "ipv4")
    shown = namespace.conntrack("-L", "-o", "extended")
    (saved,) = gathered(table)
    namespace.conntrack("-F")
    table.create(from_document(saved))
    assert views.by_text(namespace, namespace.conntrack("-L", "-o", "extended")) == [
        views.near(entry) for entry in views.by_text(namespace, shown)
    ]
    assert gathered(table) == [{**views.lasting(saved), "id": gathered(table)[0]["id"], "use": 1}]


def test_add_command(table: Table, namespace: Namespace) -> None:
    insert(namespace, UDP, command="-A")
    assert [entry["original"]["source_port"] for entry in gathered(table)] == [1]


def test_program_saves_and_restores_entries_of_the_client(table: Table, namespace: Namespace) -> None:
    """`conntrack -o save` and `conntrack -R` save and restore a table, but lose marks, labels and NAT."""
    for family in samples.FAMILIES:
        table.create(from_document(samples.flow(family, "udp", 1, 2, zone=5, timeout=300)))
    saved = namespace.conntrack("-L", "-o", "save")
    before = {entry["family"]: views.lasting(entry) for entry in gathered(table)}
    namespace.conntrack("-F")
    namespace.conntrack("-R", "-", input=saved)
    for entry in gathered(table):
        family = entry["family"]
        assert entry == {**before.pop(family), "id": entry["id"], "use": entry["use"]}
    assert not before


class TestChanges:
    """`conntrack -U` and `conntrack -D` change entries that the client created."""

    @pytest.fixture
    def made(self, table: Table) -> list[Document]:
        documents = [samples.flow("ipv4", "udp", port, 53, mark=port, status=["seen_reply"]) for port in (1, 2, 3)]
        documents.append(samples.flow("ipv6", "tcp", 4, 53, tcp={"state": "syn_sent"}))
        for document in documents:
            table.create(from_document(document))
        return documents

    def one(self, table: Table, port: int) -> Document:
        (found,) = (entry for entry in gathered(table) if entry["original"]["source_port"] == port)
        return found

    @pytest.mark.parametrize(
        ("options", "key", "value"),
        [
            ("-m 0xff", "mark", 0xFF),
            ("-m 0x30/0xf0", "mark", 0x32),
            ("-t 999", "timeout", 999),
            ("-u ASSURED,SEEN_REPLY", "status", ["seen_reply", "assured", "confirmed"]),
        ],
    )
    def test_update(
        self, table: Table, namespace: Namespace, made: list[Document], options: str, key: str, value: Any
    ) -> None:
        before = self.one(table, 2)
        namespace.conntrack("-U", "-s", CLIENT["ipv4"], "-p", "udp", "--sport", "2", *options.split())
        assert self.one(table, 2) == views.near({**before, key: value})
        assert self.one(table, 1)["mark"] == 1

    def test_update_of_a_state(self, table: Table, namespace: Namespace, made: list[Document]) -> None:
        before = self.one(table, 4)
        options = ("-s", CLIENT["ipv6"], "-p", "tcp", "--sport", "4", "--state", "CLOSE")
        namespace.conntrack("-U", *options)
        tcp = {"state": "close", "original": CLOSING, "reply": CLOSING}
        assert self.one(table, 4) == views.near({**before, "tcp": tcp})

    def test_delete(self, table: Table, namespace: Namespace, made: list[Document]) -> None:
        namespace.conntrack("-D", "-p", "udp", "--sport", "2")
        assert sorted(entry["original"]["source_port"] for entry in gathered(table)) == [1, 3, 4]
        namespace.conntrack("-D", "-f", "ipv6", "-p", "tcp", "-s", CLIENT["ipv6"])
        assert sorted(entry["original"]["source_port"] for entry in gathered(table)) == [1, 3]

    @pytest.mark.parametrize(
        "sample",
        [pair[1] for pair in samples.SAMPLES if not pair[1].needs],
        ids=[pair[0] for pair in samples.SAMPLES if not pair[1].needs],
    )
    def test_delete_of_any_kind(self, table: Table, namespace: Namespace, sample: samples.Sample) -> None:
        table.create(from_document(sample.declared))
        original = sample.declared["original"]
        family = sample.declared["family"]
        namespace.conntrack("-D", "-f", family, "-s", original["source"], "-d", original["destination"])
        assert gathered(table) == []


class TestLabels:
    NAMES = {0: "first", 64: "of-the-third-word", 127: "last"}  # noqa: RUF012

    @pytest.fixture
    def program(self, namespace: Namespace, tmp_path: Path) -> views.LabelledProgram:
        namespace.firewall.use_labels()
        return views.LabelledProgram(namespace, tmp_path, self.NAMES)

    @pytest.fixture
    def labels(self, program: views.LabelledProgram, tmp_path: Path) -> LabelMap:
        """Return the client's label map, read from the same file as that of the program."""
        return LabelMap.read(str(tmp_path / "xtables/connlabel.conf"))

    def test_client_reads_names(self, table: Table, program: views.LabelledProgram, labels: LabelMap) -> None:
        options = f"{UDP} --label-add first --label-add last".split()
        program("-I", "-s", CLIENT["ipv4"], "-d", SERVER["ipv4"], "-t", "300", *options)
        (entry,) = table.dump()
        assert to_document(entry, labels)["labels"] == ["first", "last"]
        assert to_document(entry)["labels"] == [0, 127]

    def test_client_writes_names(
        self, table: Table, namespace: Namespace, program: views.LabelledProgram, labels: LabelMap
    ) -> None:
        table.create(from_document(udp(labels=["of-the-third-word", 5, "first"]), labels))
        (shown,) = views.by_text(namespace, program("-L", "-o", "extended,id,labels"))
        assert shown["labels"] == ["first", "of-the-third-word"]  # the program shows only labels with a name
        (shown,) = views.by_xml(namespace, program("-L", "-o", "xml,id,labels"))
        assert shown["labels"] == ["first", "of-the-third-word"]
        (seen,) = views.by_pyroute2(namespace)
        assert seen["labels"] == [0, 5, 64]

    def test_both_change_labels(self, table: Table, program: views.LabelledProgram, labels: LabelMap) -> None:
        table.create(from_document(udp(labels=["first"]), labels))
        program("-U", "-s", CLIENT["ipv4"], "--label-add", "last")
        (entry,) = table.dump()
        assert to_document(entry, labels)["labels"] == ["first", "last"]
        program("-U", "-s", CLIENT["ipv4"], "--label-del", "first")
        (entry,) = table.dump()
        assert to_document(entry, labels)["labels"] == ["last"]
        table.update(from_document(udp(labels=["first", 3]), labels))
        assert "labels=first" in program("-L", "-o", "labels")

    def test_both_select_the_same_entries(self, table: Table, program: views.LabelledProgram, labels: LabelMap) -> None:
        for port, names in ((1, ["first"]), (2, ["last"]), (3, ["first", "last"])):
            table.create(from_document(samples.flow("ipv4", "udp", port, 2, labels=names), labels))
        for wanted, ports in ((["first"], {1, 3}), (["last"], {2, 3}), (["first", "last"], {3})):
            options = [word for name in wanted for word in ("-l", name)]
            text = program("-L", "-o", "extended,id", *options)
            shown = {entry["original"]["source_port"] for entry in views.by_text(program.namespace, text)}
            predicate = parse_match({"labels": wanted}, labels)
            matched = {entry["original.source_port"] for entry in table.dump() if predicate(entry)}
            assert shown == matched == ports


def test_program_shows_helpers_of_the_client(table: Table, namespace: Namespace) -> None:
    document = samples.flow("ipv4", "tcp", 1, 21, helper="ftp")
    error = next(table.create_all([from_document(document) | {"timeout": 60}]))
    if error is not None:
        pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
    assert " helper=ftp " in namespace.conntrack("-L")
