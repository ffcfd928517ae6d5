package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// start serves h on a free port, as a program would on nbd.Server's Addr, and
// returns the address and what ends the server.
func start(h nbd.Handler) (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &nbd.Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}
	go srv.Serve(l)
	return l.Addr().String(), func() { srv.Shutdown(context.Background()) }
}

func read(addr, export string, n int) {
	c, err := nbd.Dial(context.Background(), "tcp", addr, export)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	p := make([]byte, n)
	if _, err := c.ReadAt(p, 0); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d bytes, read-only %t: %s\n", c.Size(), c.ReadOnly(), p)
}

// An image file under a name, for machines to mount.
func ExampleServer() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "debian12.img")
	if err := os.WriteFile(image, []byte("a file system"), 0o644); err != nil {
		log.Fatal(err)
	}

	srv := &nbd.Server{Handler: nbd.Exports{"debian12": nbd.FileServer(image)}}
	l, err := net.Listen("tcp", "127.0.0.1:0") // ListenAndServe would take ":10809"
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()

	read(l.Addr().String(), "debian12", 13)
	srv.Shutdown(context.Background())
	fmt.Println(<-served)
	// Output:
	// 512 bytes, read-only true: a file system
	// nbd: server closed
}

// Who gets what is for a handler to decide; here the client's address chooses.
func ExampleHandlerFunc() {
	boards := netip.MustParsePrefix("127.0.0.0/8")
	addr, stop := start(nbd.HandlerFunc(func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
		switch {
		case !boards.Contains(r.Client.Addr()):
			return nil, fs.ErrPermission
		case r.Export != "root":
			return nil, fs.ErrNotExist
		}
		return nbd.NewReaderAt(strings.NewReader("for "+r.Client.Addr().String()), 13), nil
	}))
	defer stop()
	read(addr, "root", 13)
	read(addr, "swap", 13)
	// Output:
	// 512 bytes, read-only true: for 127.0.0.1
	// nbd: opening the export "swap": the server refused ("no such export"): file does not exist
}

func ExampleExports() {
	addr, stop := start(nbd.Exports{
		"i386":  nbd.Share(nbd.NewReaderAt(strings.NewReader("32 bits"), 7)),
		"amd64": nbd.Share(nbd.NewReaderAt(strings.NewReader("64 bits"), 7)),
	})
	defer stop()
	read(addr, "/i386", 7)

	nc, err := net.Dial("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	list, err := nbd.List(context.Background(), nc)
	fmt.Println(list, err)
	// Output:
	// 512 bytes, read-only true: 32 bits
	// [{amd64 } {i386 }] <nil>
}

func ExampleFirst() {
	denied := nbd.HandlerFunc(func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
		if strings.HasPrefix(r.Export, "secret") {
			return nil, fs.ErrPermission // final
		}
		return nil, fs.ErrNotExist // not mine
	})
	images := nbd.Exports{"debian12": nbd.Share(nbd.NewReaderAt(strings.NewReader("x"), 1))}
	h := nbd.First(denied, images)
	for _, name := range []string{"debian12", "secret", "other"} {
		dev, err := h.OpenNBD(context.Background(), &nbd.Request{Export: name})
		fmt.Println(name, dev != nil, err)
	}
	// Output:
	// debian12 true <nil>
	// secret false permission denied
	// other false file does not exist
}

func ExampleShare() {
	addr, stop := start(nbd.Share(nbd.NewReaderAt(strings.NewReader("one for all"), 11)))
	defer stop()
	read(addr, "any name", 11)
	// Output: 512 bytes, read-only true: one for all
}

func ExampleFileServer() {
	addr, stop := start(nbd.FileServer("/nonexistent/image"))
	defer stop()
	_, err := nbd.Dial(context.Background(), "tcp", addr, "image")
	fmt.Println(errors.Is(err, fs.ErrNotExist)) // the path stays in the server's log
	// Output: true
}

func ExampleOpenFile() {
	f, err := os.CreateTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	f.WriteString("not a multiple of a sector")
	f.Close()

	dev, err := nbd.OpenFile(f.Name())
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	fmt.Println(dev.Size(), dev.Features().Write, dev.Features().MultiConn)
	// Output: 512 false true
}

