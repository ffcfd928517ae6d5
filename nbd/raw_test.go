package nbd_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// needTool skips the test when a tool is missing, or fails it where everything has
// to be there. It returns the first tool's path.
func needTool(t testing.TB, tools ...string) string {
	t.Helper()
	first := ""
	for _, tool := range tools {
		path := ""
		for _, name := range []string{tool, "/usr/sbin/" + tool, "/sbin/" + tool} {
			if p, err := exec.LookPath(name); err == nil {
				path = p
				break
			}
		}
		if path == "" {
			if os.Getenv("DISKLESS_REQUIRE") == "all" {
				t.Fatalf("%s is missing", tool)
			}
			t.Skipf("%s is missing", tool)
		}
		if first == "" {
			first = path
		}
	}
	return first
}

func run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v\n%s", tool, args, out)
	return string(out)
}

var quiet = slog.New(slog.DiscardHandler)

// pattern returns n bytes that do not repeat.
func pattern(n int) []byte {
	p := make([]byte, n)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(p)
	return p
}

// serve serves one device, under every name.
func serve(t testing.TB, dev nbd.Device) (addr string) {
	return nbdtest.ServeServer(t, &nbd.Server{Handler: anyName{dev}, Logger: quiet})
}

type anyName struct{ nbd.Device }

func (h anyName) OpenNBD(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
	return nbd.Share(h.Device).OpenNBD(ctx, r)
}

// The protocol's numbers, here again so that a slip in the package shows.
const (
	magicOption     = 0x49484156454F5054
	magicReply      = 0x3e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	optExportName, optAbort, optList, optStartTLS, optInfo, optGo, optStructured, optListMeta, optSetMeta = 1, 2, 3, 5, 6, 7, 8, 9, 10

	repAck, repServer, repInfo, repMeta = 1, 2, 3, 4

	cmdRead, cmdWrite, cmdDisc, cmdFlush, cmdTrim, cmdCache, cmdZeroes, cmdStatus = 0, 1, 2, 3, 4, 5, 6, 7

	ePERM, eIO, eINVAL, eNOSPC, eOVERFLOW, eNOTSUP, eSHUTDOWN = 1, 5, 22, 28, 75, 95, 108
)

// wire is a number as helpers here take and return it: with ints of 32 bits the
// largest are negative.
func wire(n uint32) int { return int(n) }

var (
	errUnsup, errPolicy, errInvalid, errTLSReqd = wire(1<<31 | 1), wire(1<<31 | 2), wire(1<<31 | 3), wire(1<<31 | 5)
	errUnknown, errShut, errTooBig              = wire(1<<31 | 6), wire(1<<31 | 7), wire(1<<31 | 9)

	most32 = wire(1<<32 - 1)
)

// raw speaks to a server byte by byte.
type raw struct {
	t testing.TB
	net.Conn
}

func dialRaw(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	// No test waits this long: it is what a server that hangs runs into.
	require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
	return &raw{t, nc}
}

func (r *raw) send(p []byte) {
	r.t.Helper()
	_, err := r.Write(p)
	require.NoError(r.t, err)
}

func (r *raw) recv(n int) []byte {
	r.t.Helper()
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	require.NoError(r.t, err)
	return p
}

// closed asserts that the server has closed the connection, and that nothing
// came before that.
func (r *raw) closed() {
	r.t.Helper()
	n, err := r.Read(make([]byte, 1))
	require.Zero(r.t, n, "the server sent something instead of closing")
	require.Error(r.t, err)
	require.NotErrorIs(r.t, err, os.ErrDeadlineExceeded, "the server keeps the connection open")
}

// drained asserts that the server closes the connection, whatever it sends
// before.
func (r *raw) drained() {
	r.t.Helper()
	_, err := io.Copy(io.Discard, r)
	require.NotErrorIs(r.t, err, os.ErrDeadlineExceeded, "the server keeps the connection open")
}

func u16(v int) []byte    { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func u32(v int) []byte    { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func cat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// greet takes the greeting and answers with client flags.
func (r *raw) greet(flags int) *raw {
	r.t.Helper()
	require.Equal(r.t, cat([]byte("NBDMAGICIHAVEOPT"), u16(3)), r.recv(18))
	r.send(u32(flags))
	return r
}

func option(id int, data []byte) []byte {
	return cat(u64(magicOption), u32(id), u32(len(data)), data)
}

func goData(name string, infos ...int) []byte {
	p := cat(u32(len(name)), []byte(name), u16(len(infos)))
	for _, i := range infos {
		p = append(p, u16(i)...)
	}
	return p
}

// reply takes one option reply to opt.
func (r *raw) reply(opt int) (typ int, data []byte) {
	r.t.Helper()
	h := r.recv(20)
	require.Equal(r.t, uint64(magicReply), binary.BigEndian.Uint64(h))
	require.Equal(r.t, uint32(opt), binary.BigEndian.Uint32(h[8:]))
	return int(binary.BigEndian.Uint32(h[12:])), r.recv(int(binary.BigEndian.Uint32(h[16:])))
}

func (r *raw) wantReply(opt, typ int) []byte {
	r.t.Helper()
	got, data := r.reply(opt)
	require.Equal(r.t, typ, got, "%q", data)
	return data
}

// open goes into transmission and returns the export's size and flags.
func (r *raw) open(name string) (size uint64, flags int) {
	r.t.Helper()
	r.send(option(optGo, goData(name)))
	p := r.wantReply(optGo, repInfo)
	require.Len(r.t, p, 12)
	require.Equal(r.t, u16(0), p[:2])
	r.wantReply(optGo, repAck)
	return binary.BigEndian.Uint64(p[2:]), int(binary.BigEndian.Uint16(p[10:]))
}

func request(flags, typ int, cookie, off uint64, n int) []byte {
	return cat(u32(magicRequest), u16(flags), u16(typ), u64(cookie), u64(off), u32(n))
}

// simple takes one simple reply's header.
func (r *raw) simple(cookie uint64) (code int) {
	r.t.Helper()
	h := r.recv(16)
	require.Equal(r.t, uint32(magicSimple), binary.BigEndian.Uint32(h))
	require.Equal(r.t, cookie, binary.BigEndian.Uint64(h[8:]))
	return int(binary.BigEndian.Uint32(h[4:]))
}

// stillServing asserts that a new client is served, over the whole way.
func stillServing(t testing.TB, addr string) {
	t.Helper()
	c, err := nbd.Dial(t.Context(), "tcp", addr, "any")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.ReadAt(make([]byte, 512), 0)
	require.NoError(t, err)
}

func tempFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// sparse serves a file with holes: 8 MiB, of which the second and the last
// quarter are holes.
func sparse(t *testing.T) (path string, content []byte) {
	content = pattern(8 << 20)
	clear(content[2<<20 : 4<<20])
	clear(content[6<<20:])
	path = filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(8<<20))
	for _, off := range []int{0, 4 << 20} {
		_, err = f.WriteAt(content[off:off+2<<20], int64(off))
		require.NoError(t, err)
	}
	return path, content
}
