// Package dhcp is a DHCPv4 server (RFC 2131, RFC 2132) for machines that boot
// from the network.
//
// # Model
//
// A [Server] reads requests from sockets, asks its [Handler] for each of them,
// and sends what the handler returns. Handlers are put together like HTTP
// middleware:
//
//   - [Pool] gives addresses of one subnet, from ranges and reservations, and
//     keeps them in a [LeaseStore]. A machine is its hardware address: ROM,
//     iPXE, initramfs and system get the same address.
//   - [BootPolicy] adds the boot file and what else the firmware needs, chosen
//     by [BootRules] or any function, from the client's architecture, platform
//     and hardware address.
//   - [Proxy] tells booting machines what to boot beside a server that gives
//     the addresses (ProxyDHCP).
//   - [First] asks several handlers in turn, such as one pool per subnet;
//     [SharedNetwork] joins the subnets of one link.
//
// Leases are kept by a [MemoryStore], by a [FileStore] that flushes each before
// the client hears of it, or by a [SharedStore] of several servers: package
// etcdstore beside this one has one. [Explain] tells what would be decided for a
// request and why; [BootPolicy.Check] finds policies that firmware cannot
// boot by.
//
// [Pool.LeaseByAddr] tells other servers which machine an address is.
// [Trace] shows every request and what became of it. [Probe] asks whether
// another DHCP server is on a network, before one is started there; [Watch]
// goes on asking. [Client] plays a booting machine, for simulations and tests.
//
// Package [github.com/seed-3ec230fa/diskless/dhcp/dhcp6] is the same for IPv6.
//
// # Usage
//
//	pool := &dhcp.Pool{
//		Prefix:   netip.MustParsePrefix("192.168.0.0/24"),
//		Ranges:   []dhcp.Range{{netip.MustParseAddr("192.168.0.100"), netip.MustParseAddr("192.168.0.199")}},
//		ServerID: netip.MustParseAddr("192.168.0.1"),
//	}
//	rules := dhcp.BootRules{
//		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp.Boot{File: "http://192.168.0.1/boot.ipxe"}},
//		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "snponly.efi"}},
//		{Match: dhcp.Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: dhcp.Boot{File: "undionly.kpxe"}},
//	}
//	server := &dhcp.Server{
//		Interfaces: []string{"eth1"},
//		Handler:    &dhcp.BootPolicy{Next: pool, Boot: rules.Boot},
//	}
//	err := server.ListenAndServe()
//
// # Caveats
//
// Two DHCP servers that give addresses on one network disturb each other; call
// [Probe] first, and set [Server.Interfaces].
//
// The receiving interface is known, and broadcasts leave by it, where the
// system has packet information for UDP sockets (Linux, the BSDs, macOS).
// [Server.Interfaces] and [Probe] need Linux.
//
// A request is answered with at most what its option 57 allows, which is taken
// to count the IP and UDP headers: 576 bytes at least and 1500 at most.
package dhcp
