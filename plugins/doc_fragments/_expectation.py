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
      - The family of the addresses. By default, it follows from the addresses.
    type: str
    choices: [ipv4, ipv6]
  zone:
    description:
      - The conntrack zone of the master and of the expectation. The default is zone 0.
    type: int
  tuple:
    description:
      - The original tuple of the expected connection. Together with O(zone), it identifies the expectation.
      - A source address, port, key or identifier that is 0 or missing means any, unless O(mask) is set for it.
    type: dict
    required: true
    suboptions:
      protocol:
        description: A name such as V(tcp), or a number from 0 to 255. Required.
        type: str
      source:
        description: An address. V(0.0.0.0), V(::) or none means any.
        type: str
      destination:
        description: An address. Required.
        type: str
      source_port:
        description: A port from 0 to 65535. V(0) or none means any.
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
        description: The identifier of an ICMP or ICMPv6 request. V(0) or none means any.
        type: int
      source_key:
        description: The key of GRE. V(0) or none means any.
        type: int
      destination_key: &gre_key
        description: The key of GRE.
        type: int
  mask:
    description:
      - The bits of the source in O(tuple) that are compared. By default, all bits are compared if the tuple has a
        value other than 0, and none otherwise.
      - The kernel always compares the destination in full. Its mask is accepted only with all bits set, as gathered.
    type: dict
    suboptions:
      protocol: &gathered_text
        description: Accepted as it is gathered.
        type: str
      source:
        description: The bits of the source address, such as V(255.255.255.0).
        type: str
      destination: *gathered_text
      source_port:
        description: The bits of the source port, V(65535) for all and V(0) for none.
        type: int
      destination_port: &gathered_number
        description: Accepted as it is gathered.
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
      - The original tuple of the connection that announces this one. Its entry must exist, in the zone O(zone), and
        have a helper.
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
      source_key: *gre_key
      destination_key: *gre_key
  class:
    description:
      - The number of the class of expectations in the helper. Each class has a timeout and a maximum number of
        expectations. The default is 0. C(ftp) has only this class, C(sip) has one for each kind of stream.
    type: int
  flags:
    description:
      - V(permanent) keeps the expectation after the connection begins, for further ones. V(inactive) disables it.
        V(userspace) is accepted and has no effect.
    type: list
    elements: str
  function:
    description:
      - The name of the kernel function that is called when the connection begins. V(nat-follow-master) applies the NAT
        of the master; other functions belong to helpers whose kernel modules are loaded.
      - An empty string means none.
    type: str
  nat:
    description:
      - The arguments of O(function). Without a function, they have no effect.
    type: dict
    suboptions:
      direction:
        description:
          - The direction of the master that the expected connection has.
          - With O(function=nat-follow-master) and V(reply), the kernel forwards it to the source of the master's
            original tuple, with the destination there as its source. With V(original), it uses the reply tuple.
        type: str
        choices: [original, reply]
      tuple:
        description:
          - The tuple before the helper changed the announcement. The kernel stores only its source.
            C(nat-follow-master) forwards the connection to this port.
        type: dict
        suboptions:
          protocol:
            description: Accepted as it is gathered. It is the protocol of the master.
            type: str
          source:
            description: The address that the helper stored.
            type: str
          destination: *gathered_text
          source_port:
            description: The actual port of the connection.
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
      - The timeout in seconds. The kernel gives a new expectation the timeout of its helper, V(300) with C(ftp). The
        module then sets the declared one.
      - An existing expectation keeps its remaining timeout, unless O(timeout_min) extends it.
    type: int
  helper:
    description:
      - Accepted and ignored, so that an expectation that was read can be declared as it stands (the helper of its
        master).
    type: str
  id:
    description:
      - Accepted and ignored, so that an expectation that was read can be declared as it stands (the kernel's id).
    type: int
  extra:
    description:
      - Accepted and ignored, so that an expectation that was read can be declared as it stands (attributes that this
        version does not know).
    type: dict
"""
