//go:build unix

package etcdstore

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	clientv3 "go.etcd.io/etcd/client/v3"
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

var flagLeases = flag.Int("leases", 10_000, "that BenchmarkOpen has")

// BenchmarkOpen is the start of a server that finds so many leases in etcd, by
// machines that told their UUID.
func BenchmarkOpen(b *testing.B) {
	client := etcdtest.Start(b, 1).Client(b)
	const each = 100
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for at := w * each; at < *flagLeases; at += 8 * each {
				var ops []clientv3.Op
				for n := at; n < min(at+each, *flagLeases); n++ {
					addr, hw := numbered(int64(n))
					r, err := newRecord(dhcp.Lease{Addr: addr, HardwareAddr: hw, Archs: iana.Archs{iana.EFI_X86_64},
						UUID: fmt.Sprintf("12345678-9abc-def0-0102-%012x", n)}, "dhcp1")
					if err != nil {
						b.Error(err)
					}
					r.Expires, r.Grants = time.Now().Format(time.RFC3339Nano), []grant{{0x694d9c0a1b2c, 3600}}
					ops = append(ops, clientv3.OpPut(DefaultPrefix+"/lease/"+addr.String(), encode(r)))
				}
				if _, err := client.Txn(b.Context()).Then(ops...).Commit(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var before, after runtime.MemStats
	var took time.Duration
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		s, err := Open(client, nil)
		if err != nil {
			b.Fatal(err)
		}
		for s.Sync(b.Context()) != nil {
		}
		took += time.Since(began)
		runtime.GC()
		runtime.ReadMemStats(&after)
		s.Close()
		if len(s.cache.addrs) != *flagLeases {
			b.Fatal(len(s.cache.addrs), "leases")
		}
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s/open")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(*flagLeases), "B/lease")
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
