package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// The handshake alone, for what speaks the rest of the protocol itself.
func ExampleDialer_Negotiate() {
	server := &nbd.Server{Handler: nbd.Exports{"disk": nbd.Share(nbd.NewReaderAt(bytes.NewReader(make([]byte, 1024)), 1024))}}
	ours, theirs := net.Pipe()
	go func() { _ = server.ServeConn(context.Background(), theirs) }()

	n, err := new(nbd.Dialer).Negotiate(context.Background(), ours, "disk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Conn.Close()
	const readOnly = 1 << 1 // NBD_FLAG_READ_ONLY
	fmt.Println(n.Size, n.Flags&readOnly != 0)
	// Output: 1024 true
}
