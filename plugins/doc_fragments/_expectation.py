# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of an expectation."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  family:
    description:
      - The family of the addresses. By default, the module derives it from the addresses.
    type: str
    choices: [ipv4, ipv6]
  zone:
    description:
      - The conntrack zone of the master and of the expectation. The default is zone 0.
    type: int
  tuple:
    description:
      - The original tuple of the expected connection. The tuple and O(zone) identify the expectation.
      - If the source address, source port, source key or identifier is 0 or missing, any value matches, unless you set
        its O(mask).
    type: dict
    required: true
    suboptions:
      protocol:
        description: A name such as V(tcp), or a number from 0 to 255. Required.
        type: str
      source:
        description: An address. If it is V(0.0.0.0), V(::) or missing, any address matches.
        type: str
      destination:
        description: An address. Required.
        type: str
      source_port:
        description: A port from 0 to 65535. If it is V(0) or missing, any port matches.
        type: int
      destination_port: &port
        description: A port from 0 to 65535.
        type: int
      icmp_type: &icmp_type
        description: The type of an ICMP or ICMPv6 request.
        type: int
      icmp_code: &icmp_code
        description: The code of an ICMP or ICMPv6 request.
        type: int
      icmp_id:
        description: The identifier of an ICMP or ICMPv6 request. If it is V(0) or missing, any identifier matches.
        type: int
      source_key:
        description: The GRE key of the sender. If it is V(0) or missing, any key matches.
        type: int
      destination_key: &gre_key
        description: The GRE key of the receiver.
        type: int
  mask:
    description:
      - The bits of the source in O(tuple) that the kernel compares. By default, the kernel compares all bits of the
        source address, port, key or identifier if it is not 0, and none if it is 0 or missing.
      - The kernel always compares the destination in full. A mask of the destination is accepted only with all bits
        set, as M(netops.conntrack.conntrack_info) returns it.
    type: dict
    suboptions:
      protocol: &gathered_text
        description: This key has no effect. Only the value that M(netops.conntrack.conntrack_info) returns is accepted.
        type: str
      source:
        description: The bits of the source address, such as V(255.255.255.0).
        type: str
      destination: *gathered_text
      source_port:
        description: The bits of the source port, V(65535) for all and V(0) for none.
        type: int
      destination_port: &gathered_number
        description: This key has no effect. Only the value that M(netops.conntrack.conntrack_info) returns is accepted.
        type: int
      icmp_type: *gathered_number
      icmp_code: *gathered_number
      icmp_id:
        description: The bits of the identifier.
        type: int
      source_key:
        description: The bits of the source key.
        type: int
      destination_key: *gathered_number
  master:
    description:
      - The original tuple of the connection that announces this one. The entry of the master must exist in the zone
        O(zone), and must have a helper.
      - Required for an expectation that must exist.
    type: dict
    suboptions:
      protocol:
        description: The protocol of the master, if it differs from that of O(tuple).
        type: str
      source: &address
        description: An address.
        type: str
      destination: *address
      source_port: *port
      destination_port: *port
      icmp_type: *icmp_type
      icmp_code: *icmp_code
      icmp_id:
        description: The identifier of an ICMP or ICMPv6 request.
        type: int
      source_key:
        description: The GRE key of the sender.
        type: int
      destination_key: *gre_key
  class:
    description:
      - The number of the class of expectations in the helper. Each class has a timeout and a maximum number of
        expectations. The default is 0. The helper C(ftp) has only this class. The helper C(sip) has one for each kind
        of stream.
    type: int
  flags:
    description:
      - V(permanent) keeps the expectation for further connections after the first one has begun. V(inactive) disables
        the expectation. V(userspace) is accepted and has no effect.
    type: list
    elements: str
  function:
    description:
      - The name of the kernel function that is called when the connection begins. V(nat-follow-master) applies the NAT
        of the master. Other functions belong to helpers, and exist while the kernel module of the helper is loaded.
      - An empty string means none.
    type: str
  nat:
    description:
      - The arguments of O(function). Without a function, they have no effect.
    type: dict
    suboptions:
      direction:
        description:
          - Whether the expected connection begins in the original direction or in the reply direction of its master.
          - With O(function=nat-follow-master) and V(reply), the new destination of the connection is the source of the
            master's original tuple. The new source is the destination of that tuple. With V(original), the kernel uses
            the master's reply tuple instead.
        type: str
        choices: [original, reply]
      tuple:
        description:
          - The address and port that the master announced, before the helper changed them. They are stored as the
            source of this tuple. Other keys have no effect.
        type: dict
        suboptions:
          protocol:
            description: The protocol of the master. This key has no effect. Only the value that
              M(netops.conntrack.conntrack_info) returns is accepted.
            type: str
          source:
            description: The address that the helper stored.
            type: str
          destination: *gathered_text
          source_port:
            description: The port that the master announced. C(nat-follow-master) forwards the connection to it.
            type: int
          destination_port: *gathered_number
          icmp_type: *gathered_number
          icmp_code: *gathered_number
          icmp_id:
            description: The identifier that the helper stored.
            type: int
          source_key:
            description: The key that the helper stored.
            type: int
          destination_key: *gathered_number
  timeout:
    description:
      - The timeout in seconds. The kernel gives a new expectation the timeout of its helper, for example V(300) for
        C(ftp). The module then sets the declared timeout.
      - An existing expectation keeps its remaining timeout, unless O(timeout_min) extends it.
    type: int
  helper:
    description:
      - The helper of the master. Accepted and ignored, so that you can declare an expectation exactly as it was read.
    type: str
  id:
    description:
      - The kernel's id. Accepted and ignored, so that you can declare an expectation exactly as it was read.
    type: int
  extra:
    description:
      - Attributes that this version does not know. Accepted and ignored, so that you can declare an expectation exactly
        as it was read.
    type: dict
"""
