package tftp

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/fstest"
)

func BenchmarkCleanName(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cleanName("/pxelinux.cfg/01-52-54-00-12-34-56"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRRQ(b *testing.B) {
	req := request(1, "pxelinux.cfg/default", "octet", "tsize", "0", "blksize", "1408")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, refusal := parseRRQ(req); !ok || refusal != nil {
			b.Fatal(refusal)
		}
	}
}

// BenchmarkMissing is a name that does not exist, as a client sees it: what
// the ladder of pxelinux.cfg mostly consists of.
func BenchmarkMissing(b *testing.B) {
	addr := serve(b, &Server{Handler: FileServerFS(fstest.MapFS{})})
	w := dial(b)
	req := request(1, "pxelinux.cfg/default", "octet", "tsize", "0", "blksize", "1408")
	buf := make([]byte, 2000)
	b.ReportAllocs()
	for b.Loop() {
		w.send(addr, req)
		if n, err := w.conn.Read(buf); err != nil || n < 4 || buf[1] != opERROR {
			b.Fatal(n, err)
		}
	}
}

func benchmarkTransfer(b *testing.B, host string, blksize string, block int) {
	file := content(4 << 20)
	addr := serveOn(b, &Server{Handler: static(file)}, "0.0.0.0:0")
	to := netip.AddrPortFrom(netip.MustParseAddr(host), addr.Port())
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		w := dial(b)
		w.send(to, request(1, "x", "octet", "blksize", blksize))
		w.recv()
		w.ack(0)
		if !bytes.Equal(file, w.rest(1, block)) {
			b.Fatal("differs")
		}
		w.conn.Close()
	}
}

func BenchmarkTransfer1468(b *testing.B)  { benchmarkTransfer(b, "127.0.0.1", "1468", 1468) }
func BenchmarkTransferRelay(b *testing.B) { benchmarkTransfer(b, "127.0.0.2", "1468", 1468) }
