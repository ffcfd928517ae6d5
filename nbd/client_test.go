package nbd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// useAll reads, writes, trims, zeroes and maps a client's export of holey.
func useAll(t *testing.T, c *nbd.Client) {
	t.Helper()
	content := holey()
	p := make([]byte, len(content))
	_, err := c.ReadAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, p))

	exts := make([]nbd.Extent, 10)
	n, err := c.Extents(0, c.Size(), exts)
	require.NoError(t, err)
	require.Equal(t, []nbd.Extent{{Length: 1 << 20}, {Length: 3 << 19, Hole: true, Zero: true}, {Length: 3 << 19}}, exts[:n])
	n, err = c.Extents(1<<20, 4096, exts[:1])
	require.NoError(t, err)
	require.Equal(t, []nbd.Extent{{Length: 4096, Hole: true, Zero: true}}, exts[:n])

	require.NoError(t, c.Zero(0, 1<<20, nbd.ZeroFast|nbd.ZeroNoHole))
	require.NoError(t, c.Trim(3<<20, 4096))
	require.NoError(t, c.Cache(0, c.Size()))
	_, err = c.WriteAt([]byte("hello"), 3<<20+1)
	require.NoError(t, err)
	require.NoError(t, c.Sync())
	clear(content[:1<<20])
	clear(content[3<<20 : 3<<20+4096])
	copy(content[3<<20+1:], "hello")
	_, err = c.ReadAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, p))
	for _, err := range []error{c.Trim(c.Size(), 1), c.Zero(-1, 1, 0), c.Cache(0, c.Size()+1)} {
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	_, err = c.Extents(c.Size(), 1, exts)
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestClientCommands(t *testing.T) {
	useAll(t, dial(t, serve(t, nbdtest.NewMemory(holey())), "x"))

	c := dial(t, serve(t, nbd.NewReaderAt(bytes.NewReader(make([]byte, 512)), 512)), "x")
	require.Equal(t, nbd.Features{Slow: true, MultiConn: true, MinBlock: 1, PreferredBlock: 4096}, c.Features())
	_, err := c.Extents(0, 512, make([]nbd.Extent, 1))
	for _, err := range []error{c.Trim(0, 512), c.Zero(0, 512, 0), c.Cache(0, 512), err} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

// An export that is passed on keeps its abilities, twice over.
func TestClientPassedOn(t *testing.T) {
	first := dial(t, serve(t, nbdtest.NewMemory(holey())), "x")
	second := dial(t, serve(t, nbd.Pass{Device: first}), "x")
	require.Equal(t, first.Features(), second.Features())
	useAll(t, second)
}

func TestClientTLS(t *testing.T) {
	p := newPKI(t)
	w := &whose{Handler: nbd.Exports{"x": nbd.Share(nbdtest.NewMemory(holey()))}}
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: w, TLS: p.serverConfig(), RequireTLS: true})
	_, err := nbd.Dial(t.Context(), "tcp", addr, "x")
	require.ErrorIs(t, err, nbd.ErrTLSRequired)

	cfg := p.clientConfig()
	cfg.ServerName = "" // Dial knows it
	d := &nbd.Dialer{TLS: cfg}
	c, err := d.Dial(t.Context(), "tcp", addr, "x")
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "node-01", w.last(t))
	require.Empty(t, cfg.ServerName)
	useAll(t, c)
	_, err = d.Dial(t.Context(), "tcp", addr, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)

	cfg.ServerName = "elsewhere"
	_, err = d.Dial(t.Context(), "tcp", addr, "x")
	require.ErrorContains(t, err, "elsewhere")
	plain := serve(t, nbdtest.NewMemory(holey()))
	_, err = d.Dial(t.Context(), "tcp", plain, "x")
	require.ErrorIs(t, err, errors.ErrUnsupported)

	cfg.ServerName = "localhost"
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	_, err = d.List(t.Context(), nc)
	require.ErrorIs(t, err, fs.ErrPermission) // whose is no Lister
}

// What a server may not answer under structured replies.
func TestClientBadChunks(t *testing.T) {
	chunk := func(flags, typ int, data ...[]byte) []byte {
		d := cat(data...)
		return cat(u32(magicStructured), u16(flags), u16(typ), u64(1), u32(len(d)), d)
	}
	reply := func(opt, typ int, data []byte) []byte {
		return cat(u64(magicReply), u32(opt), u32(typ), u32(len(data)), data)
	}
	hello := cat([]byte("NBDMAGICIHAVEOPT"), u16(3), reply(optStructured, repAck, nil),
		reply(optSetMeta, repMeta, cat(u32(7), []byte("base:allocation"))), reply(optSetMeta, repAck, nil),
		reply(optGo, repInfo, cat(u16(0), u64(1<<20), u16(1))), reply(optGo, repAck, nil))
	half := make([]byte, 256)
	for name, test := range map[string]struct {
		in []byte
		ok bool
	}{
		"two halves":     {cat(chunk(0, 1, u64(256), half), chunk(1, 1, u64(0), half)), true},
		"half and hole":  {cat(chunk(0, 2, u64(256), u32(256)), chunk(0, 1, u64(0), half), chunk(1, 0)), true},
		"too little":     {chunk(1, 1, u64(0), half), false},
		"nothing":        {chunk(1, 0), false},
		"before":         {chunk(1, 2, u64(1<<64-256), u32(512)), false},
		"behind":         {chunk(1, 2, u64(1), u32(512)), false},
		"too much":       {cat(chunk(0, 2, u64(0), u32(512)), chunk(1, 2, u64(0), u32(512))), false},
		"hole of 0":      {cat(chunk(0, 2, u64(0), u32(0)), chunk(1, 2, u64(0), u32(512))), false},
		"hole of 4 GiB":  {chunk(1, 2, u64(0), u32(most32)), false},
		"simple":         {cat(u32(magicSimple), u32(0), u64(1), half, half), false},
		"unknown kind":   {chunk(1, 77, half), false},
		"status":         {chunk(1, 5, u32(7), u32(512), u32(0)), false},
		"unknown cookie": {cat(u32(magicStructured), u16(1), u16(0), u64(2), u32(0)), false},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := nbd.NewClient(t.Context(), &tape{in: bytes.NewReader(cat(hello, test.in)), max: 1 << 16}, "x")
			require.NoError(t, err)
			p := bytes.Repeat([]byte{1}, 512)
			_, err = c.ReadAt(p, 0)
			if !test.ok {
				require.ErrorContains(t, err, "connection failed")
				_, again := c.ReadAt(p, 0)
				require.Equal(t, err, again, "a Client does not go on after its connection failed")
				return
			}
			require.NoError(t, err)
			require.Equal(t, make([]byte, 512), p)
		})
	}
}
