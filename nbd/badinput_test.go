package nbd_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// named serves "any" and "other" and nothing else.
func named(t *testing.T, dev nbd.Device) string {
	return nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"any": nbd.Share(dev), "other": nbd.Share(dev),
	}})
}

func TestBadHandshake(t *testing.T) {
	mem := nbdtest.NewMemory(pattern(1 << 20))
	addr := named(t, mem)
	inStep := func(r *raw) {
		r.t.Helper()
		size, _ := r.open("any")
		require.Equal(r.t, uint64(1<<20), size)
		r.send(request(0, cmdRead, 1, 0, 512))
		require.Zero(r.t, r.simple(1))
		r.recv(512)
	}
	for _, c := range []struct {
		name string
		run  func(r *raw)
	}{
		{"unknown client flag", func(r *raw) { r.greet(1 << 5).closed() }},
		{"unknown client flag beside known ones", func(r *raw) { r.greet(wire(1<<31 | 3)).closed() }},
		{"no fixed newstyle, GO all the same", func(r *raw) { inStep(r.greet(0)) }},
		{"wrong option magic", func(r *raw) { r.greet(3).send(make([]byte, 16)); r.closed() }},
		{"unknown export", func(r *raw) {
			r.greet(3).send(option(optGo, goData("nobody")))
			require.NotContains(r.t, string(r.wantReply(optGo, errUnknown)), "nobody")
			inStep(r)
		}},
		{"INFO of a known name, then GO of an unknown one", func(r *raw) {
			r.greet(3).send(option(optInfo, goData("any")))
			r.wantReply(optInfo, repInfo)
			r.wantReply(optInfo, repAck)
			r.send(option(optGo, goData("nobody")))
			r.wantReply(optGo, errUnknown)
			inStep(r)
		}},
		{"EXPORT_NAME of an unknown export", func(r *raw) {
			r.greet(3).send(option(optExportName, []byte("nobody")))
			r.closed()
		}},
		{"EXPORT_NAME with a NUL", func(r *raw) {
			r.greet(3).send(option(optExportName, []byte("any\x00")))
			r.closed()
		}},
		{"EXPORT_NAME of 4097 bytes", func(r *raw) {
			r.greet(3).send(option(optExportName, bytes.Repeat([]byte("x"), 4097)))
			r.closed()
		}},
		{"name longer than its option", func(r *raw) {
			r.greet(3).send(option(optGo, cat(u32(most32), []byte("any"), u16(0))))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"name one longer than its option", func(r *raw) {
			r.greet(3).send(option(optGo, cat(u32(4), []byte("any"), u16(0))))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"more informations than its option", func(r *raw) {
			r.greet(3).send(option(optGo, cat(u32(3), []byte("any"), u16(0xffff), u16(0))))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"trailing bytes", func(r *raw) {
			r.greet(3).send(option(optInfo, append(goData("any"), 0)))
			r.wantReply(optInfo, errInvalid)
			inStep(r)
		}},
		{"empty option", func(r *raw) {
			r.greet(3).send(option(optGo, nil))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"name of 4097 bytes", func(r *raw) {
			r.greet(3).send(option(optGo, goData(strings.Repeat("x", 4097))))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"name of 4096 bytes", func(r *raw) {
			r.greet(3).send(option(optGo, goData(strings.Repeat("x", 4096))))
			r.wantReply(optGo, errUnknown)
			inStep(r)
		}},
		{"name with a NUL", func(r *raw) {
			r.greet(3).send(option(optGo, goData("any\x00")))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"name that is no UTF-8", func(r *raw) {
			r.greet(3).send(option(optGo, goData("a\xff")))
			r.wantReply(optGo, errInvalid)
			inStep(r)
		}},
		{"unknown informations wanted", func(r *raw) {
			r.greet(3).send(option(optInfo, goData("any", 4, 77, 0xffff)))
			r.wantReply(optInfo, repInfo)
			r.wantReply(optInfo, repAck)
			inStep(r)
		}},
		{"LIST with data", func(r *raw) {
			r.greet(3).send(option(optList, []byte("x")))
			r.wantReply(optList, errInvalid)
			inStep(r)
		}},
		{"unknown options with data", func(r *raw) {
			r.greet(3)
			for _, opt := range []int{optStartTLS, 4, 11, 4711, most32} {
				r.send(option(opt, make([]byte, 1000)))
				r.wantReply(opt, errUnsup)
			}
			inStep(r)
		}},
		{"option of 64 KiB", func(r *raw) {
			r.greet(3).send(option(4711, make([]byte, 64<<10)))
			r.wantReply(4711, errUnsup)
			inStep(r)
		}},
		{"option of more than 64 KiB", func(r *raw) {
			r.greet(3).send(option(optGo, make([]byte, 64<<10+1)))
			r.wantReply(optGo, errTooBig)
			r.send(option(4711, make([]byte, 1<<20)))
			r.wantReply(4711, errTooBig)
			inStep(r)
		}},
		{"option of more than 1 MiB", func(r *raw) {
			r.greet(3).send(cat(u64(magicOption), u32(4711), u32(1<<20+1)))
			r.closed()
		}},
		{"option of 4 GiB", func(r *raw) {
			r.greet(3).send(cat(u64(magicOption), u32(optGo), u32(most32)))
			r.closed()
		}},
		{"65 options", func(r *raw) {
			r.greet(3)
			for range 64 {
				r.send(option(4711, nil))
				r.wantReply(4711, errUnsup)
			}
			r.send(option(optGo, goData("any")))
			r.closed()
		}},
		{"ABORT with data", func(r *raw) {
			r.greet(3).send(option(optAbort, []byte("bye")))
			r.wantReply(optAbort, repAck)
			r.closed()
		}},
		{"leaves in the middle of an option", func(r *raw) {
			r.greet(3).send(option(optGo, goData("any"))[:20])
			r.Close()
		}},
		{"an HTTP client", func(r *raw) {
			r.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			r.recv(18)
			r.closed()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(dialRaw(t, addr))
			stillServing(t, addr)
		})
	}
}

func TestBadTransmission(t *testing.T) {
	const size = 1 << 20
	content := pattern(size)
	mem := nbdtest.NewMemory(bytes.Clone(content))
	rw := named(t, mem)
	ro := named(t, nbd.NewReaderAt(bytes.NewReader(content), size))

	// answers sends a request with its data and asserts the reply's code.
	answers := func(r *raw, code, flags, typ int, off uint64, n int, data []byte) {
		r.t.Helper()
		r.send(append(request(flags, typ, 42, off, n), data...))
		require.Equal(r.t, code, r.simple(42))
	}
	for _, c := range []struct {
		name string
		addr string
		run  func(r *raw)
		cut  bool // the connection ends
	}{
		{name: "read across the end", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, size-511, 512, nil) }},
		{name: "read past the end", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, size+1, 0, nil) }},
		{name: "read whose end overflows", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, 1<<64-512, 1024, nil) }},
		{name: "read at a negative offset", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, 1<<63, 512, nil) }},
		{name: "read of nothing", addr: rw, run: func(r *raw) { answers(r, 0, 0, cmdRead, size, 0, nil) }},
		{name: "read of more than 32 MiB", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, 0, 32<<20+1, nil) }},
		{name: "read of 4 GiB", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdRead, 0, most32, nil) }},
		{name: "write across the end", addr: rw, run: func(r *raw) { answers(r, eNOSPC, 0, cmdWrite, size-511, 512, make([]byte, 512)) }},
		{name: "write past the end, long", addr: rw, run: func(r *raw) { answers(r, eNOSPC, 0, cmdWrite, size, 300000, make([]byte, 300000)) }},
		{name: "write whose end overflows", addr: rw, run: func(r *raw) { answers(r, eNOSPC, 0, cmdWrite, 1<<64-512, 1024, make([]byte, 1024)) }},
		{name: "write of nothing", addr: rw, run: func(r *raw) { answers(r, 0, 0, cmdWrite, size, 0, nil) }},
		{name: "write of more than 32 MiB", addr: rw, run: func(r *raw) {
			answers(r, eINVAL, 0, cmdWrite, 0, 32<<20+1, make([]byte, 32<<20+1))
		}},
		{name: "write of more than 64 MiB", addr: rw, cut: true, run: func(r *raw) {
			r.send(request(0, cmdWrite, 1, 0, 64<<20+1))
		}},
		{name: "unknown command with a length", addr: rw, run: func(r *raw) {
			for _, typ := range []int{cmdStatus, 8, 4711, 0xffff} {
				answers(r, eINVAL, 0, typ, 0, 1<<30, nil)
			}
		}},
		{name: "commands that were not announced", addr: ro, run: func(r *raw) {
			answers(r, eINVAL, 0, cmdCache, 0, 512, nil)
			answers(r, eINVAL, 0, cmdStatus, 0, 512, nil)
		}},
		{name: "trim, cache and zeroes past the end", addr: rw, run: func(r *raw) {
			for typ, code := range map[int]int{cmdTrim: eINVAL, cmdCache: eINVAL, cmdZeroes: eNOSPC} {
				answers(r, code, 0, typ, size-511, 512, nil)
				answers(r, code, 0, typ, 0, most32, nil)
				answers(r, code, 0, typ, 1<<64-512, 1024, nil)
				answers(r, code, 0, typ, size+1, 0, nil)
				answers(r, 0, 0, typ, size, 0, nil)
			}
		}},
		{name: "flags of other commands", addr: rw, run: func(r *raw) {
			answers(r, eINVAL, 1<<1, cmdTrim, 0, 512, nil)
			answers(r, eINVAL, 1<<4, cmdCache, 0, 512, nil)
			answers(r, eINVAL, 1<<2, cmdZeroes, 0, 512, nil)
			answers(r, eINVAL, 1<<3, cmdZeroes, 0, 512, nil)
		}},
		{name: "trim and zeroes on a read-only export", addr: ro, run: func(r *raw) {
			answers(r, ePERM, 0, cmdTrim, 0, 512, nil)
			answers(r, ePERM, 0, cmdZeroes, 0, 512, nil)
		}},
		{name: "unknown flag", addr: rw, run: func(r *raw) {
			answers(r, eINVAL, 1<<2, cmdRead, 0, 512, nil)
			answers(r, eINVAL, 1<<15, cmdFlush, 0, 0, nil)
			answers(r, eINVAL, 1<<1|1, cmdWrite, 0, 512, make([]byte, 512))
		}},
		{name: "FUA where it was not announced", addr: ro, run: func(r *raw) { answers(r, eINVAL, 1, cmdRead, 0, 512, nil) }},
		{name: "flush where it was not announced", addr: ro, run: func(r *raw) { answers(r, eINVAL, 0, cmdFlush, 0, 0, nil) }},
		{name: "flush of a range", addr: rw, run: func(r *raw) { answers(r, eINVAL, 0, cmdFlush, 0, 512, nil) }},
		{name: "write to a read-only export", addr: ro, run: func(r *raw) {
			answers(r, ePERM, 0, cmdWrite, 0, 200000, make([]byte, 200000))
			answers(r, ePERM, 0, cmdWrite, 1<<63, 512, make([]byte, 512))
		}},
		{name: "wrong request magic", addr: rw, cut: true, run: func(r *raw) { r.send(make([]byte, 28)) }},
		{name: "leaves in the middle of a write", addr: rw, cut: true, run: func(r *raw) {
			r.send(append(request(0, cmdWrite, 1, size, 1000), make([]byte, 10)...))
			require.NoError(t, r.Conn.(interface{ CloseWrite() error }).CloseWrite())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dialRaw(t, c.addr).greet(3)
			r.open("any")
			c.run(r)
			if c.cut {
				r.closed()
			} else {
				r.send(request(0, cmdRead, 7, 4096, 4096))
				require.Zero(t, r.simple(7))
				require.Equal(t, content[4096:8192], r.recv(4096), "out of step")
			}
			stillServing(t, c.addr)
		})
	}
	require.True(t, bytes.Equal(content, mem.Bytes()), "a refused write changed the device")
	require.Zero(t, mem.Closed(), "a shared device was closed")
}
