#!/bin/sh
# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Make a network namespace with the nftables rules of standard input and print two process ids: of the process that
# holds it, and of the one that writes its conntrack events to the file $1. Both end by themselves if nobody kills them.

set -eu

unshare --net sleep 3600 </dev/null >/dev/null 2>&1 &
holder=$!
until [ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
  sleep 0.01
done

within() {
  nsenter --net="/proc/$holder/ns/net" "$@"
}

trap 'kill "$holder"' EXIT
within ip link set lo up
within nft -f -
# By default the kernel tells nothing of entries that were made before somebody listened
within sh -c 'echo 1 >/proc/sys/net/netfilter/nf_conntrack_events'
# Flows must not expire during the tasks, even if the machine stands still
for setting in udp_timeout udp_timeout_stream icmp_timeout icmpv6_timeout gre_timeout; do
  within sh -c "echo 600 >/proc/sys/net/netfilter/nf_conntrack_$setting"
done
: >"$1"
nsenter --net="/proc/$holder/ns/net" timeout 3600 conntrack -E </dev/null >>"$1" 2>/dev/null &
listener=$!
# Protocol 12 is NETLINK_NETFILTER, the groups 7 are new, update and destroy
until within awk '$2 == 12 && $4 == "00000007" {found = 1} END {exit !found}' /proc/net/netlink; do
  kill -0 "$listener"
  sleep 0.01
done
trap - EXIT
echo "$holder" "$listener"
