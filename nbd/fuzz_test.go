package nbd_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// tape is a connection whose other end has said all that it will say, and
// takes whatever it is told.
type tape struct {
	net.Conn // nil
	in       io.Reader
	out      bytes.Buffer
	max      int
}

func (c *tape) Read(p []byte) (int, error) { return c.in.Read(p[:min(len(p), 1+c.max)]) }

func (c *tape) Write(p []byte) (int, error) {
	if c.out.Len() < 1<<20 {
		c.out.Write(p)
	}
	return len(p), nil
}

func (c *tape) Close() error                     { return nil }
func (c *tape) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix"} }
func (c *tape) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix"} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// play has a server answer what is on a tape, cut into reads of at most max+1
// bytes, and returns its answer.
func play(t *testing.T, dev nbd.Device, in []byte, max byte) []byte {
	c := &tape{in: bytes.NewReader(in), max: int(max) * 257}
	srv := &nbd.Server{Logger: quiet, Handler: nbd.Exports{"x": always(dev)}}
	_ = srv.ServeConn(t.Context(), c)
	require.NoError(t, srv.Shutdown(t.Context()))
	return c.out.Bytes()
}

func FuzzHandshake(f *testing.F) {
	for _, p := range [][]byte{
		option(optGo, goData("x", 1, 3)),
		cat(option(optStructured, nil), option(optListMeta, metaData("x")), option(optSetMeta, metaData("x", "base:", "base:allocation")), option(optGo, goData("x")), request(0, cmdStatus, 1, 0, 512)),
		cat(option(optStructured, nil), option(optSetMeta, cat(u32(1), []byte("x"), u32(most32), u32(wire(1<<31))))),
		cat(option(optInfo, goData("x")), option(optList, nil), option(optAbort, nil)),
		cat(option(optExportName, []byte("x")), request(0, cmdRead, 1, 0, 512)),
		cat(option(optStartTLS, nil), option(99, make([]byte, 100)), option(optGo, goData("y"))),
		cat(u64(magicOption), u32(optGo), u32(1<<20)),
		cat(u64(magicOption), u32(optGo), u32(10), u32(most32), make([]byte, 6)),
	} {
		f.Add(cat(u32(3), p), byte(0))
		f.Add(cat(u32(0), p), byte(255))
	}
	f.Fuzz(func(t *testing.T, in []byte, max byte) {
		mem := nbdtest.NewMemory(make([]byte, 8192))
		out := play(t, mem, in, max)
		require.True(t, bytes.HasPrefix(out, []byte("NBDMAGICIHAVEOPT\x00\x03")))
	})
}

func FuzzTransmission(f *testing.F) {
	const size = 64 << 10
	for _, p := range [][]byte{
		request(0, cmdRead, 1, 0, size),
		cat(request(1, cmdWrite, 2, 4000, 5), []byte("hello"), request(0, cmdRead, 3, 4000, 5), request(0, cmdFlush, 4, 0, 0), request(0, cmdDisc, 5, 0, 0)),
		cat(request(0, cmdWrite, 6, size-1, 2), []byte("ab"), request(0, cmdRead, 7, size-1, 2)),
		cat(request(0, cmdTrim, 8, 0, most32), request(0, cmdRead, 9, 1<<64-1, 1)),
		cat(request(0, cmdWrite, 10, 0, most32), []byte("x")),
		cat(request(1, cmdTrim, 11, 0, 4096), request(1<<4|1<<1, cmdZeroes, 12, 5, 5), request(0, cmdCache, 13, 0, 1), request(1<<3, cmdStatus, 14, 0, size), request(1<<2, cmdRead, 15, 1, 5000)),
	} {
		f.Add(p, byte(0))
		f.Add(p, byte(255))
	}
	simple := cat(u32(3), option(optGo, goData("x")))
	structured := cat(u32(3), option(optStructured, nil), option(optSetMeta, metaData("x", "base:allocation")), option(optGo, goData("x")))
	f.Fuzz(func(t *testing.T, in []byte, max byte) {
		mem := nbdtest.NewMemory(make([]byte, size))
		play(t, mem, cat(simple, in), max)
		require.Equal(t, 1, mem.Closed())
		play(t, mem, cat(structured, in), max)
		require.Equal(t, 3, mem.Closed()) // looked at for its contexts, and opened
		require.Len(t, mem.Bytes(), size)
	})
}

// The client's parser: what a server may say to it.
func FuzzClient(f *testing.F) {
	greeting := []byte("NBDMAGICIHAVEOPT\x00\x03")
	reply := func(typ int, data []byte) []byte {
		return cat(u64(magicReply), u32(optGo), u32(typ), u32(len(data)), data)
	}
	f.Add(cat(greeting, reply(repInfo, cat(u16(0), u64(4096), u16(1))), reply(repInfo, cat(u16(3), u32(1), u32(4096), u32(1<<20))), reply(repAck, nil),
		u32(magicSimple), u32(0), u64(1), make([]byte, 512)))
	more := func(opt, typ int, data []byte) []byte {
		return cat(u64(magicReply), u32(opt), u32(typ), u32(len(data)), data)
	}
	f.Add(cat(greeting, more(optStructured, repAck, nil), more(optSetMeta, repMeta, cat(u32(1), []byte("base:allocation"))), more(optSetMeta, repAck, nil),
		reply(repInfo, cat(u16(0), u64(4096), u16(1))), reply(repAck, nil),
		u32(magicStructured), u16(0), u16(1), u64(1), u32(264), u64(0), make([]byte, 256), u32(magicStructured), u16(1), u16(2), u64(1), u32(12), u64(256), u32(256),
		u32(magicStructured), u16(1), u16(5), u64(2), u32(12), u32(1), u32(512), u32(3)))
	f.Add(cat(greeting, reply(errUnsup, nil), u64(4096), u16(3)))
	f.Add(cat(greeting, reply(errUnknown, []byte("no such export"))))
	f.Add(cat(greeting, u64(magicReply), u32(optGo), u32(repInfo), u32(most32)))
	f.Add(cat(greeting, u64(magicReply), u32(optList), u32(repServer), u32(8), u32(4), []byte("name"), u64(magicReply), u32(optList), u32(repAck), u32(0)))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = nbd.List(t.Context(), &tape{in: bytes.NewReader(in), max: 1 << 16})
		c, err := nbd.NewClient(t.Context(), &tape{in: bytes.NewReader(in), max: 1 << 16}, "x")
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, c.Size(), int64(0))
		p := make([]byte, 512)
		n, err := c.ReadAt(p, 0)
		require.True(t, n == len(p) || err != nil)
		exts := make([]nbd.Extent, 4)
		n, err = c.Extents(0, min(c.Size(), 512), exts)
		require.True(t, err != nil || c.Size() == 0 || n > 0)
		sum := int64(0)
		for _, e := range exts[:n] {
			require.Positive(t, e.Length)
			sum += e.Length
		}
		require.LessOrEqual(t, sum, int64(512))
		require.NoError(t, c.Close())
	})
}
