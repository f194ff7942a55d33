# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate any number of hosts, the same every time: most are healthy, some are nearly full, some do not answer."""

from __future__ import annotations

import random
from typing import Any

Document = dict[str, Any]

GATHERED = "2026-03-14T09:26:53Z"
#: Thresholds for a page on these hosts.
THRESHOLDS = {"usage_percent_above": 95, "drop_above": 100000, "hosts_without_facts_above": 3}


def results(size: int, seed: int = 7, judged: bool = False) -> dict[str, Document]:
    """Return the results of conntrack_facts on this number of hosts, with or without the subset `stale`."""
    dice = random.Random(seed)
    found = {
        f"{'edge' if place % 3 else 'core'}-{place:03d}.{('fra', 'ams', 'lhr', 'waw')[place % 4]}.example.net": _result(
            dice, place
        )
        for place in range(1, size + 1)
    }
    for result in found.values() if judged else ():
        if "ansible_facts" in result:
            facts_of_host = result["ansible_facts"]["conntrack"]
            facts_of_host["stale"] = stale(dice, facts_of_host["count"])
    return found


def stale(dice: random.Random, count: int) -> Document:
    """Return the flows of a host by verdict, and the rules that decide."""
    refused, nat_changed = (dice.choice((0, dice.randrange(1 + count // share))) for share in (10, 40))
    uncertain = dice.choice((0, 3))
    rules = [
        _decided("refused", refused, "inet", "filter", "forward", 12, "blocked hosts"),
        _decided("nat_changed", nat_changed, "ip", "nat", "postrouting", dice.choice((4, 7)), "to the internet"),
        _decided("uncertain", uncertain, "inet", "filter", "forward", 9, None, "limit"),
    ]
    return {
        "verdicts": {
            "unchanged": count - refused - nat_changed - uncertain,
            "nat_changed": nat_changed,
            "refused": refused,
            "untracked": 0,
            "uncertain": uncertain,
        },
        "rules": sorted((rule for rule in rules if rule["entries"]), key=lambda rule: -rule["entries"]),
    }


def _decided(verdict: str, entries: int, *rule: Any) -> Document:
    family, table, chain, handle, comment, *reason = rule
    return {
        "verdict": verdict,
        "rule": {"family": family, "table": table, "chain": chain, "handle": handle, "comment": comment},
        "reason": reason[0] if reason else None,
        "entries": entries,
    }


def facts(dice: random.Random, usage: float = 20.0, most: int = 262144, accounting: bool = True) -> Document:
    """Return the facts of a host whose table has this usage in per cent."""
    count = round(most * usage / 100)
    tcp, udp = round(count * 0.71), round(count * 0.26)
    icmp = count - tcp - udp
    established = round(tcp * dice.uniform(0.5, 0.8))
    time_wait = round((tcp - established) * 0.7)
    syn_sent = round((tcp - established - time_wait) * 0.5)
    ipv6 = round(count * dice.uniform(0.05, 0.3))
    source_nat, destination_nat = round(count * 0.62), round(count * 0.04)
    trouble = usage > 80
    return {
        "count": count,
        "max": most,
        "usage_percent": round(usage, 2),
        "matched": count,
        "by_family": {"ipv4": count - ipv6, "ipv6": ipv6},
        "by_protocol": {"tcp": tcp, "udp": udp, "icmp": icmp},
        "by_state": {
            "tcp": {
                "established": established,
                "time_wait": time_wait,
                "syn_sent": syn_sent,
                "close_wait": tcp - established - time_wait - syn_sent,
            }
        },
        "by_zone": {"0": count},
        "by_mark": {"0": count - count // 9, "16": count // 9} if dice.random() < 0.3 else {"0": count},
        "nat": {"source": source_nat, "destination": destination_nat, "none": count - source_nat - destination_nat},
        "status": {
            "seen_reply": round(count * dice.uniform(0.8, 0.97)),
            "assured": round(count * 0.6),
            "confirmed": count,
            "src_nat": source_nat,
        },
        "top": _top(dice, count, accounting),
        "statistics": {
            "total": {
                "found": dice.randrange(9000),
                "invalid": dice.randrange(200000),
                "insert": 0,
                "insert_failed": dice.choice((0, 0, 0, dice.randrange(900))),
                "drop": dice.randrange(400000) if trouble else 0,
                "early_drop": dice.randrange(4000) if trouble else 0,
                "error": dice.choice((0, 3)),
                "search_restart": dice.randrange(5000),
                "clash_resolve": dice.randrange(300),
                "chain_toolong": 0,
            },
            "per_cpu": {},
        },
        "settings": {
            "max": most,
            "buckets": most,
            "expect_max": 4096,
            "accounting": int(accounting),
            "timestamps": 0,
            "events": 2,
            "checksum": 1,
            "log_invalid": 0,
            "tcp_loose": 1,
            "tcp_be_liberal": 0,
            "tcp_max_retrans": 3,
            "timeouts": {
                "generic": 600,
                "icmp": 30,
                "tcp_established": 432000,
                "tcp_time_wait": 120,
                "udp": 30,
                "udp_stream": 120,
            },
        },
        "expectations": {"count": dice.choice((0, 0, 3)), "max": 4096, "by_helper": {}},
    }


def _result(dice: random.Random, place: int) -> Document:
    if place % 97 == 20:
        return {
            "unreachable": True,
            "msg": "Failed to connect to the host via ssh: connect to host 192.0.2.7 port 22: Connection timed out",
        }
    if place % 61 == 13:
        return {"failed": True, "msg": "This needs CAP_NET_ADMIN; run the task with become: true"}
    usage = min(dice.betavariate(1.3, 5) * 100, 74)
    if place % 41 == 3:
        usage = dice.uniform(88, 99.6)
    elif place % 29 == 5:
        usage = dice.uniform(75, 89)
    most = dice.choice((65536, 262144, 262144, 1048576))
    return {"ansible_facts": {"conntrack": facts(dice, usage, most, dice.random() < 0.8)}, "changed": False}


def _top(dice: random.Random, count: int, accounting: bool) -> Document:
    def ranked(names: list[Document], share: float) -> Document:
        rows = []
        for place, name in enumerate(names):
            row = {**name, "flows": round(count * share / (place + 1.5))}
            if accounting:
                row["bytes"] = row["flows"] * dice.randrange(900, 90000)
            rows.append(row)
        found: Document = {"by_flows": rows}
        if accounting:
            found["by_bytes"] = sorted(rows, key=lambda row: -row["bytes"])
        return found

    sources = [f"10.{dice.randrange(3)}.0.{dice.randrange(2, 250)}" for _place in range(8)] + ["2001:db8:4:1::8:2c"]
    services = (("tcp", 443), ("udp", 53), ("tcp", 80), ("tcp", 5432), ("udp", 443), ("tcp", 22), ("tcp", 9200))
    return {
        "sources": ranked([{"address": address} for address in dict.fromkeys(sources)], 0.1),
        "destinations": ranked([{"address": f"203.0.113.{dice.randrange(1, 30)}"} for _place in range(6)], 0.14),
        "services": ranked([{"protocol": protocol, "port": port} for protocol, port in services], 0.5),
        "pairs": ranked([{"source": sources[place], "destination": f"203.0.113.{place}"} for place in range(5)], 0.04),
    }
