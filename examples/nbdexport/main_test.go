package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary is the program itself when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("NBDEXPORT") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func tool(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("%s is missing", name)
	}
	return path
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, name), args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func image(t *testing.T) (path string, content []byte) {
	content = make([]byte, 2<<20)
	_, _ = rand.Read(content)
	path = filepath.Join(t.TempDir(), "i386.img")
	require.NoError(t, os.WriteFile(path, content, 0o644))
	return path, content
}

// start runs the program on a Unix socket; stop ends it as an operator does.
func start(t *testing.T, args ...string) (sock string, stop func()) {
	sock = filepath.Join(t.TempDir(), "s")
	exe, err := os.Executable()
	require.NoError(t, err)
	var log bytes.Buffer
	cmd := exec.Command(exe, append([]string{"-unix", sock}, args...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "NBDEXPORT=1"), &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.Eventually(t, func() bool {
		c, err := net.Dial("unix", sock)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	return sock, func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, <-ended, "%s", &log)
	}
}

func TestReadOnly(t *testing.T) {
	path, content := image(t)
	sock, stop := start(t, path)
	require.Contains(t, output(t, "nbdinfo", "nbd+unix:///i386.img?socket="+sock), "is_read_only: true")
	require.Contains(t, output(t, "nbdinfo", "--list", "nbd+unix://?socket="+sock), `export="i386.img"`)
	out := filepath.Join(t.TempDir(), "copy")
	output(t, "nbdcopy", "nbd+unix://?socket="+sock, out)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	stop()
	require.NoFileExists(t, sock)
}

// What a client wrote is there again: in memory while the program runs, in a
// directory also after it. The file itself never changes.
func TestOverlays(t *testing.T) {
	path, content := image(t)
	other, changed := image(t)
	dir := filepath.Join(t.TempDir(), "overlays")
	reads := func(sock string) []byte {
		out := filepath.Join(t.TempDir(), "copy")
		output(t, "nbdcopy", "nbd+unix://?socket="+sock, out)
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		return got
	}
	for _, overlay := range []string{"memory", dir} {
		sock, stop := start(t, "-overlay", overlay, path)
		require.True(t, bytes.Equal(content, reads(sock)))
		output(t, "nbdcopy", "--flush", other, "nbd+unix://?socket="+sock)
		require.True(t, bytes.Equal(changed, reads(sock)))
		stop()
	}
	sock, stop := start(t, "-overlay", dir, path)
	require.True(t, bytes.Equal(changed, reads(sock)))
	stop()
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, now))

	sock, stop = start(t, "-overlay", "memory", "-quota", "1048576", path)
	out, err := exec.Command(tool(t, "nbdcopy"), other, "nbd+unix://?socket="+sock).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "No space left")
	stop()
}

// libnbd starts a server as inetd does: a socket is its standard input and
// output. The first one says nothing before the client has, the second one
// greets it with the size.
func TestInetd(t *testing.T) {
	path, _ := image(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	t.Setenv("NBDEXPORT", "1")
	t.Setenv("PATH", "/usr/bin:/bin") // the python3 that has the module
	output(t, "nbdsh", "-c", `
import sys
for flags, protocol in ([], "newstyle-fixed"), (["-oldstyle"], "oldstyle"):
    h = nbd.NBD()
    h.connect_command(["`+exe+`", "-inetd", *flags, "-overlay", "memory", "`+path+`"])
    assert h.get_protocol() == protocol, h.get_protocol()
    want = open("`+path+`", "rb").read()
    assert h.pread(h.get_size(), 0) == want
    h.pwrite(b"x" * 5000, 1000)
    assert h.pread(7000, 0) == want[:1000] + b"x" * 5000 + want[6000:7000]
    h.shutdown()
`)
}

// inetd makes standard error the socket as well, and runs what it starts as
// nobody: the client gets the greeting and nothing else.
func TestInetdAsNobody(t *testing.T) {
	path, _ := image(t)
	exe, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	public, err := os.MkdirTemp("", "nbdexport") // t.TempDir is for the owner alone
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(public) })
	require.NoError(t, os.Chmod(public, 0o755))
	require.NoError(t, os.WriteFile(public+"/nbdexport", exe, 0o755))
	require.NoError(t, os.Rename(path, public+"/i386.img"))
	start := func(args ...string) (client *os.File, cmd *exec.Cmd) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		client, server := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "server")
		t.Cleanup(func() { client.Close() })
		cmd = exec.Command(public+"/nbdexport", args...)
		cmd.Dir, cmd.Env = public, []string{"NBDEXPORT=1"}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = server, server, server
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		require.NoError(t, cmd.Start())
		server.Close()
		return client, cmd
	}
	client, cmd := start("-inetd", "-oldstyle", "i386.img")
	greeting := make([]byte, 152)
	_, err = io.ReadFull(client, greeting)
	require.NoError(t, err)
	require.Equal(t, "NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00\x00\x00\x00\x20\x00\x00", string(greeting[:24]))
	require.NoError(t, client.Close())
	require.NoError(t, cmd.Wait(), "it ends with its client")

	client, cmd = start("-inetd", "-oldstyle", "no such file")
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Empty(t, got)
	require.Error(t, cmd.Wait())
}

// nbdcopy's [ PROGRAM ] hands a listening socket over as systemd does.
func TestSocketActivation(t *testing.T) {
	path, content := image(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	t.Setenv("NBDEXPORT", "1")
	out := filepath.Join(t.TempDir(), "copy")
	output(t, "nbdcopy", "--", "[", exe, path, "]", out)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
}

func TestTLS(t *testing.T) {
	path, _ := image(t)
	dir := t.TempDir()
	certificates(t, dir)
	sock, stop := start(t, "-tls-cert", dir+"/server-cert.pem", "-tls-key", dir+"/server-key.pem", "-tls-ca", dir+"/ca-cert.pem", path)
	url := "?tls-hostname=localhost&socket=" + sock
	require.Contains(t, output(t, "nbdinfo", "nbds+unix://"+url+"&tls-certificates="+dir), "with TLS")
	for _, refused := range []string{"nbd+unix://" + url, "nbds+unix://" + url + "&tls-certificates=" + t.TempDir()} {
		require.Error(t, exec.Command(tool(t, "nbdinfo"), refused).Run())
	}
	stop()
}

// certificates makes the files that nbdinfo looks for, and the server's.
func certificates(t *testing.T, dir string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: ca.NotAfter, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	write := func(kind string, data []byte, names ...string) {
		for _, name := range names {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600))
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	require.NoError(t, err)
	write("CERTIFICATE", cert, "ca-cert.pem")
	cert, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	require.NoError(t, err)
	write("CERTIFICATE", cert, "server-cert.pem", "client-cert.pem")
	write("PRIVATE KEY", private, "server-key.pem", "client-key.pem")
}
