# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a bench: the works, the programs that they are compared with, and the limits."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tests.lab import Namespace

from . import mix, payload, tasks
from .bare_replay import CLIENTS, SERVERS
from .process import Sample
from .rows import Curve, Limit, Results, Row, Side
from .stage import BARE, CONNTRACK, GO, ON_ONE_CORE, OURS, PYROUTE2, REPLAY, Stage, best

#: Maximum memory in MB, beyond the bare interpreter, of works that read the whole table.
MEMORY = 64.0
MILLISECONDS, MICROSECONDS = 1e3, 1e6
#: Numbers of alternatives of a match, and the side without any.
ALTERNATIVES, READING = 1_000, "reading all"
SUMMARY = ("min", "summary")
#: Keys to group by, and the limit in units of the bare loop. A client has four connections to each server.
GROUPINGS = {
    ("destination_port",): 1.3,
    ("destination_port", "state"): 1.8,
    ("source",): 1.3,
    ("source", "state"): 1.8,
}
#: In tables smaller than this, the time that the kernel needs to walk its empty hash table is visible.
BASE = 100_000


def read(stage: Stage, results: Results) -> None:
    """Read the whole table and half of the table, as documents, and for facts, conntrack_info and conntrack_wait."""
    entries = stage.sizes.table
    with stage.table(entries) as namespace:
        bare = functools.partial(stage.work, namespace, "bare", "receive")
        stage.say(f"reading {entries:,} entries")
        sides = stage.compete(
            {
                OURS: lambda: stage.ours(namespace, "read", done=entries),
                BARE: bare,
                f"{CONNTRACK} -L": lambda: stage.program(namespace, "-L"),
                GO: lambda: stage.go(namespace, "read", entries),
            }
        )
        sides.append(_read_few(stage, results))
        results.add(
            Row(
                "read",
                f"read and fully decode {entries:,} entries",
                sides,
                [Limit(1.15, BARE), Limit(0.65, f"{CONNTRACK} -L"), Limit(1.9, BARE, processor=True)],
                entries=entries,
                note=f"pyroute2 would take minutes: it has {stage.sizes.pyroute2:,} entries and is compared by "
                "what one takes",
            )
        )
        _read_dictionaries(stage, namespace, results)
        _read_half(stage, namespace, results)
        _read_alternatives(stage, namespace, results)
        _gather_facts(stage, namespace, results, bare)
        _group(stage, namespace, results, bare)
        _collect_info(stage, namespace, results)
        _wait(stage, namespace, results)
        _read_on_one_core(stage, namespace, results)


def _read_few(stage: Stage, results: Results) -> Side:
    """Read documents with this collection and with pyroute2. Return pyroute2's side, which other rows use too."""
    entries = stage.sizes.pyroute2
    with stage.table(entries) as namespace:
        stage.say(f"reading {entries:,} entries as documents")
        ours, theirs = stage.compete(
            {
                OURS: lambda: stage.ours(namespace, "read_documents", done=entries),
                PYROUTE2: lambda: stage.work(namespace, "pyroute", "read", done=entries),
            },
            turns=1,
        )
    work = f"read {entries:,} entries as the nested dictionaries that users see"
    results.add(Row("read as documents", work, [ours, theirs], entries=entries))
    return replace(_copy(theirs), entries=entries)


def _read_dictionaries(stage: Stage, namespace: Namespace, results: Results) -> None:
    entries = stage.sizes.table
    stage.say(f"reading {entries:,} entries as flat dictionaries")
    sides = stage.compete({OURS: lambda: stage.ours(namespace, "read_entries", done=entries)}, turns=1)
    work = f"read {entries:,} entries as the flat dictionaries that the client works with"
    results.add(Row("read as flat dictionaries", work, sides, entries=entries))


