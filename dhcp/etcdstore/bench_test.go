//go:build unix

package etcdstore

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
)

func numbered(n int64) (netip.Addr, net.HardwareAddr) {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), net.HardwareAddr{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

// BenchmarkCommit is new leases, one at a time and 64 at once, on one member
// that flushes each transaction.
func BenchmarkCommit(b *testing.B) {
	for name, parallel := range map[string]int{"1": 1, "64": 64} {
		b.Run(name, func(b *testing.B) {
			s := openStore(b, etcdtest.Start(b, 1).Client(b), Options{Name: "a"})
			b.ReportAllocs()
			var n atomic.Int64
			b.SetParallelism(parallel)
			if parallel == 1 {
				for b.Loop() {
					commitNumbered(b, s, n.Add(1))
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					commitNumbered(b, s, n.Add(1))
				}
			})
		})
	}
}

func commitNumbered(b *testing.B, s *Store, n int64) {
	addr, hw := numbered(n)
	if err := s.Commit(context.Background(), dhcp.Lease{Addr: addr, HardwareAddr: hw, Expires: time.Now().Add(time.Hour)}); err != nil {
		b.Error(err)
	}
}

// BenchmarkAddrState is what a search through a full pool asks.
func BenchmarkAddrState(b *testing.B) {
	s := &Store{cache: newCache()}
	s.cache.setTerm(1, 1, true)
	for n := range int64(65536) {
		addr, hw := numbered(n)
		value := encode(record{MAC: colons(hw), Expires: "2026-01-02T03:04:05Z", Grants: []grant{{1, 3600}}, Server: "a"})
		if err := s.cache.setLease(addr, []byte(value), 1+n, 1+n, "a"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	var n int64
	for b.Loop() {
		n++
		addr, _ := numbered(n % 65536)
		s.AddrState(addr, "somebody")
	}
}
