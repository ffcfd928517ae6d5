package tftp

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

func BenchmarkParseRequest(b *testing.B) {
	req := request(1, "pxelinux.cfg/default", "octet", "tsize", "0", "blksize", "1408")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, refusal := parseRequest(req); !ok || refusal != nil {
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

func benchmarkTransfer(b *testing.B, one bool, window int) {
	file := content(4 << 20)
	addr := serve(b, &Server{OnePort: one, Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(bytes.NewReader(file), int64(len(file)), "file"), nil
	})})
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Client{BlockSize: 1468, WindowSize: window}).Get(b.Context(), addr.String(), "x", io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransfer(b *testing.B) {
	for _, window := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint("own ports/window ", window), func(b *testing.B) { benchmarkTransfer(b, false, window) })
		b.Run(fmt.Sprint("one port/window ", window), func(b *testing.B) { benchmarkTransfer(b, true, window) })
	}
}