def _read_half(stage: Stage, namespace: Namespace, results: Results) -> None:
    half = stage.sizes.table // 2
    stage.say(f"reading only {half:,} entries, narrowed by the kernel")
    sides = stage.compete(
        {
            BARE: lambda: stage.work(namespace, "bare", "receive_half"),
            f"{CONNTRACK} -L -p tcp --dport {mix.PORT}": lambda: stage.program(
                namespace, "-L", "-p", "tcp", "--dport", str(mix.PORT)
            ),
        },
        turns=1,
    )
    results.add(
        Row(
            "narrowed dump",
            f"receive the IPv4 entries with TCP port {mix.PORT}, which the kernel selects by a dump filter",
            sides,
            note=f"saving by the dump filter; {CONNTRACK} receives the entries of both families and selects itself",
        )
    )


def _read_alternatives(stage: Stage, namespace: Namespace, results: Results) -> None:
    entries, number = stage.sizes.table, ALTERNATIVES
    for name, work, shown in (
        ("many matches", "read_services", f"{number:,} matches, each with an exception"),
        ("many ranges", "read_ranges", f"{number:,} ranges of ports"),
    ):
        stage.say(f"{shown}, over {entries:,} entries")
        sides = stage.compete(
            {
                OURS: functools.partial(stage.ours, namespace, work, number),
                READING: functools.partial(stage.ours, namespace, "read", done=entries),
            }
        )
        work = f"read those of {entries:,} entries that match one of {shown}"
        results.add(Row(name, work, sides, [Limit(2.0, READING)], entries=entries))


def _gather_facts(stage: Stage, namespace: Namespace, results: Results, bare: Callable[[], Sample]) -> None:
    entries = stage.sizes.table
    stage.say(f"facts over {entries:,} entries")
    sides = stage.compete({OURS: lambda: stage.ours(namespace, "facts", *SUMMARY, done=entries), BARE: bare})
    work = f"conntrack_facts with the subset summary, {entries:,} entries"
    limits = [Limit(1.3, BARE), Limit(1.6, BARE, processor=True)]
    results.add(Row("facts", work, sides, limits, entries=entries))
    results.add(_memory(stage, "facts: memory", work, sides[0], at_most=40.0))
    stage.say(f"facts over {entries:,} entries, with all subsets that read the table")
    sides = stage.compete({OURS: lambda: stage.ours(namespace, "facts", *SUMMARY, "top", done=entries)}, turns=1)
    work = f"conntrack_facts with the subsets summary and top, {entries:,} entries"
    results.add(Row("facts with top", work, sides, entries=entries))
    results.add(_memory(stage, "facts with top: memory", work, sides[0]))


def _group(stage: Stage, namespace: Namespace, results: Results, bare: Callable[[], Sample]) -> None:
    """Group by keys with few values, and by those with more values than groups are kept."""
    entries = stage.sizes.table
    for keys, limit in GROUPINGS.items():
        shown = ", ".join(keys)
        stage.say(f"groups of {entries:,} entries by {shown}")
        sides = stage.compete(
            {OURS: functools.partial(stage.ours, namespace, "groups", *keys, done=entries), BARE: bare}
        )
        row = Row(
            f"group by {shown}", f"group {entries:,} entries by {shown}", sides, [Limit(limit, BARE)], entries=entries
        )
        results.add(row)
        results.add(_memory(stage, f"group by {shown}: memory", row.work, sides[0]))


def _collect_info(stage: Stage, namespace: Namespace, results: Results) -> None:
    entries, limit = stage.sizes.table, stage.sizes.limit
    stage.say(f"the first {limit:,} of {entries:,} entries in an order")
    sides = stage.compete({OURS: lambda: stage.ours(namespace, "info", limit, done=entries)}, turns=1)
    work = f"conntrack_info, the first {limit:,} of {entries:,} entries sorted by timeout"
    results.add(Row("info", work, sides, entries=entries))
    results.add(_memory(stage, "info: memory", work, sides[0]))


