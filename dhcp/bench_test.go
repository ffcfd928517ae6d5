package dhcp

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
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

// Opening a file of 100,000 leases.
func BenchmarkOpenFileStore(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	recs := make([]record, n)
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 0}
	for i := range recs {
		binary.BigEndian.PutUint32(hw[2:], uint32(i))
		rec, err := newRecord(Lease{Addr: numberAddr(10<<24 + uint32(i)), HardwareAddr: hw, UUID: uuidText, Archs: iana.Archs{7}, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		recs[i] = rec
	}
	j, err := createJournal(osJournalDir(dir), "leases", recs)
	if err != nil {
		b.Fatal(err)
	}
	j.close()
	b.ReportAllocs()
	for b.Loop() {
		s, err := OpenFileStore(filepath.Join(dir, "leases"), nil)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// Commits of as many clients as a busy server has at the same time.
func BenchmarkFileStoreCommit(b *testing.B) {
	s, err := OpenFileStore(filepath.Join(b.TempDir(), "leases"), &FileStoreOptions{MaxLeases: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var next atomic.Uint32
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := next.Add(1) % (1 << 16)
			hw := net.HardwareAddr{2, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
			if err := s.Commit(context.Background(), Lease{Addr: numberAddr(10<<24 + n), HardwareAddr: hw, Expires: time.Now().Add(time.Hour)}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
