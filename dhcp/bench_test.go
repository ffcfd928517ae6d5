package dhcp

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"testing"
)

// benchPool has 65,533 addresses.
func benchPool() *Pool {
	return &Pool{
		Prefix: netip.MustParsePrefix("10.0.0.0/16"), ServerID: ip("10.0.0.1"),
		Ranges: []Range{{ip("10.0.0.2"), ip("10.0.255.254")}}, Logger: slog.New(slog.DiscardHandler),
	}
}

func benchServe(b *testing.B, data []byte) {
	quiet := slog.New(slog.DiscardHandler)
	s := &Server{Handler: benchPool(), Logger: quiet}
	var out capture
	from := testSource()
	buf := make([]byte, len(data)+1)
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, data)
		s.handle(context.Background(), &out, buf, from)
	}
	if out.data == nil {
		b.Fatal("not answered")
	}
}

func BenchmarkDiscover(b *testing.B) {
	benchServe(b, message(discover, macA, BIOSFirmware()).ToBytes())
}

func BenchmarkRenew(b *testing.B) {
	benchServe(b, message(request, macA, bareSystem, ciaddr("10.0.0.50")).ToBytes())
}

// A pool without a free address, asked by ever new machines.
func BenchmarkExhausted(b *testing.B) {
	p := benchPool()
	if err := p.Validate(); err != nil {
		b.Fatal(err)
	}
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 0}
	for n := range p.size {
		binary.BigEndian.PutUint32(hw[2:], uint32(n))
		if err := p.store.Commit(context.Background(), Lease{Addr: p.nth(n), HardwareAddr: hw}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	n := uint32(1 << 24)
	for b.Loop() {
		n++
		r := on(message(discover, net.HardwareAddr{4, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bareSystem))
		if reply, err := p.ServeDHCP(context.Background(), r); reply != nil || err != nil {
			b.Fatal(reply, err)
		}
	}
}

func BenchmarkLeaseByAddr(b *testing.B) {
	p := benchPool()
	addr := dora(b, p, macA, bareSystem)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.LeaseByAddr(context.Background(), addr); err != nil {
			b.Fatal(err)
		}
	}
}