func ExampleOpenFileRW() {
	f, err := os.CreateTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	f.Truncate(4096)
	f.Close()

	dev, err := nbd.OpenFileRW(f.Name())
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	n, err := dev.WriteAt([]byte("hello"), 1024)
	fmt.Println(n, err, dev.Sync())
	// Output: 5 <nil> <nil>
}

func ExampleNewReaderAt() {
	dev := nbd.NewReaderAt(bytes.NewReader(make([]byte, 1000)), 1000)
	fmt.Println(dev.Size(), dev.Features().Write)
	// Output: 1024 false
}

// Any backend written for go-nbd can be served.
func ExampleFromBackend() {
	dev, err := nbd.FromBackend(backend.NewMemoryBackend([]byte("from go-nbd")))
	if err != nil {
		log.Fatal(err)
	}
	addr, stop := start(nbd.Share(dev))
	defer stop()
	read(addr, "x", 11)
	// Output: 11 bytes, read-only false: from go-nbd
}

func ExampleDial() {
	addr, stop := start(nbd.Exports{"image": nbd.Share(nbd.NewReaderAt(strings.NewReader("content"), 7))})
	defer stop()

	c, err := nbd.Dial(context.Background(), "tcp", addr, "image")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 7)
	_, err = c.ReadAt(p, 0)
	fmt.Printf("%s %v\n", p, err)
	_, err = c.WriteAt(p, 0)
	fmt.Println(err)
	// Output:
	// content <nil>
	// nbd: the server answered: operation not permitted
}

// A connection that is not TCP: a pipe, standard input, or one that another
// program accepted.
func ExampleServer_ServeConn() {
	srv := &nbd.Server{Handler: nbd.Share(nbd.NewReaderAt(strings.NewReader("piped"), 5))}
	near, far := net.Pipe()
	ended := make(chan error)
	go func() { ended <- srv.ServeConn(context.Background(), far) }()

	c, err := nbd.NewClient(context.Background(), near, "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Size())
	c.Close()
	fmt.Println(<-ended)
	// Output:
	// 512
	// <nil>
}

// A line of inetd.conf, or a systemd socket with Accept=yes and
// StandardInput=socket, starts a program with the connection as its standard
// input, as whatever user it names:
//
//	2000 stream tcp nowait nobody /usr/local/sbin/nbdrootd nbdrootd
func ExamplePort_ServeConn_inetd() {
	nbdrootd := func(stdin *os.File) error {
		nc, err := net.FileConn(stdin)
		if err != nil {
			return err
		}
		p := &nbd.Port{
			Server:   &nbd.Server{Handler: nbd.Share(nbd.NewReaderAt(strings.NewReader("piped"), 5))},
			Oldstyle: true, // old initramfs scripts know no other
		}
		return p.ServeConn(context.Background(), nc)
	}

	// Here, a client that reads the greeting and leaves is on the other end.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	stdin, err := conn.(*net.TCPConn).File()
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- nbdrootd(stdin) }()
	greeting := make([]byte, 152)
	if _, err := io.ReadFull(client, greeting); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %d\n", greeting[:8], binary.BigEndian.Uint64(greeting[16:]))
	conn.Close()
	stdin.Close()
	client.Close()
	fmt.Println(<-ended)
	// Output:
	// NBDMAGIC 512
	// EOF
}

// A port of its own for an image, for clients that name none.
func ExamplePort() {
	srv := &nbd.Server{Handler: nbd.Exports{
		"i386": nbd.Share(nbd.NewReaderAt(strings.NewReader("an image"), 8)),
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go (&nbd.Port{Server: srv, Export: "i386"}).Serve(l)
	defer srv.Close()

	c, err := nbd.Dial(context.Background(), "tcp", l.Addr().String(), "")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Size())
	// Output: 512
}

// upper is a filter: it shows letters in upper case. All has to be read through
// it, so it is not to be mapped; and what it changes is not to be written back,
// so it takes that ability away too.
type upper struct{ nbd.Pass }

func (d upper) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Pass.ReadAt(p, off)
	copy(p, bytes.ToUpper(p[:n]))
	return n, err
}

func (d upper) Features() nbd.Features {
	f := d.Pass.Features()
	f.Map = false
	f.Write, f.Trim, f.Zero, f.FastZero = false, false, false, false
	return f
}

