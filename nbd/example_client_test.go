package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// Listing a server's exports and opening one, over connections made elsewhere.
func ExampleNewClient() {
	server := &nbd.Server{Handler: nbd.Exports{
		"disk": nbd.Share(nbd.NewReaderAt(bytes.NewReader(bytes.Repeat([]byte("boot"), 256)), 1024)),
	}}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			panic(err)
		}
		return c
	}

	conn := dial()
	list, err := nbd.List(context.Background(), conn)
	conn.Close()
	fmt.Println(list, err)

	client, err := nbd.NewClient(context.Background(), dial(), "disk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	var b [4]byte
	_, err = client.ReadAt(b[:], 512)
	fmt.Printf("%q of %d bytes, read-only %v, %v\n", b, client.Size(), client.ReadOnly(), err)
	// Output:
	// [{disk }] <nil>
	// "boot" of 1024 bytes, read-only true, <nil>
}
