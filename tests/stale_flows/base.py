# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ruleset with which most cases start, and the commands that configure a gateway."""

from __future__ import annotations

import sys

from .comparison import Case, Step

#: The kernel chooses any source port.
ANY_PORT = range(1 << 16)


def nft(text: str) -> Step:
    """Return commands of nft(8)."""
    return Step(("nft", "-f", "-"), text)


def instead(text: str) -> Step:
    """Return a ruleset of nft(8) that replaces the current one."""
    return nft("flush ruleset\n" + text)


def ip(text: str, version: int = 4) -> Step:
    """Return commands of ip(8) for a version of IP, 0 for both."""
    return Step(("ip", *([f"-{version}"] if version else []), "-batch", "-"), text)


def iptables(text: str, version: int = 4) -> Step:
    """Return a ruleset of iptables-nft that replaces the current one of the same tables."""
    return Step(("iptables-nft-restore" if version == 4 else "ip6tables-nft-restore",), text)


def ip_set(name: str, *addresses: str) -> Step:
    """Return an address set of ipset that replaces the current one. pyroute2 creates it without the program."""
    lines = ["from pyroute2 import IPSet", "with IPSet() as sets:", f"    sets.create({name!r}, exclusive=False)"]
    lines += [f"    sets.flush({name!r})", *(f"    sets.add({name!r}, {address!r})" for address in addresses)]
    return Step((sys.executable, "-"), "\n".join(lines) + "\n")


def sysctl(name: str, value: int) -> Step:
    """Return a setting, by its path under /proc/sys/net."""
    return Step(("tee", f"/proc/sys/net/{name}"), str(value))


FILTER = """
table inet filter {
    set blocked { type ipv4_addr; flags interval; elements = { 10.1.0.64/31, 10.10.0.67 }; }
    set blocked6 { type ipv6_addr; flags interval; elements = { 2001:db8:1::40-2001:db8:1::42 }; }
    set services {
        type inet_proto . inet_service
        elements = { tcp . 22, tcp . 80, tcp . 443, udp . 53, udp . 123, udp . 1194, tcp . 8443 }
    }
    set pairs { type ipv4_addr . inet_service; elements = { 10.30.0.80 . 80, 10.30.0.81 . 443, 10.30.0.82 . 5432 }; }
    set ranges {
        type ipv4_addr . inet_service; flags interval
        elements = { 10.30.0.80-10.30.0.81 . 8000-9000, 10.30.0.82 . 22 }
    }
    map forwarded {
        type ifname : verdict
        elements = { "lan" : jump from_lan, "vlan10" : jump from_vlan10, "vlan20" : goto from_vlan20, "dmz" : accept }
    }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        ct state invalid drop
        iif "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        iifname { "lan", "vlan10" } accept
        meta l4proto . th dport @services accept
        tcp dport 113 reject with tcp reset
        udp dport 161 reject
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        ip saddr @blocked drop comment "blocked"
        ip6 saddr @blocked6 reject with icmpv6 addr-unreachable
        ct status dnat accept
        iifname vmap @forwarded
        iifname { "wan", "wan2" } jump from_internet
    }
    chain from_lan { accept; }
    chain from_vlan10 {
        oifname { "wan", "wan2" } accept
        ip daddr . th dport @pairs accept
        ip daddr . th dport @ranges accept
        ip6 daddr 2001:db8:30::/64 tcp dport { 80, 443 } accept
        goto rejected
    }
    chain from_vlan20 {
        oifname "wan2" accept
        oifname "lan" meta l4proto vmap { tcp : accept, udp : drop, icmp : accept }
    }
    chain from_internet { tcp dport 443 ip6 daddr 2001:db8:30::80 accept; }
    chain rejected {
        meta l4proto tcp reject with tcp reset
        reject with icmpx type admin-prohibited
    }
    chain output {
        type filter hook output priority 0; policy accept;
        ip daddr 198.51.100.200 tcp dport 25 drop
    }
}
"""
MARKS = """
table inet marks {
    chain prerouting {
        type filter hook prerouting priority mangle; policy accept;
        iifname "vlan20" meta mark set 2
        iifname "lan" udp dport { 5060, 4500 } meta mark set 0x2
    }
    chain output { type route hook output priority mangle; policy accept; udp dport 1194 meta mark set 2; }
}
"""
NAT = """
table ip nat {
    map published {
        type inet_service : ipv4_addr . inet_service
        elements = { 80 : 10.30.0.80 . 8080, 443 : 10.30.0.80 . 8443, 2222 : 10.1.0.80 . 22, 8080 : 10.1.0.81 . 80 }
    }
    map by_address {
        type ipv4_addr . inet_service : ipv4_addr
        elements = { 203.0.113.2 . 443 : 10.30.0.81, 203.0.113.2 . 25 : 10.30.0.82, 203.0.113.2 . 22 : 10.1.0.82 }
    }
    map by_source {
        type ipv4_addr : ipv4_addr; flags interval
        elements = { 10.1.0.4-10.1.0.7 : 203.0.113.2, 10.1.0.8/31 : 203.0.113.3 }
    }
    chain dstnat {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 203.0.113.1 tcp dport { 80, 443, 2222, 8080 } dnat to tcp dport map @published
        ip daddr 203.0.113.2 meta l4proto { tcp, udp } dnat to ip daddr . th dport map @by_address
        iifname "wan2" ip daddr 192.0.2.1 tcp dport 443 dnat to 10.30.0.80:8443
        iifname "lan" tcp dport 3128 redirect to :8080
        iifname "lan" ip daddr 198.51.100.70 udp dport 53 dnat to 10.30.0.80
    }
    chain output {
        type nat hook output priority -100; policy accept;
        ip daddr 198.51.100.9 tcp dport 80 dnat to 10.30.0.81:8080
    }
    chain input { type nat hook input priority 100; policy accept; }
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" udp dport 4500 accept
        oifname "wan" snat to ip saddr map @by_source
        oifname "wan" masquerade comment "masquerade"
        oifname "wan2" snat to 192.0.2.1
        ip saddr 10.1.0.0/24 ip daddr 10.1.0.0/24 oifname "lan" masquerade comment "hairpin"
    }
}
table ip6 nat {
    map published {
        type inet_service : ipv6_addr . inet_service
        elements = { 80 : 2001:db8:30::80 . 8080, 443 : 2001:db8:30::81 . 443 }
    }
    chain dstnat {
        type nat hook prerouting priority dstnat; policy accept;
        ip6 daddr 2001:db8:100::1 tcp dport { 80, 443 } dnat to tcp dport map @published
        ip6 daddr 2001:db8:100::1 tcp dport 8443 dnat to [2001:db8:1::80]:443
        iifname "lan" tcp dport 3128 redirect to :8080
    }
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan2" snat to 2001:db8:200::1
        oifname "wan" ip6 saddr 2001:db8:10::/64 masquerade
        ip6 saddr 2001:db8:1::/64 ip6 daddr 2001:db8:1::/64 masquerade
    }
}
"""
RULES = FILTER + MARKS + NAT


def changed(name: str, commands: str, *, undecidable: bool = False, ports: range = range(0), first: str = "") -> Case:
    """Return a case that starts with RULES and changes them with commands of nft(8).

    :param first: Commands before the flows start.
    """
    return Case(name, [instead(RULES + first)], [nft(commands)], undecidable, ports)


def replaced(name: str, before: str, after: str, *, undecidable: bool = False, ports: range = range(0)) -> Case:
    """Return a case in which one ruleset of nft(8) replaces another one."""
    return Case(name, [instead(before)], [instead(after)], undecidable, ports)
