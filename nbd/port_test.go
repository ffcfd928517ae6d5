package nbd_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// servePort serves a Port until the test ends.
func servePort(t *testing.T, p *nbd.Port) net.Addr {
	l := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(l) }() // ends with the Close below
	t.Cleanup(func() {
		p.Server.Close()
		require.ErrorIs(t, <-ended, nbd.ErrServerClosed)
		require.NoError(t, p.Server.Shutdown(context.Background()))
	})
	return l.Addr()
}

func TestPort(t *testing.T) {
	one, other := pattern(1<<20), pattern(2<<20)
	srv := &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"one": nbd.Share(nbdtest.NewMemory(one)), "other": nbd.Share(nbdtest.NewMemory(other)),
	}}
	addr := servePort(t, &nbd.Port{Server: srv, Export: "one"})
	number := strconv.Itoa(addr.(*net.TCPAddr).Port)
	for name, size := range map[string]uint64{"": 1 << 20, "/": 1 << 20, number: 1 << 20, "other": 2 << 20, "one": 1 << 20} {
		got, _ := dialRaw(t, addr.String()).greet(3).open(name)
		require.Equal(t, size, got, "%q", name)
	}
	r := dialRaw(t, addr.String()).greet(0)
	r.send(option(optExportName, nil))
	require.Equal(t, u64(1<<20), r.recv(10 + 124)[:8])
	r = dialRaw(t, addr.String()).greet(3)
	r.send(option(optInfo, goData("", 1)))
	r.wantReply(optInfo, repInfo)
	require.Equal(t, cat(u16(1), []byte("one")), r.wantReply(optInfo, repInfo))
	r.wantReply(optInfo, repAck)
	r.structured()
	require.Len(t, r.setMeta("", "base:allocation"), 1)
	r.open("one")
	r.send(request(0, cmdStatus, 1, 0, 512))
	_, typ, _ := r.chunk(1)
	require.Equal(t, 5, typ, "both names are the same export")
	r = dialRaw(t, addr.String()).greet(3)
	r.send(option(optGo, goData("none")))
	r.wantReply(optGo, errUnknown)
}

func TestOldstyle(t *testing.T) {
	content := pattern(1 << 20)
	srv := &nbd.Server{Logger: quiet, Handler: nbd.Exports{"one": nbd.Share(nbdtest.NewMemory(content))}}
	addr := servePort(t, &nbd.Port{Server: srv, Export: "one", Oldstyle: true})
	r := dialRaw(t, addr.String())
	require.Equal(t, cat([]byte("NBDMAGIC"), u64(0x00420281861253), u64(1<<20),
		u16(0), u16(1|1<<2|1<<3|1<<5|1<<6|1<<8|1<<10|1<<11), make([]byte, 124)), r.recv(152))
	r.send(request(0, cmdRead, 1, 4096, 512))
	require.Zero(t, r.simple(1))
	require.Equal(t, content[4096:4608], r.recv(512))

	r = dialRaw(t, servePort(t, &nbd.Port{Server: &nbd.Server{Logger: quiet}, Export: "none", Oldstyle: true}).String())
	r.closed()
	p := newPKI(t)
	require.ErrorContains(t, (&nbd.Port{Oldstyle: true, Server: &nbd.Server{TLS: p.serverConfig(), RequireTLS: true}}).Serve(listen(t)), "oldstyle")
}

func TestOldstyleThroughTools(t *testing.T) {
	content := pattern(1 << 20)
	path := tempFile(t, content)
	addr := servePort(t, &nbd.Port{Server: &nbd.Server{Logger: quiet, Handler: nbd.FileServer(path)}, Oldstyle: true})
	require.Contains(t, run(t, needTool(t, "nbdinfo"), "nbd://"+addr.String()), "oldstyle")
	out := path + ".copy"
	run(t, needTool(t, "nbdcopy"), "nbd://"+addr.String(), out)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
}

// TestInetd is a client of a server that was started with the connection as
// its standard input: this test, run anew.
func TestInetd(t *testing.T) {
	if export, ok := os.LookupEnv("DISKLESS_TEST_INETD"); ok {
		nc, err := net.FileConn(os.Stdin)
		if err != nil {
			os.Exit(1)
		}
		p := &nbd.Port{Server: &nbd.Server{Logger: quiet, Handler: nbd.FileServer(export)}, Oldstyle: os.Getenv("DISKLESS_TEST_OLDSTYLE") != ""}
		if p.ServeConn(context.Background(), nc) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	content := pattern(1 << 20)
	path := tempFile(t, content)
	for _, oldstyle := range []string{"", "yes"} {
		a, b := pair(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestInetd$")
		cmd.Env = append(os.Environ(), "DISKLESS_TEST_INETD="+path, "DISKLESS_TEST_OLDSTYLE="+oldstyle)
		cmd.Stdin = b
		require.NoError(t, cmd.Start())
		b.Close()
		r := &raw{t, a}
		if oldstyle == "" {
			size, _ := r.greet(3).open("")
			require.Equal(t, uint64(1<<20), size)
		} else {
			require.Equal(t, u64(1<<20), r.recv(152)[16:24])
		}
		r.send(request(0, cmdRead, 1, 0, 1<<20))
		require.Zero(t, r.simple(1))
		require.True(t, bytes.Equal(content, r.recv(1<<20)))
		r.send(request(0, cmdDisc, 2, 0, 0))
		require.NoError(t, cmd.Wait())
		a.Close()
	}
}

// pair returns the two ends of a TCP connection, one as a file.
func pair(t *testing.T) (net.Conn, *os.File) {
	l := listen(t)
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err := l.Accept()
	require.NoError(t, err)
	defer b.Close()
	f, err := b.(*net.TCPConn).File()
	require.NoError(t, err)
	return a, f
}
