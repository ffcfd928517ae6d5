package tftp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/tftp"
)

// A file made for whoever asks, and a client that asks from a given address.
func ExampleNewFile() {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &tftp.Server{Handler: tftp.HandlerFunc(func(_ context.Context, r *tftp.Request) (tftp.File, error) {
		text := "you are " + r.Peer.Addr().String()
		return tftp.NewFile(strings.NewReader(text), int64(len(text)), ""), nil
	})}
	go func() { _ = server.Serve(conn) }()
	defer server.Close()

	var got strings.Builder
	client := tftp.Client{Local: netip.MustParseAddr("127.0.0.2")}
	n, err := client.Get(context.Background(), conn.LocalAddr().String(), "who", &got)
	fmt.Println(n, got.String(), err)
	// Output: 17 you are 127.0.0.2 <nil>
}

// A tree that cannot change: what many clients read at once is read once.
func ExampleImmutable() {
	image := fstest.MapFS{"vmlinuz": {Data: []byte("kernel")}} // an embed.FS, an image opened as a tree
	files := tftp.FileServerFS(tftp.Immutable(image, "sha256:0a1b2c3d"))
	for range 2 {
		f, err := files.OpenTFTP(context.Background(), &tftp.Request{Name: "vmlinuz"})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%q\n", f.ID())
		f.Close()
	}
	// Output:
	// "sha256:0a1b2c3d\x00vmlinuz"
	// "sha256:0a1b2c3d\x00vmlinuz"
}

// A server that fetches what it does not have from another one, and keeps it.
func ExampleClient() {
	upstream, addr := listen()
	far := &tftp.Server{Logger: quiet, Handler: tftp.FileServerFS(fstest.MapFS{"vmlinuz": {Data: []byte("kernel")}}),
		Trace: &tftp.Trace{Request: func(r *tftp.Request) { fmt.Println("upstream is asked for", r.Name) }}}
	go far.Serve(upstream)
	defer far.Shutdown(context.Background())

	var mu sync.Mutex
	kept := map[string]string{}
	show(tftp.HandlerFunc(func(ctx context.Context, r *tftp.Request) (tftp.File, error) {
		mu.Lock()
		defer mu.Unlock()
		text, ok := kept[r.Name]
		if !ok {
			var b strings.Builder
			if _, err := (tftp.Client{WindowSize: 16}).Get(ctx, addr, r.Name, &b); err != nil {
				return nil, err // its ERROR packet goes to our client, too
			}
			text = b.String()
			kept[r.Name] = text
		}
		return tftp.NewFile(strings.NewReader(text), int64(len(text)), r.Name), nil
	}), "vmlinuz", "vmlinuz", "none")
	// Output:
	// upstream is asked for vmlinuz
	// vmlinuz: kernel
	// vmlinuz: kernel
	// upstream is asked for none
	// none: tftp error 1: file not found
}