def _wait(stage: Stage, namespace: Namespace, results: Results) -> None:
    entries = stage.sizes.table
    stage.say(f"one reading of a wait on {entries:,} entries")
    sides = stage.compete({OURS: lambda: stage.ours(namespace, "wait", done=entries)}, turns=1)
    work = f"conntrack_wait, one reading of {entries:,} entries that match"
    results.add(Row("wait", work, sides, entries=entries))
    results.add(_memory(stage, "wait: memory", work, sides[0]))


def _read_on_one_core(stage: Stage, namespace: Namespace, results: Results) -> None:
    """Read and summarize on one processor. Both rows use one measurement of the bare loop."""
    entries = stage.sizes.table
    stage.say(f"reading {entries:,} entries{ON_ONE_CORE}")
    with stage.on_one_core():
        reading, summary, bare, *programs = stage.compete(
            {
                "read": lambda: stage.ours(namespace, "read", done=entries),
                "facts": lambda: stage.ours(namespace, "facts", *SUMMARY, done=entries),
                BARE: lambda: stage.work(namespace, "bare", "receive"),
                f"{CONNTRACK} -L": lambda: stage.program(namespace, "-L"),
                GO: lambda: stage.go(namespace, "read", entries),
            },
            turns=stage.sizes.turns_on_one_core,
        )
    sides = [replace(reading, name=OURS), bare, *programs]
    work = f"read and fully decode {entries:,} entries"
    results.add(_on_one_core("read", work, sides, [Limit(0.6, f"{CONNTRACK} -L")], entries))
    sides = [replace(summary, name=OURS), _copy(bare)]
    results.add(
        _on_one_core("facts", f"conntrack_facts with the subset summary, {entries:,} entries", sides, [], entries)
    )


def _on_one_core(name: str, work: str, sides: list[Side], limits: list[Limit], entries: int) -> Row:
    return Row(name + ON_ONE_CORE, work + ON_ONE_CORE, sides, limits, entries=entries, processors=1)


def judge(stage: Stage, results: Results) -> None:
    """Judge every entry by the current rules. No rule makes an entry stale."""
    entries = stage.sizes.table
    with stage.table(entries) as namespace:
        _link_both_sides(namespace)
        stage.say(f"judging {entries:,} entries by the current rules")
        sides = stage.compete(
            {
                OURS: lambda: stage.ours(namespace, "judge", done=entries),
                REPLAY: lambda: stage.work(namespace, "bare_replay", "replay", entries, done=entries),
            }
        )
        work = f"judge {entries:,} entries by the current rules, addresses and routes"
        results.add(Row("judge", work, sides, [Limit(1.5, REPLAY)], entries=entries))
        results.add(_memory(stage, "judge: memory", work, sides[0]))


def snat(stage: Stage, results: Results) -> None:
    """Read the use of SNAT ports where every entry has source NAT."""
    entries = stage.sizes.table
    with stage.table() as namespace:
        stage.say(f"filling a table with {entries:,} entries with source NAT")
        stage.ours(namespace, "create_translated", entries, done=entries)
        stage.say(f"the use of SNAT ports by {entries:,} entries")
        sides = stage.compete(
            {
                OURS: lambda: stage.ours(namespace, "snat_ports"),
                BARE: functools.partial(stage.work, namespace, "bare", "receive"),
            }
        )
        work = f"conntrack_facts, the use of SNAT ports, with {entries:,} entries"
        results.add(Row("SNAT ports", work, sides, entries=entries))
        results.add(_memory(stage, "SNAT ports: memory", work, sides[0]))


