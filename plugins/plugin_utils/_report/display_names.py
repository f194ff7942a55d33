# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Display names of facts."""

from __future__ import annotations

RANKING_NAMES = {"sources": "Sources", "destinations": "Destinations", "services": "Services", "pairs": "Pairs"}
STATUS_NAMES = {
    "seen_reply": "answered",
    "assured": "assured",
    "offload": "offloaded",
    "hw_offload": "offloaded to hardware",
    "expected": "announced by another",
    "helper": "with a helper",
    "dying": "dying",
    "template": "template",
}
#: Statuses that are shown even if their count is 0.
ALWAYS_SHOWN = ("seen_reply", "assured")
NAT_NAMES = {"source": "source NAT", "destination": "destination NAT", "none": "no NAT"}
#: Descriptions of the kernel's counters that the report shows, the most serious first.
COUNTERS_MEAN = {
    "drop": "packets dropped because no entry could be created",
    "early_drop": "entries removed to make room in a full table",
    "chain_toolong": "entries refused because their hash chain was too long",
    "insert_failed": "entries not inserted because an equal one existed",
    "error": "packets that had an error in them",
    "invalid": "packets that belong to no connection",
    "clash_resolve": "races between packets of one connection that were resolved",
    "search_restart": "lookups restarted because the hash table changed",
}
#: Verdicts of flows, the most serious first.
VERDICT_NAMES = {
    "refused": "refused",
    "nat_changed": "NAT changed",
    "untracked": "untracked",
    "uncertain": "uncertain",
    "unchanged": "unchanged",
}
#: Settings that are on or off.
SWITCHES = ("accounting", "timestamps", "checksum", "tcp_loose", "tcp_be_liberal", "tcp_ignore_invalid_rst")
#: Common service names, independent of this machine, so that the page is the same on every controller.
SERVICES = {
    ("tcp", "22"): "ssh",
    ("tcp", "25"): "smtp",
    ("tcp", "53"): "dns",
    ("udp", "53"): "dns",
    ("udp", "67"): "dhcp",
    ("tcp", "80"): "http",
    ("udp", "123"): "ntp",
    ("udp", "161"): "snmp",
    ("tcp", "179"): "bgp",
    ("tcp", "389"): "ldap",
    ("tcp", "443"): "https",
    ("udp", "443"): "quic",
    ("tcp", "445"): "smb",
    ("udp", "500"): "ike",
    ("udp", "514"): "syslog",
    ("tcp", "636"): "ldaps",
    ("tcp", "853"): "dns over tls",
    ("tcp", "993"): "imaps",
    ("tcp", "3306"): "mysql",
    ("tcp", "3389"): "rdp",
    ("udp", "4500"): "ipsec",
    ("tcp", "5432"): "postgresql",
    ("tcp", "6379"): "redis",
    ("tcp", "6443"): "kubernetes",
    ("tcp", "8080"): "http",
    ("udp", "51820"): "wireguard",
}


def words(name: str) -> str:
    """A name of the kernel as words: `time wait`."""
    return name.replace("_", " ")
