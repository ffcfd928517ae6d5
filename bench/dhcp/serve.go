//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	dhcpserver "github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// serve is what this program does as a server.
func serve(args []string) {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	file := set.String("file", "", "lease file; none keeps leases in memory")
	first := set.String("first", poolFirst, "")
	last := set.String("last", poolLast, "")
	plain := set.Bool("server4", false, "the smallest server on insomniacslk/dhcp's server4")
	_ = set.Parse(args)
	if *plain {
		fail(serve4())
	}
	var store dhcp.LeaseStore = &dhcp.MemoryStore{MaxLeases: -1}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if *file != "" {
		began := time.Now()
		s, err := dhcp.OpenFileStore(*file, &dhcp.FileStoreOptions{MaxLeases: -1, Logger: log})
		if err != nil {
			fail(err)
		}
		fmt.Println("opened", time.Since(began).Seconds())
		store = s
	}
	pool := &dhcp.Pool{
		Prefix: netip.MustParsePrefix(pools), ServerID: netip.MustParseAddr(serverAddr), Router: netip.MustParseAddr(serverAddr),
		Ranges:    []dhcp.Range{{First: netip.MustParseAddr(*first), Last: netip.MustParseAddr(*last)}},
		LeaseTime: leaseSeconds * time.Second, Store: store, MaxNewPerLink: -1, Logger: log,
	}
	rules := dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp.Boot{File: "http://" + serverAddr + "/boot.ipxe"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: bootFile}},
	}
	s := &dhcp.Server{Interfaces: []string{serverIf}, Handler: &dhcp.BootPolicy{Next: pool, Boot: rules.Boot, Logger: log}, Logger: log}
	fail(s.ListenAndServe())
}

// serve4 answers everybody from a map.
func serve4() error {
	self := net.ParseIP(serverAddr).To4()
	var mu sync.Mutex
	leases := map[string]net.IP{}
	next := binary.BigEndian.Uint32(net.ParseIP(poolFirst).To4())
	handler := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		if m.OpCode != dhcpv4.OpcodeBootRequest {
			return
		}
		mu.Lock()
		addr := leases[string(m.ClientHWAddr)]
		if addr == nil {
			addr = binary.BigEndian.AppendUint32(nil, next)
			next++
			leases[string(m.ClientHWAddr)] = addr
		}
		mu.Unlock()
		t := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			t = dhcpv4.MessageTypeAck
		}
		r, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(t), dhcpv4.WithYourIP(addr), dhcpv4.WithServerIP(self),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self)),
			dhcpv4.WithNetmask(net.CIDRMask(8, 32)), dhcpv4.WithLeaseTime(leaseSeconds),
			dhcpv4.WithOption(dhcpv4.OptRouter(self)))
		if err != nil {
			return
		}
		r.BootFileName = bootFile
		if !m.GatewayIPAddr.IsUnspecified() {
			peer = &net.UDPAddr{IP: m.GatewayIPAddr, Port: 67}
		}
		_, _ = conn.WriteTo(r.ToBytes(), peer)
	}
	s, err := dhcpserver.NewServer(serverIf, &net.UDPAddr{Port: 67}, handler)
	if err != nil {
		return err
	}
	return s.Serve()
}

// fillStore makes a lease file of n leases.
func fillStore(name string, n int) error {
	s, err := dhcp.OpenFileStore(name, &dhcp.FileStoreOptions{MaxLeases: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	start := netip.MustParseAddr(largeFirst).As4()
	expires := time.Now().Add(24 * time.Hour)
	const workers = 256
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(start[:])+uint32(i))
				l := dhcp.Lease{Addr: netip.AddrFrom4(a), HardwareAddr: net.HardwareAddr{2, 0x60, 0, byte(i >> 16), byte(i >> 8), byte(i)},
					UUID: fmt.Sprintf("11111111-1111-1111-1111-%012x", i), Archs: iana.Archs{iana.EFI_X86_64}, Expires: expires}
				if err := s.Commit(context.Background(), l); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	return s.Close()
}
