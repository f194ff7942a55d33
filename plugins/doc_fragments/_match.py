# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that select entries."""

from __future__ import annotations


class ModuleDocFragment:
    #: For modules that change entries or wait for them
    CHANGING = r"""
options:
  match:
    description:
      - The entries to select, as a dictionary of the keys below or a list of such dictionaries. JSON text of either is
        accepted, too, for ad-hoc commands.
      - A dictionary selects an entry if each of its keys applies to the entry. If a key has a list, one of its values
        must apply, except in V(status), V(status_not), V(labels) and V(labels_not). With several dictionaries, at least
        one of them must select the entry.
      - An empty dictionary, an empty list and a null are errors. They never select everything.
      - Required unless O(all=true), or C(stale) is set in a module with this option.
      - V(family), V(protocol), V(zone), V(original_zone), V(reply_zone), V(helper) - one or a list. V(zone) selects
        entries that are in this zone in both directions. V(original_zone) and V(reply_zone) select entries that are in
        this zone in this direction, whatever the zone of the other direction. Protocols are numbers, or names as in
        C(/etc/protocols), such as V(tcp) and V(esp).
      - V(source), V(destination), V(reply_source), V(reply_destination) - an address, a network such as V(10.0.0.0/8),
        a range V(a-b), or a list. V(address) is compared with all four addresses of an entry, and V(reply_address) with
        both of the reply direction. One of them must match.
      - To select entries with any address, leave the key out. V(0.0.0.0) and V(::) are errors, except in V(source) and
        V(reply_destination), because entries of DHCP clients have V(0.0.0.0) there. In the other keys, write
        V(0.0.0.0/32) for this address alone, or V(0.0.0.0/0) for every IPv4 address.
      - V(source_port), V(destination_port), V(reply_source_port), V(reply_destination_port) - a number, a range V(a-b),
        the name of a service, or a list. V(port) is compared with all four ports of an entry, and one of them must
        match. Entries of protocols without ports never match.
      - V(icmp_type), V(icmp_code), V(icmp_id), V(source_key), V(destination_key) - a number or a list.
      - V(mark) - V(value), V(value/mask), or a list.
      - V(state) - one or a list of the states of TCP, SCTP and DCCP, such as V(established).
      - V(nat) - V(source), V(destination), V(any), V(none), or a list.
      - V(status), V(labels) - a list, all of which must be set. V(status_not), V(labels_not) - a list, none of which
        may be set.
      - V(labels) and V(labels_not) also accept V(value/mask). Both are numbers of 128 bits. The module then compares
        only the label bits in the mask with the value.
      - V(timeout_below), V(timeout_above) - remaining timeout in seconds. V(age_below), V(age_above) - seconds since
        the connection began. V(bytes_below), V(bytes_above), V(packets_below), V(packets_above) - both directions
        together.
      - Keys for ages need C(net.netfilter.nf_conntrack_timestamp). Keys for bytes and packets need
        C(net.netfilter.nf_conntrack_acct). The module compares these keys last. It fails if it has to compare one of
        them with an entry that began while the setting was off.
      - V(expected) - V(true) for connections that belong to another connection, their master. V(false) for all others.
      - V(master) - a dictionary, or a list of dictionaries, for the master, which is the connection that announced this
        one. For example, the master of an FTP data connection is its control connection. The keys are compared with the
        original tuple of the master. They are V(protocol), V(source), V(destination), V(address), V(source_port),
        V(destination_port), V(port), and those of ICMP and GRE. NAT does not change this tuple.
      - V(except) - a match, or a list of matches, as a key of this dictionary. The dictionary does not select entries
        that match V(except). To exclude entries from all dictionaries, use the option O(except).
    type: raw
  except:
    description:
      - Entries to exclude, in the form of O(match). By default, none is excluded. A null is an error.
    type: raw
"""

    #: For modules that read
    DOCUMENTATION = r"""
options:
  match:
    description:
      - The entries to select, as a dictionary of the keys below or a list of such dictionaries. JSON text of either is
        accepted, too, for ad-hoc commands.
      - A dictionary selects an entry if each of its keys applies to the entry. If a key has a list, one of its values
        must apply, except in V(status), V(status_not), V(labels) and V(labels_not). With several dictionaries, at least
        one of them must select the entry.
      - An empty dictionary, an empty list and a null are errors. They never select everything.
      - By default, every entry is selected.
      - V(family), V(protocol), V(zone), V(original_zone), V(reply_zone), V(helper) - one or a list. V(zone) selects
        entries that are in this zone in both directions. V(original_zone) and V(reply_zone) select entries that are in
        this zone in this direction, whatever the zone of the other direction. Protocols are numbers, or names as in
        C(/etc/protocols), such as V(tcp) and V(esp).
      - V(source), V(destination), V(reply_source), V(reply_destination) - an address, a network such as V(10.0.0.0/8),
        a range V(a-b), or a list. V(address) is compared with all four addresses of an entry, and V(reply_address) with
        both of the reply direction. One of them must match.
      - To select entries with any address, leave the key out. V(0.0.0.0) and V(::) are errors, except in V(source) and
        V(reply_destination), because entries of DHCP clients have V(0.0.0.0) there. In the other keys, write
        V(0.0.0.0/32) for this address alone, or V(0.0.0.0/0) for every IPv4 address.
      - V(source_port), V(destination_port), V(reply_source_port), V(reply_destination_port) - a number, a range V(a-b),
        the name of a service, or a list. V(port) is compared with all four ports of an entry, and one of them must
        match. Entries of protocols without ports never match.
      - V(icmp_type), V(icmp_code), V(icmp_id), V(source_key), V(destination_key) - a number or a list.
      - V(mark) - V(value), V(value/mask), or a list.
      - V(state) - one or a list of the states of TCP, SCTP and DCCP, such as V(established).
      - V(nat) - V(source), V(destination), V(any), V(none), or a list.
      - V(status), V(labels) - a list, all of which must be set. V(status_not), V(labels_not) - a list, none of which
        may be set.
      - V(labels) and V(labels_not) also accept V(value/mask). Both are numbers of 128 bits. The module then compares
        only the label bits in the mask with the value.
      - V(timeout_below), V(timeout_above) - remaining timeout in seconds. V(age_below), V(age_above) - seconds since
        the connection began. V(bytes_below), V(bytes_above), V(packets_below), V(packets_above) - both directions
        together.
      - Keys for ages need C(net.netfilter.nf_conntrack_timestamp). Keys for bytes and packets need
        C(net.netfilter.nf_conntrack_acct). The module compares these keys last. It fails if it has to compare one of
        them with an entry that began while the setting was off.
      - V(expected) - V(true) for connections that belong to another connection, their master. V(false) for all others.
      - V(master) - a dictionary, or a list of dictionaries, for the master, which is the connection that announced this
        one. For example, the master of an FTP data connection is its control connection. The keys are compared with the
        original tuple of the master. They are V(protocol), V(source), V(destination), V(address), V(source_port),
        V(destination_port), V(port), and those of ICMP and GRE. NAT does not change this tuple.
      - V(except) - a match, or a list of matches, as a key of this dictionary. The dictionary does not select entries
        that match V(except). To exclude entries from all dictionaries, use the option O(except).
    type: raw
    default: everything
  except:
    description:
      - Entries to exclude, in the form of O(match). By default, none is excluded. A null is an error.
    type: raw
"""