def _link_both_sides(namespace: Namespace) -> None:
    """Make a namespace a router, with a link to the clients and one to the servers of the mix."""
    namespace.sysctl("net.ipv4.ip_forward", 1)
    namespace.sysctl("net.ipv6.conf.all.forwarding", 1)
    namespace.firewall.track()
    with namespace.rtnetlink() as rtnetlink:
        for name, networks in (("lan", CLIENTS), ("wan", SERVERS)):
            rtnetlink.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}-peer"})
            for each in (f"{name}-peer", name):
                rtnetlink.link("set", index=rtnetlink.link_lookup(ifname=each)[0], state="up")
            for network in networks:
                family = socket.AF_INET6 if ":" in network else socket.AF_INET
                rtnetlink.route("add", dst=network, oif=rtnetlink.link_lookup(ifname=name)[0], family=family)


def _memory(stage: Stage, name: str, work: str, side: Side, at_most: float = MEMORY) -> Row:
    above = stage.above_interpreter(side.memory[-1])
    work = f"memory in addition to the Python interpreter: {work}"
    return Row(name, work, [Side(OURS, [above])], [Limit(at_most)], unit="MB")


def flush(stage: Stage, results: Results) -> None:
    """Remove half of the table, by port and by network."""
    entries = stage.sizes.table
    half = entries // 2
    programs = {
        "port": ("-p", "tcp", "--dport", str(mix.PORT)),
        "network": ("-s", mix.NETWORK),
    }
    missing = ""
    with stage.table(entries) as namespace:
        for name, arguments in programs.items():

            def make_whole(_name: str) -> None:
                if missing:
                    stage.fill(namespace, entries, missing)

            def check_half(_name: str, name: str = name) -> None:
                nonlocal missing
                stage.expect(namespace, half)
                missing = name

            program = f"{CONNTRACK} -D"
            compete = functools.partial(
                stage.compete,
                {
                    OURS: functools.partial(stage.ours, namespace, f"flush_{name}", done=half),
                    program: functools.partial(stage.program, namespace, "-D", *arguments),
                    GO: functools.partial(stage.go, namespace, f"flush_{name}", half),
                },
                before=make_whole,
                after=check_half,
            )
            shown = f"exact protocol and port (tcp, {mix.PORT})" if name == "port" else f"CIDR ({mix.NETWORK})"
            work = f"flush {half:,} of {entries:,} entries by {shown}"
            stage.say(f"flushing {half:,} of {entries:,} entries by {name}")
            sides = compete()
            limits = [Limit(0.35 if name == "port" else 0.5, program), Limit(0.6, program, processor=True)]
            results.add(Row(f"flush by {name}", work, sides, limits, entries=half))
            results.add(_memory(stage, f"flush by {name}: memory", work, sides[0]))
            stage.say(f"flushing {half:,} of {entries:,} entries by {name}{ON_ONE_CORE}")
            with stage.on_one_core():
                sides = compete(turns=stage.sizes.turns_on_one_core)
            results.add(_on_one_core(f"flush by {name}", work, sides, [Limit(0.65, program)], half))


