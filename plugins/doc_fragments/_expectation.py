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
      - The family of the addresses, which tell it themselves.
    type: str
    choices: [ipv4, ipv6]
  zone:
    description:
      - The conntrack zone of the master, and so of the expectation. The default is zone 0.
    type: int
  tuple:
    description:
      - The original tuple that the expected connection is to have. Together with O(zone), it is what the expectation
        is found by.
      - Of the source, what is zero or left out is any, unless O(mask) says otherwise.
    type: dict
    required: true
    suboptions:
      protocol:
        description: A name such as V(tcp), or a number from 0 to 255. Required.
        type: str
      source:
        description: An address. V(0.0.0.0), V(::) or none is any.
        type: str
      destination:
        description: An address. Required.
        type: str
      source_port:
        description: A port from 0 to 65535. V(0) or none is any.
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
        description: The identifier of an ICMP or ICMPv6 request. V(0) or none is any.
        type: int
      source_key:
        description: The key of GRE. V(0) or none is any.
        type: int
      destination_key: &gre_key
        description: The key of GRE.
        type: int
  mask:
    description:
      - Which bits of the source in O(tuple) count. What is left out counts in full where the tuple has it, and not at
        all where it is zero or left out there.
      - The kernel always compares the destination in full. Here it is accepted only as it is gathered, with all bits
        set.
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
      - The original tuple of the connection that announces this one. It must be there, in the zone O(zone), and have a
        helper.
      - Required for an expectation that is to be there.
    type: dict
    suboptions:
      protocol:
        description: Its protocol, if it is not that of O(tuple).
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
      - The class of the helper's expectations that it belongs to; each has its timeout and its greatest number. The
        default is 0. Helpers such as C(ftp) have no other, C(sip) has one for each of its kinds of stream.
    type: int
  flags:
    description:
      - V(permanent), to stay when the connection has come, so that further ones may; V(inactive), to expect nothing
        for now. V(userspace) is the kernel's own and accepted without effect.
    type: list
    elements: str
  function:
    description:
      - The name of the kernel's function that is called when the connection has come, V(nat-follow-master) to translate
        it as its master is, or one of a helper whose kernel module is loaded.
      - An empty string is none.
    type: str
  nat:
    description:
      - What O(function) needs to know to translate the connection. Without a function it has no effect.
    type: dict
    suboptions:
      direction:
        description:
          - The direction of the master in which the expected connection goes.
          - With O(function=nat-follow-master) and V(reply), it is sent on to the source of the master's original tuple
            and seems to come from the destination there. With V(original), the same goes for the reply tuple.
        type: str
        choices: [original, reply]
      tuple:
        description:
          - What was there before the helper changed the announcement, of which the kernel keeps the source alone. The
            function C(nat-follow-master) takes the port that the connection is sent to from it.
        type: dict
        suboptions:
          protocol:
            description: Accepted as it is gathered. It is that of the master.
            type: str
          source:
            description: The address that the helper has kept.
            type: str
          destination: *gathered_text
          source_port:
            description: The port that the connection is really for.
            type: int
          destination_port: *gathered_number
          icmp_type: *gathered_number
          icmp_code: *gathered_number
          icmp_id:
            description: The identifier that the helper has kept.
            type: int
          source_key:
            description: The key that the helper has kept.
            type: int
          destination_key: *gathered_number
  timeout:
    description:
      - Seconds that the connection has to come. The kernel gives a new expectation the timeout of its helper, V(300)
        with C(ftp); where another is declared, it is set right afterwards.
      - An expectation that is there already keeps its countdown, unless O(timeout_min) says otherwise.
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
