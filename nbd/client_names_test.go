package nbd_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// Servers that know no NBD_OPT_GO are asked by NBD_OPT_EXPORT_NAME, whose reply has
// 124 zeroes unless both ends can do without; such a server refuses by hanging up.
func TestClientOpensByExportName(t *testing.T) {
	unsup := func(opt int) []byte { return cat(u64(magicReply), u32(opt), u32(errUnsup), u32(0)) }
	size, content := cat(u64(1<<20), u16(1|1<<1)), pattern(512)
	read := cat(u32(magicSimple), u32(0), u64(1), content)
	for name, test := range map[string]struct {
		flags   int // of the server
		replies []byte
		options [][]byte // that the client is to send
		zeroes  int
	}{
		"not fixed":       {0, nil, nil, 124},
		"fixed":           {1, cat(unsup(optStructured), unsup(optGo)), [][]byte{option(optStructured, nil), option(optGo, goData("disk", 3))}, 124},
		"without zeroes":  {3, cat(unsup(optStructured), unsup(optGo)), [][]byte{option(optStructured, nil), option(optGo, goData("disk", 3))}, 0},
		"neither and few": {2, nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			hello := cat([]byte("NBDMAGICIHAVEOPT"), u16(test.flags), test.replies)
			far := &tape{in: bytes.NewReader(cat(hello, size, make([]byte, test.zeroes), read)), max: 1 << 16}
			c, err := nbd.NewClient(t.Context(), far, "disk")
			require.NoError(t, err)
			require.EqualValues(t, 1<<20, c.Size())
			require.True(t, c.ReadOnly())
			require.Equal(t, cat(u32(test.flags), bytes.Join(test.options, nil), option(optExportName, []byte("disk"))), far.out.Bytes())
			p := make([]byte, 512)
			_, err = c.ReadAt(p, 0)
			require.NoError(t, err)
			require.Equal(t, content, p)

			for _, said := range [][]byte{nil, size[:9], cat(size, make([]byte, test.zeroes))[:9+test.zeroes]} {
				_, err = nbd.NewClient(t.Context(), &tape{in: bytes.NewReader(cat(hello, said)), max: 1 << 16}, "disk")
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			}
			_, err = nbd.NewClient(t.Context(), &tape{in: bytes.NewReader(cat(hello, bytes.Repeat([]byte{255}, 134))), max: 1 << 16}, "disk")
			require.ErrorContains(t, err, "bytes", "a size that no file can have")
		})
	}
}