def create(stage: Stage, results: Results) -> None:
    """Create entries from declarations, from prepared entries, and from a snapshot."""
    entries = stage.sizes.create
    saved, snapshot = stage.folder / "saved", stage.folder / "snapshot"
    with stage.table(entries) as namespace:
        stage.say(f"saving {entries:,} entries")
        if stage.conntrack:
            stage.program(namespace, "-L", "-o", "save", output=saved)
        stage.ours(namespace, "save", snapshot, done=entries)
        stage.empty(namespace)

        def check_and_empty(_name: str) -> None:
            stage.expect(namespace, entries)
            stage.empty(namespace)

        program = f"{CONNTRACK} -R"
        contenders: dict[str, Callable[[], Sample]] = {
            "create": lambda: stage.ours(namespace, "create_declared", entries, done=entries),
            "create prepared": lambda: stage.ours(namespace, "create_prepared", entries, done=entries),
            "restore": lambda: stage.ours(namespace, "restore", snapshot, done=entries),
            program: lambda: stage.program(namespace, "-R", str(saved)),
        }
        stage.say(f"creating {entries:,} entries")
        declared, prepared, restored, *theirs = stage.compete(contenders, after=check_and_empty)
        del contenders["create prepared"]
        stage.say(f"creating {entries:,} entries{ON_ONE_CORE}")
        with stage.on_one_core():
            slow_declared, slow_restored, *slow_theirs = stage.compete(
                contenders, after=check_and_empty, turns=stage.sizes.turns_on_one_core
            )
    create_declared = f"create {entries:,} entries from declared dictionaries"
    create_prepared = f"create {entries:,} entries from objects that the client has prepared before"
    restore = f"restore a {entries:,}-entry snapshot"
    for name, work, side, elapsed_limit, processor_limit in (
        ("create", create_declared, declared, 0.6, 0.75),
        ("create prepared", create_prepared, prepared, 0.4, 0.6),
        ("restore", restore, restored, 1.0, 1.0),
    ):
        sides = [replace(side, name=OURS), *map(_copy, theirs)]
        limits = [Limit(elapsed_limit, program), Limit(processor_limit, program, processor=True)]
        results.add(Row(name, work, sides, limits, entries=entries))
    for name, work, side in (("create", create_declared, slow_declared), ("restore", restore, slow_restored)):
        sides = [replace(side, name=OURS), *map(_copy, slow_theirs)]
        results.add(_on_one_core(name, work, sides, [], entries))


def _copy(side: Side) -> Side:
    """Return a copy of a side for another row. Each row adds further runs to its own copy."""
    return replace(side, values=[*side.values], processor=[*side.processor], memory=[*side.memory])


def snapshot(stage: Stage, results: Results) -> None:
    """Save the whole table, and restore it in an empty one. The snapshot is compressed, which takes the most time."""
    entries = stage.sizes.table
    file = stage.folder / "snapshot.gz"
    with stage.table(entries) as namespace:
        for name, done in (("save", "saved"), ("restore", "restored")):
            stage.say(f"{entries:,} entries {done}")
            sides = stage.compete({OURS: functools.partial(stage.ours, namespace, name, file, done=entries)}, turns=1)
            work = f"conntrack_snapshot, {entries:,} entries {done}"
            results.add(Row(f"{name} all", work, sides, entries=entries))
            results.add(_memory(stage, f"{name} all: memory", work, sides[0]))
            if name == "save":
                stage.empty(namespace)


def single(stage: Stage, results: Results) -> None:
    """Process one entry at a time, and wait for each reply before the next request."""
    contenders = ((OURS, "ours", stage.sizes.single), (PYROUTE2, "pyroute", stage.sizes.pyroute2_single))
    # In this order: create, read and delete an entry
    sides: dict[str, list[Side]] = {"create": [], "get": [], "delete": []}
    with stage.table() as namespace:
        for contender, module, entries in contenders:
            stage.say(f"one entry at a time: {contender}, {entries:,} times")
            samples: dict[str, list[Sample]] = {name: [] for name in sides}
            for _turn in range(stage.sizes.turns):
                for name, taken in samples.items():
                    taken.append(stage.work(namespace, module, f"{name}_each", entries, done=entries))
                stage.expect(namespace, 0)
            for name, taken in samples.items():
                sides[name].append(best(contender, taken, MICROSECONDS / entries))
    for name, compared in sides.items():
        results.add(Row(f"one {name}", f"{name} one entry and wait for the answer", compared, [Limit(30.0)], unit="µs"))


def imports(stage: Stage, results: Results) -> None:
    """Measure the import of the client."""
    stage.say("importing the client")
    with stage.table() as namespace:
        import_client = functools.partial(stage.work, namespace, "interpreter", "import_client")
        import_client()  # this compiles the client
        turns = range(stage.sizes.imports)
        sides = [
            best(OURS, [import_client() for _turn in turns], MILLISECONDS),
            best(
                "compiling the client",
                [stage.work(namespace, "interpreter", "compile_client") for _turn in turns],
                MILLISECONDS,
            ),
        ]
    above = stage.above_interpreter(sides[0].memory[0])
    results.add(
        Row(
            "import",
            "import the Python client of the modules, without the time for the modules socket and struct",
            sides,
            [Limit(15.0)],
            unit="ms",
            note=f"its table, shape and match, compiled before; {above:.1f} MB above a bare interpreter. "
            "A module task compiles what it imports",
        )
    )


