// SPDX-FileCopyrightText: netops.conntrack contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// The same works with the Go library vishvananda/netlink, as its documentation shows them:
// go_client read|flush_port|flush_network ENTRIES, where ENTRIES is the expected number.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var families = []netlink.InetFamily{unix.AF_INET, unix.AF_INET6}

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s read|flush_port|flush_network ENTRIES", os.Args[0]))
	}
	expected, err := strconv.Atoi(os.Args[2])
	fail(err)
	done := 0
	for _, family := range families {
		if os.Args[1] == "read" {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			fail(err)
			done += len(flows)
		} else {
			deleted, err := netlink.ConntrackDeleteFilter(netlink.ConntrackTable, family, filter(os.Args[1]))
			fail(err)
			done += int(deleted)
		}
	}
	if done != expected {
		fail(fmt.Errorf("%d entries instead of %d", done, expected))
	}
}

// filter returns the match of each flush of the bench, see mix.py.
func filter(work string) *netlink.ConntrackFilter {
	filter := &netlink.ConntrackFilter{}
	switch work {
	case "flush_port":
		fail(filter.AddProtocol(unix.IPPROTO_TCP))
		fail(filter.AddPort(netlink.ConntrackOrigDstPort, 443))
	case "flush_network":
		_, network, err := net.ParseCIDR("10.0.0.0/9")
		fail(err)
		fail(filter.AddIPNet(netlink.ConntrackOrigSrcIP, network))
	default:
		fail(fmt.Errorf("%s is not a work", work))
	}
	return filter
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
