package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// TestNegotiate: what the handshake leaves is a connection on which a request
// of one's own gets a simple reply.
func TestNegotiate(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 256)
	srv := &nbd.Server{Handler: nbd.Exports{"disk": nbd.Share(nbd.NewReaderAt(bytes.NewReader(data), int64(len(data))))}}
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeConn(t.Context(), theirs) }()
	n, err := new(nbd.Dialer).Negotiate(t.Context(), ours, "disk")
	require.NoError(t, err)
	require.EqualValues(t, len(data), n.Size)
	require.EqualValues(t, 0b11, n.Flags&0b11, "has flags, read-only")

	request := binary.BigEndian.AppendUint32(nil, 0x25609513)
	request = append(request, 0, 0, 0, 0) // no flags, NBD_CMD_READ
	request = binary.BigEndian.AppendUint64(request, 77)
	request = binary.BigEndian.AppendUint64(request, 1024)
	request = binary.BigEndian.AppendUint32(request, 512)
	_, err = n.Conn.Write(request)
	require.NoError(t, err)
	reply := make([]byte, 16+512)
	_, err = io.ReadFull(n.Conn, reply)
	require.NoError(t, err)
	want := binary.BigEndian.AppendUint32(nil, 0x67446698) // a simple reply
	want = append(want, 0, 0, 0, 0)
	want = binary.BigEndian.AppendUint64(want, 77)
	require.Equal(t, append(want, data[1024:1536]...), reply)
	require.NoError(t, n.Conn.Close())
	require.Error(t, <-ended)

	ours, theirs = net.Pipe()
	go func() { ended <- srv.ServeConn(t.Context(), theirs) }()
	_, err = new(nbd.Dialer).Negotiate(t.Context(), ours, "other")
	require.ErrorContains(t, err, `opening the export "other"`)
	require.Error(t, <-ended)
	_, err = ours.Write([]byte{0})
	require.ErrorIs(t, err, io.ErrClosedPipe, "it was closed")
}
