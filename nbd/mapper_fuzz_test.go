package nbd_test

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// Whatever a client sends, what goes out from where it is mapped is, byte for
// byte, what goes out as a copy. The export is read-only: a reply that waits
// to be sent may else hold what a later request of its batch writes.
func FuzzMapped(f *testing.F) {
	needMaps(f)
	content := pattern(1<<20 + 300)
	clear(content[64<<10 : 256<<10])
	file, err := nbd.OpenFile(tempFile(f, content))
	require.NoError(f, err)
	f.Cleanup(func() { file.Close() })
	overlay := nbd.NewOverlay(file)
	for off := int64(0); off < 64<<10; off += 8192 {
		_, err := overlay.WriteAt(content[1000:5000], off)
		require.NoError(f, err)
	}
	require.NoError(f, overlay.Trim(300<<10, 50<<10))
	dev, err := nbd.Share(nbd.ReadOnly(overlay)).OpenNBD(f.Context(), nil) // not closed
	require.NoError(f, err)
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	require.NoError(f, err)
	f.Cleanup(func() { l.Close() })

	simple := cat(u32(3), option(optGo, goData("x")))
	structured := cat(u32(3), option(optStructured, nil), option(optSetMeta, metaData("x", "base:allocation")), option(optGo, goData("x")))
	for _, p := range [][]byte{
		cat(request(0, cmdRead, 1, 0, 1<<20), request(0, cmdRead, 2, 1, 5000), request(0, cmdRead, 3, 1<<20, 512)),
		bytes.Repeat(request(0, cmdRead, 1, 4000, 200), 1200),
		cat(request(0, cmdRead, 1, 0, 1<<20+512), request(1<<2, cmdRead, 2, 60<<10, 300<<10), request(1<<3, cmdStatus, 3, 0, 1<<20)),
		cat(request(0, cmdWrite, 1, 0, 4), []byte("oops"), request(0, cmdRead, 2, 1<<40, 1), request(0, cmdRead, 3, 0, 100), request(0, cmdDisc, 4, 0, 0)),
	} {
		f.Add(p, byte(255))
	}
	f.Fuzz(func(t *testing.T, in []byte, max byte) {
		for _, head := range [][]byte{simple, structured} {
			in := cat(head, in)
			want := play(t, dev, in, max)
			if len(want) >= 1<<20 { // the tape ends there
				want = want[:1<<20]
			}
			got := exchange(t, l, dev, in)
			require.True(t, bytes.Equal(want, got[:min(len(got), len(want))]), "%d bytes, %d as a copy", len(got), len(want))
			require.True(t, len(got) == len(want) || len(want) == 1<<20)
		}
	})
}

// exchange sends in to a server over a socket and returns its answer.
func exchange(t *testing.T, l net.Listener, dev nbd.Device, in []byte) []byte {
	near, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	defer near.Close()
	far, err := l.Accept()
	require.NoError(t, err)
	srv := &nbd.Server{Logger: quiet, Handler: nbd.Exports{"x": always(dev)}}
	served, sent := make(chan struct{}), make(chan struct{})
	go func() { // ends with the connection
		defer close(served)
		_ = srv.ServeConn(t.Context(), far)
	}()
	go func() { // ends with the connection
		defer close(sent)
		_, _ = near.Write(in)
		_ = near.(*net.UnixConn).CloseWrite()
	}()
	got, err := io.ReadAll(near)
	if err != nil {
		require.ErrorContains(t, err, "reset") // it was cut with requests unread
	}
	<-served
	<-sent
	return got
}
