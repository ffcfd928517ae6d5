package main

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/tftp"
)

func TestScript(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	server := &tftp.Server{Handler: tftp.HandlerFunc(script)}
	go func() { _ = server.Serve(conn) }()
	defer server.Close()

	var got bytes.Buffer
	_, err = tftp.Get(t.Context(), conn.LocalAddr().String(), "menu.cgi", &got)
	require.NoError(t, err)
	require.Equal(t, "# menu.cgi, made for 127.0.0.1\n", got.String())
	_, err = tftp.Get(t.Context(), conn.LocalAddr().String(), "vmlinuz", &got)
	require.Error(t, err)
}
