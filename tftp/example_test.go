package tftp_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/tftp"
)

// quiet keeps the log out of the examples' output.
var quiet = slog.New(slog.DiscardHandler)

// listen opens a socket on a free port; port 69 is what a real server gets.
func listen() (net.PacketConn, string) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return conn, conn.LocalAddr().String()
}

// show fetches files and prints what came.
func show(h tftp.Handler, names ...string) {
	conn, addr := listen()
	srv := &tftp.Server{Handler: h, Logger: quiet}
	go srv.Serve(conn)
	defer srv.Shutdown(context.Background())
	for _, name := range names {
		var b strings.Builder
		if _, err := tftp.Get(context.Background(), addr, name, &b); err != nil {
			var e *tftp.Error
			errors.As(err, &e)
			fmt.Printf("%s: %v\n", name, e)
			continue
		}
		fmt.Printf("%s: %s\n", name, b.String())
	}
}

func ExampleServer() {
	conn, addr := listen()
	srv := &tftp.Server{
		Handler: tftp.FileServerFS(fstest.MapFS{"pxelinux.0": {Data: []byte("a loader")}}),
		Trace: &tftp.Trace{Done: func(r *tftp.Request, res tftp.Result) {
			fmt.Printf("%s asked for %s: %d of %d bytes in blocks of %d, %v\n",
				r.Peer.Addr(), r.Name, res.Bytes, res.Size, res.BlockSize, res.Err)
		}},
		Logger: quiet,
	}
	ended := make(chan error)
	go func() { ended <- srv.Serve(conn) }()

	var b strings.Builder
	if _, err := tftp.Get(context.Background(), addr, "/pxelinux.0", &b); err != nil {
		fmt.Println(err)
	}
	srv.Shutdown(context.Background())
	fmt.Println(<-ended)
	// Output:
	// 127.0.0.1 asked for pxelinux.0: 8 of 8 bytes in blocks of 1408, <nil>
	// tftp: server closed
}

func ExampleFileServerFS() {
	files := fstest.MapFS{"grub/grub.cfg": {Data: []byte("set timeout=0")}}
	show(tftp.FileServerFS(files), `\grub\grub.cfg`, "grub/../../etc/passwd", "grub/fonts.lst")
	// Output:
	// \grub\grub.cfg: set timeout=0
	// grub/../../etc/passwd: tftp error 2: access violation
	// grub/fonts.lst: tftp error 1: file not found
}

// A handler that answers with what it computes.
func ExampleHandlerFunc() {
	h := tftp.HandlerFunc(func(ctx context.Context, r *tftp.Request) (tftp.File, error) {
		mac, ok := strings.CutPrefix(r.Name, "pxelinux.cfg/01-")
		if !ok {
			return nil, fs.ErrNotExist
		}
		cfg := "APPEND hostname=node-" + mac[len(mac)-2:]
		return tftp.NewFile(strings.NewReader(cfg), int64(len(cfg)), ""), nil
	})
	show(h, "pxelinux.cfg/01-52-54-00-12-34-07", "pxelinux.cfg/default")
	// Output:
	// pxelinux.cfg/01-52-54-00-12-34-07: APPEND hostname=node-07
	// pxelinux.cfg/default: tftp error 1: file not found
}

// Two machines ask for one name and get different files.
func ExampleFSFunc() {
	views := map[netip.Addr]fs.FS{
		netip.MustParseAddr("127.0.0.1"): fstest.MapFS{"lts.conf": {Data: []byte("[Default]\nXKBLAYOUT=de")}},
		netip.MustParseAddr("192.0.2.7"): fstest.MapFS{"lts.conf": {Data: []byte("[Default]\nXKBLAYOUT=fr")}},
	}
	show(tftp.FSFunc(func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		return views[r.Peer.Addr()], nil // no view, no files
	}), "lts.conf")
	// Output:
	// lts.conf: [Default]
	// XKBLAYOUT=de
}

func ExampleFirst() {
	guard := tftp.HandlerFunc(func(ctx context.Context, r *tftp.Request) (tftp.File, error) {
		if strings.HasPrefix(r.Name, "private/") {
			return nil, &tftp.Error{Code: tftp.CodeAccessViolation, Message: "ask your administrator"}
		}
		return nil, fs.ErrNotExist // not mine: the next one is asked
	})
	files := tftp.FileServerFS(fstest.MapFS{
		"private/key": {Data: []byte("secret")},
		"vmlinuz":     {Data: []byte("kernel")},
	})
	show(tftp.First(guard, files), "vmlinuz", "private/key")
	// Output:
	// vmlinuz: kernel
	// private/key: tftp error 2: ask your administrator
}

func ExampleUnion() {
	rendered := fstest.MapFS{"pxelinux.cfg/default": {Data: []byte("rendered")}}
	images := fstest.MapFS{"pxelinux.cfg/default": {Data: []byte("from disk")}, "vmlinuz": {Data: []byte("kernel")}}
	loaders := fstest.MapFS{"snponly.efi": {Data: []byte("loader")}}
	tree := tftp.Union(
		tftp.Mount{FS: rendered},
		tftp.Mount{FS: images},
		tftp.Mount{Path: "ipxe", FS: loaders},
	)
	show(tftp.FileServerFS(tree), "pxelinux.cfg/default", "vmlinuz", "ipxe/snponly.efi")
	entries, _ := fs.ReadDir(tree, ".")
	for _, e := range entries {
		fmt.Println(fs.FormatDirEntry(e))
	}
	// Output:
	// pxelinux.cfg/default: rendered
	// vmlinuz: kernel
	// ipxe/snponly.efi: loader
	// d ipxe/
	// d pxelinux.cfg/
	// - vmlinuz
}

func ExampleDir() {
	dir, err := os.MkdirTemp("", "tftp")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.WriteFile(filepath.Join(dir, "vmlinuz"), []byte("kernel"), 0o644)
	os.Symlink("vmlinuz", filepath.Join(dir, "latest"))
	os.Symlink("/etc/passwd", filepath.Join(dir, "oops"))

	files, err := tftp.Dir(dir, quiet) // with a real logger, "oops" and its target are named there
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()
	show(tftp.FileServerFS(files), "latest", "oops")
	// Output:
	// latest: kernel
	// oops: tftp error 2: access violation
}

func ExampleGet() {
	conn, addr := listen()
	srv := &tftp.Server{Handler: tftp.FileServerFS(fstest.MapFS{}), Logger: quiet}
	go srv.Serve(conn)
	defer srv.Shutdown(context.Background())

	_, err := tftp.Get(context.Background(), addr, "pxelinux.cfg/default", os.Stdout)
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output: true
}