func ExamplePass() {
	var filter nbd.Filter = func(dev nbd.Device) nbd.Device { return upper{nbd.Pass{Device: dev}} }
	dev := filter(nbdtest.NewMemory([]byte("what is below")))
	p := make([]byte, 4)
	_, err := dev.ReadAt(p, 0)
	fmt.Println(string(p), err, dev.Features().Write, dev.Features().Extents)
	// Output: WHAT <nil> false true
}

// still is a device of a file that does not change, which is sent from where it
// is in memory if it can be mapped.
type still struct {
	*os.File
	size int64
	m    *nbd.Mapping // nil: it cannot
}

func (d *still) Size() int64            { return d.size }
func (d *still) Features() nbd.Features { return nbd.Features{Map: d.m != nil, MultiConn: true} }

func (d *still) Map(off, n int64, dst []nbd.Segment) ([]nbd.Segment, error) {
	s, ok := d.m.Segment(off, n)
	if !ok {
		return dst, errors.ErrUnsupported // the server reads it then
	}
	return append(dst, s), nil
}

func ExampleMapFile() {
	f, err := os.CreateTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("diskless"), 64)); err != nil {
		log.Fatal(err)
	}
	dev := &still{File: f, size: 512}
	if dev.m, err = nbd.MapFile(f, dev.size); err == nil {
		defer dev.m.Close()
	}

	addr, stop := start(nbd.Exports{"still": nbd.Share(dev)})
	defer stop()
	c, err := nbd.Dial(context.Background(), "tcp", addr, "still")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 8)
	_, err = c.ReadAt(p, 504)
	fmt.Println(string(p), err)
	// Output: diskless <nil>
}

// Each machine gets the export that its certificate names, over TLS only.
func ExampleRequest_CertName() {
	roots := nbd.Exports{"node-01": nbd.Share(nbd.NewReaderAt(strings.NewReader("x"), 1))}
	own := nbd.HandlerFunc(func(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
		switch {
		case r.TLS == nil:
			return nil, nbd.ErrTLSRequired
		case r.CertName() != r.Export:
			return nil, fs.ErrPermission
		}
		return roots.OpenNBD(ctx, r)
	})
	_, err := own.OpenNBD(context.Background(), &nbd.Request{Export: "node-01"})
	fmt.Println(err)
	_, err = own.OpenNBD(context.Background(), &nbd.Request{Export: "node-01", TLS: &tls.ConnectionState{}})
	fmt.Println(err)
	// Output:
	// nbd: the export is there over TLS only: permission denied
	// permission denied
}

func ExampleDialer() {
	d := &nbd.Dialer{TLS: &tls.Config{ServerName: "images.example.org"}}
	addr, stop := start(nbd.Exports{})
	defer stop()
	_, err := d.Dial(context.Background(), "tcp", addr, "debian12")
	fmt.Println(errors.Is(err, errors.ErrUnsupported)) // a server without TLS gets nothing in the clear
	// Output: true
}

func ExampleTrace() {
	srv := &nbd.Server{
		Handler: nbd.Share(nbd.NewReaderAt(strings.NewReader("x"), 1)),
		Trace: &nbd.Trace{
			ExportOpened: func(_ nbd.ConnInfo, o nbd.OpenInfo) { fmt.Println("opened", o.Export, o.Size) },
			FirstRead:    func(_ nbd.ConnInfo, o nbd.OpenInfo) { fmt.Println("first read of", o.Export) },
			ConnClosed: func(_ nbd.ConnInfo, s nbd.ConnStats, cause error) {
				fmt.Println("closed", s.Requests, "requests,", s.BytesRead, "bytes,", cause)
			},
		},
	}
	near, far := net.Pipe()
	ended := make(chan error)
	go func() { ended <- srv.ServeConn(context.Background(), far) }()
	c, err := nbd.NewClient(context.Background(), near, "root")
	if err != nil {
		log.Fatal(err)
	}
	c.ReadAt(make([]byte, 100), 0)
	c.Close()
	<-ended
	// Output:
	// opened root 512
	// first read of root
	// closed 1 requests, 100 bytes, <nil>
}