#: The kernel's share of creating entries: requests that only have to be copied.
FILL = "bare sending"


def scaling(stage: Stage, results: Results) -> None:
    """Measure how the cost grows with the size of the table."""
    sizes = stage.sizes.scaling
    base = min((entries for entries in sizes if entries >= BASE), default=sizes[0])
    curves: dict[str, list[Side]] = {name: [] for name in (FILL, "create", BARE, "read", "facts", "flush")}
    for entries in sizes:
        turns = stage.sizes.turns if entries <= base else 1
        samples: dict[str, list[Sample]] = {name: [] for name in curves}
        for turn in range(turns):
            stage.say(f"how it scales: {entries:,} entries (turn {turn + 1} of {turns})")
            for name, sample in _scale(stage, entries):
                stage.say(f"  {name}: {sample.seconds:.3f} s")
                samples[name].append(sample)
        for name, taken in samples.items():
            curves[name].append(best(name, taken))
    elapsed_times = {name: [side.values[0] for side in sides] for name, sides in curves.items()}
    processor_times = {name: [side.processor[0] for side in sides] for name, sides in curves.items()}
    for name in curves:
        results.add_curve(Curve(name, list(sizes), [elapsed_times[name]], [processor_times[name]]))
    results.add(
        Row(
            "scaling",
            f"time per entry with {sizes[-1]:,} entries relative to {base:,} entries, the highest ratio of creating, "
            "reading, facts and flushing",
            [Side(OURS, [_growth(elapsed_times, sizes, base)], [_growth(processor_times, sizes, base)])],
            [Limit(1.5)] if sizes[-1] > base >= BASE else [],
            unit="times",
            note=f"linear is 1. Create is compared with {FILL}, because "
            "the time for that grows with the chains of the kernel's hash table",
        )
    )


def _growth(times: dict[str, list[float]], sizes: Sequence[int], base: int) -> float:
    """Return the worst ratio of the time per entry in the largest table to that in a table of the base size."""
    growth = {name: (taken[-1] / sizes[-1]) / (taken[sizes.index(base)] / base) for name, taken in times.items()}
    # The chains of the kernel's hash table grow, and the kernel walks two of them to create an entry
    growth["create"] /= growth.pop(FILL)
    del growth[BARE]
    return max(growth.values())


def _scale(stage: Stage, entries: int) -> Iterator[tuple[str, Sample]]:
    """Measure each work on a table that is empty at first and half full at the end."""
    with stage.table() as namespace:
        yield FILL, stage.work(namespace, "bare", "fill", entries)
        stage.empty(namespace)
        yield "create", stage.ours(namespace, "create_in_portions", entries, done=entries)
        yield BARE, stage.work(namespace, "bare", "receive")
        yield "read", stage.ours(namespace, "read", done=entries)
        yield "facts", stage.ours(namespace, "facts", *SUMMARY, done=entries)
        yield "flush", stage.ours(namespace, "flush_port", done=entries // 2)
        stage.expect(namespace, entries // 2)


STEPS: dict[str, Callable[[Stage, Results], None]] = {
    "read": read,
    "flush": flush,
    "judge": judge,
    "snat": snat,
    "create": create,
    "snapshot": snapshot,
    "single": single,
    "import": imports,
    "scaling": scaling,
    "tasks": tasks.measure,
    "namespaces": tasks.measure_namespaces,
    "payload": payload.measure,
}


def elapsed(start: float) -> str:
    """Format the minutes and seconds since then."""
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
