# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of an entry."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  family:
    description:
      - The family of the addresses. By default, the module derives it from the addresses.
    type: str
    choices: [ipv4, ipv6]
  protocol:
    description:
      - V(tcp), V(udp), V(icmp), V(icmpv6), V(sctp), V(dccp), V(gre), V(udplite), or a number from 0 to 255.
      - Other names in C(/etc/protocols), such as V(esp), are accepted, too. For these protocols, results contain the
        number.
    type: str
    required: true
  zone:
    description:
      - The conntrack zone of both directions. The zone is part of the identity of the entry. The default is zone 0.
    type: int
    default: 0
  original:
    description:
      - The tuple of the direction in which the connection began. The tuple identifies the entry.
      - Required, with two exceptions. O(reply) alone is enough if the entry has no NAT, or with O(state=absent).
    type: dict
    suboptions: &direction
      <<: &tuple
        source:
          description: An address.
          type: str
        destination:
          description: An address.
          type: str
        source_port:
          description: A port from 0 to 65535. TCP, UDP, SCTP, DCCP and UDP-Lite have ports.
          type: int
        destination_port:
          description: A port from 0 to 65535.
          type: int
        icmp_type:
          description: The type of an ICMP or ICMPv6 request.
          type: int
        icmp_code:
          description: The code of an ICMP or ICMPv6 request.
          type: int
        icmp_id:
          description: The identifier of an ICMP or ICMPv6 request.
          type: int
        source_key:
          description: The GRE key of the sender, which packets of the other direction contain.
          type: int
        destination_key:
          description: The GRE key of the receiver, which packets of this direction contain.
          type: int
      zone:
        description: The conntrack zone, if only this direction is in a zone.
        type: int
  reply:
    description:
      - The tuple of the reply direction. The default is the reversed O(original).
      - If you set O(nat), you can leave this tuple out, and the kernel computes it. If you set both, they must agree.
    type: dict
    suboptions: *direction
  nat:
    description:
      - The NAT of the connection. NAT can be set only when an entry is created.
      - NAT takes effect only in a network namespace that has NAT rules, or has had some.
    type: dict
    suboptions:
      source:
        description: Source NAT.
        type: dict
        suboptions: &translation
          address:
            description: An address, or a range V(a-b) from which the kernel selects one.
            type: str
          port:
            description: A port, or a range V(a-b) from which the kernel selects one. For ICMP, this is the identifier
              instead of a port.
            type: str
      destination:
        description: Destination NAT.
        type: dict
        suboptions: *translation
  timeout:
    description:
      - The timeout of a new entry, in seconds. The default is 120.
      - An existing entry keeps its remaining timeout, unless O(timeout_min) extends it.
    type: int
  mark:
    description:
      - The mark as a number, or V(value/mask) to declare only some of its bits.
    type: str
  labels:
    description:
      - All labels of the entry, as names (see O(label_map)) or as bit numbers from 0 to 127.
      - The kernel stores labels only in a network namespace with a rule that uses them.
    type: list
    elements: str
  status:
    description:
      - All of the status bits V(seen_reply), V(assured) and V(fixed_timeout) that the entry must have. The kernel sets
        them in an existing entry, but cannot clear them. If the entry has another one of these bits, the task therefore
        fails, see O(replace). Other status bits are accepted and have no effect.
    type: list
    elements: str
  tcp:
    description:
      - The state of a TCP connection.
    type: dict
    suboptions:
      state:
        description:
          - V(none), V(syn_sent), V(syn_recv), V(established), V(fin_wait), V(close_wait), V(last_ack),
            V(time_wait), V(close) or V(syn_sent2).
        type: str
      original:
        description: The original direction.
        type: dict
        suboptions: &tcp_direction
          window_scale:
            description:
              - The window scale from 0 to 14. It takes effect only with the flag V(window_scale) in both
                directions.
            type: int
          flags:
            description:
              - Flags that must be set. The possible flags are V(window_scale), V(sack_permitted), V(close_init),
                V(be_liberal), V(data_unacknowledged), V(maxack_set), V(challenge_ack) and V(simultaneous_open). Flags
                that the kernel has set in addition stay set.
              - If you leave the flags out, an existing entry keeps its flags. A new entry gets V(sack_permitted) and
                V(be_liberal). In the states V(time_wait), V(close) and V(syn_sent2), a new entry also gets
                V(close_init). C(conntrack -I) sets the same flags.
              - Without V(be_liberal), the kernel treats packets of a live connection as invalid if it does not know the
                window scale.
              - An empty list creates the entry without flags. If the entry exists, an empty list clears
                V(window_scale), V(sack_permitted), V(close_init) and V(be_liberal), unless the declared state is
                V(syn_sent) or V(syn_sent2).
            type: list
            elements: str
      reply:
        description: The reply direction.
        type: dict
        suboptions: *tcp_direction
  sctp:
    description:
      - The state of an SCTP association.
    type: dict
    suboptions:
      state:
        description:
          - V(none), V(closed), V(cookie_wait), V(cookie_echoed), V(established), V(shutdown_sent),
            V(shutdown_recd), V(shutdown_ack_sent) or V(heartbeat_sent).
        type: str
      original_vtag:
        description: The verification tag of the original direction.
        type: int
      reply_vtag:
        description: The verification tag of the reply direction.
        type: int
  dccp:
    description:
      - The state of a DCCP connection, on kernels before 6.17.
    type: dict
    suboptions:
      state:
        description:
          - V(none), V(request), V(respond), V(partopen), V(open), V(closereq), V(closing), V(timewait), V(ignore)
            or V(invalid).
        type: str
      role:
        description: The role of the original direction, V(client) or V(server).
        type: str
      handshake_sequence:
        description: The sequence number of the handshake.
        type: int
  helper:
    description:
      - The name of the connection tracking helper, such as V(ftp). A helper can be attached only when an entry is
        created.
      - An empty string removes the helper.
    type: str
  master:
    description:
      - The original tuple of the connection that this one belongs to. A master can be set only when an entry is
        created. The entry of the master must exist, in the same zone.
    type: dict
    suboptions:
      <<: *tuple
      protocol:
        description: The protocol of the master, if it differs from O(protocol).
        type: str
  sequence_adjustment:
    description:
      - The shift of TCP sequence numbers after a helper changed the length of packets.
    type: dict
    suboptions:
      original:
        description: The original direction.
        type: dict
        suboptions: &adjustment
          position:
            description: The sequence number at which the shift changes.
            type: int
          before:
            description: The shift before that position.
            type: int
          after:
            description: The shift from that position on.
            type: int
      reply:
        description: The reply direction.
        type: dict
        suboptions: *adjustment
  synproxy:
    description:
      - The SYNPROXY data of the connection.
    type: dict
    suboptions:
      isn:
        description: The initial sequence number.
        type: int
      its:
        description: The initial timestamp.
        type: int
      tsoff:
        description: The offset of timestamps.
        type: int
  counters:
    description:
      - The packets and bytes. Accepted and ignored, so that you can declare an entry exactly as it was read.
    type: dict
  timestamps:
    description:
      - The times. Accepted and ignored, so that you can declare an entry exactly as it was read.
    type: dict
  security_context:
    description:
      - The security context. Accepted and ignored, so that you can declare an entry exactly as it was read.
    type: str
  id:
    description:
      - The kernel's id. Accepted and ignored, so that you can declare an entry exactly as it was read.
    type: int
  use:
    description:
      - The kernel's use count. Accepted and ignored, so that you can declare an entry exactly as it was read.
    type: int
  extra:
    description:
      - Attributes that this version does not know. Accepted and ignored, so that you can declare an entry exactly as it
        was read.
    type: dict
"""
