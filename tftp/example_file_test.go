package tftp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

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
