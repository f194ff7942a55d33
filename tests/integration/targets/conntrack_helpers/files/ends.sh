#!/bin/sh
# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Link a client and a server, each in a network namespace of its own, to the gateway whose process id is $1. Print the
# process ids that hold the client's and the server's namespace. Both end after an hour.

set -eu

gateway=$1

within() {
  holder=$1
  shift
  nsenter --net="/proc/$holder/ns/net" "$@"
}

holder() {
  unshare --net sleep 3600 </dev/null >/dev/null 2>&1 &
  until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
    sleep 0.01
  done
}

# Link a namespace to the gateway: its process id, its name, and for IPv4 and IPv6 its address and the gateway's
link() {
  within "$gateway" ip link add "$2" type veth peer name gateway netns "$1"
  within "$1" ip address add "$3/24" dev gateway
  within "$1" ip address add "$5/64" dev gateway nodad
  within "$gateway" ip address add "$4/24" dev "$2"
  within "$gateway" ip address add "$6/64" dev "$2" nodad
  within "$gateway" ip link set "$2" up
  within "$1" ip link set gateway up
}

holder
client=$!
trap 'kill "$client"' EXIT
holder
server=$!
trap 'kill "$client" "$server"' EXIT
link "$client" client 10.1.0.2 10.1.0.1 2001:db8:1::2 2001:db8:1::1
link "$server" server 203.0.113.80 203.0.113.1 2001:db8:ffff::80 2001:db8:ffff::1
within "$client" ip route add default via 10.1.0.1
within "$client" ip route add default via 2001:db8:1::1
within "$gateway" sh -c '
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
  # A play can take longer than the timeout of UDP, and an expectation ends with its master
  echo 300 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
'
trap - EXIT
echo "$client" "$server"
