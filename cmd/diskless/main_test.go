package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test binary is the diskless binary too, when a test runs it as one.
func TestMain(m *testing.M) {
	if os.Getenv("DISKLESS_TEST_RUN_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func diskless(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DISKLESS_TEST_RUN_MAIN=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := diskless(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// write makes a configuration with only HTTP and NBD on, on free ports.
func write(t *testing.T, more string) (file string, httpPort int) {
	t.Helper()
	dir := t.TempDir()
	httpPort = freePort(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "disk.img"), make([]byte, 1<<20), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "boot"), 0o755))
	file = filepath.Join(dir, "diskless.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `server: {address: 127.0.0.1, state: state}
http: {listen: "127.0.0.1:%d"}
nbd: {listen: "127.0.0.1:%d"}
files: [{dir: boot}]
images: [{name: disk, file: disk.img}]
%s`, httpPort, freePort(t), more), 0o644))
	return file, httpPort
}

func TestServe(t *testing.T) {
	file, port := write(t, "unknown: local\n")
	cmd := diskless("serve", "--config", file, "--log-format", "json")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	log := bufio.NewScanner(stderr)
	require.True(t, waitFor(log, `"msg":"serving"`), "it says when it serves")

	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)

	resp, err = http.Get(fmt.Sprintf("http://127.0.0.1:%d/boot.ipxe?mac=52:54:00:11:22:33&uuid=6b1f0c5e-2a1d-4c3b-8f5e-0123456789ab", port))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	out, errs, err := run(t, "machines", "--config", file)
	require.NoError(t, err, errs)
	require.Regexp(t, `(?m)^52:54:00:11:22:33 +6b1f0c5e-2a1d-4c3b-8f5e-0123456789ab `, out)
	out, errs, err = run(t, "explain", "--mac", "52:54:00:11:22:33", "--config", file)
	require.NoError(t, err, errs)
	require.Regexp(t, `(?m)^pxelinux.cfg/default +yes +fallback for unknown machines: entry "local": the local disk +unknown machines$`, out)
	out, errs, err = run(t, "roots", "--config", file)
	require.NoError(t, err, errs)
	require.Contains(t, out, "ROOT")
	_, errs, err = run(t, "roots", "reset", "nobody", "--config", file)
	require.Error(t, err)
	require.Contains(t, errs, "nobody")

	commands(t, file)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.True(t, waitFor(log, `"msg":"stopped"`))
	require.NoError(t, cmd.Wait(), "SIGTERM is an orderly end")
	_, errs, err = run(t, "roots", "--config", file)
	require.Error(t, err)
	require.Contains(t, errs, "no server answers")
}

// commands gives the server each command for roots and images once.
func commands(t *testing.T, file string) {
	t.Helper()
	diskless := func(args ...string) string {
		t.Helper()
		out, errs, err := run(t, append(args, "--config", file)...)
		require.NoError(t, err, errs)
		return out
	}
	fails := func(want string, args ...string) {
		t.Helper()
		_, errs, err := run(t, append(args, "--config", file)...)
		require.Error(t, err)
		require.Contains(t, errs, want)
	}
	diskless("roots", "create", "one", "disk")
	require.Regexp(t, `(?m)^ROOT +IMAGE +GENERATION +KIND +BYTES STORED +BYTES SHARED +OPEN BY +PROBLEM$`, diskless("roots", "list"))
	require.Regexp(t, `(?m)^one +disk +[0-9a-f]{12} +kept +0 +0 +- +-$`, diskless("roots"))
	fails("already", "roots", "create", "one", "disk")
	diskless("roots", "clone", "one", "two")
	diskless("roots", "rename", "two", "three")
	require.Regexp(t, `^disk~[0-9a-f]{12}@three\..+\n$`, diskless("roots", "attach", "three"))
	diskless("roots", "fence", "three")

	former := generation(t, diskless("images", "list"))
	newer := filepath.Join(filepath.Dir(file), "new.img")
	require.NoError(t, os.WriteFile(newer, bytes.Repeat([]byte{1}, 1<<20), 0o644))
	name := diskless("images", "publish", "disk", newer)
	require.NoFileExists(t, newer)
	require.Equal(t, "disk~"+generation(t, diskless("images"))+"\n", name)
	require.Contains(t, diskless("images"), former)
	diskless("roots", "rebase", "one")
	require.Contains(t, name, generation(t, diskless("roots")))
	diskless("roots", "rebase", "one", former)
	fails("no generation", "roots", "rebase", "one", "0123456789ab")
	require.Equal(t, "disk~"+former+"\n", diskless("images", "revert", "disk"))
	fails("no such file", "images", "publish", "disk", newer)
	require.Regexp(t, `^other~[0-9a-f]{12}\n$`, diskless("roots", "commit", "one", "other"))
	require.Regexp(t, `(?m)^other +[0-9a-f]{12} +1048576 +- +.*/state/images/other.img$`, diskless("images"))

	fails("unused", "roots", "expire")
	fails("in use", "roots", "expire", "--unused", "0s")
	fails("no kind", "roots", "expire", "--kind", "x", "--unused", "1h")
	require.Empty(t, diskless("roots", "expire", "--kind", "kept", "--unused", "1h"))
	require.Equal(t, "one\nthree\n", diskless("roots", "expire", "--kind", "kept", "--unused", "1ns"))
	diskless("roots", "create", "four", "disk~"+former)
	diskless("roots", "reset", "four")
	diskless("roots", "delete", "four")
	fails("no root", "roots", "delete", "four")
}

// generation finds the first one in a table.
func generation(t *testing.T, table string) string {
	t.Helper()
	found := regexp.MustCompile(`\b[0-9a-f]{12}\b`).FindString(table)
	require.NotEmpty(t, found, table)
	return found
}

// waitFor reads the log up to a line that contains text.
func waitFor(log *bufio.Scanner, text string) bool {
	for log.Scan() {
		if strings.Contains(log.Text(), text) {
			return true
		}
	}
	return false
}

func TestConfigurationMistake(t *testing.T) {
	file, _ := write(t, "unknwon: deny\n")
	_, errs, err := run(t, "serve", "--config", file)
	require.Error(t, err)
	require.Contains(t, errs, file+`:6:1: unknown key "unknwon"; did you mean "unknown"?`)
}

func TestCheck(t *testing.T) {
	file, _ := write(t, "")
	out, errs, err := run(t, "serve", "--config", file, "--check")
	require.NoError(t, err, errs)
	require.Contains(t, out, "is fine")
}

func TestPortInUse(t *testing.T) {
	file, port := write(t, "")
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer l.Close()
	_, errs, err := run(t, "serve", "--config", file)
	require.Error(t, err)
	require.Contains(t, errs, "another program has port")
	require.Contains(t, errs, "http.listen")
}

func TestVersionAndHelp(t *testing.T) {
	out, _, err := run(t, "version")
	require.NoError(t, err)
	require.Regexp(t, `^diskless \S+ go\S+ linux/\S+\nzstd: (libzstd [0-9.]+|Go)\n$`, out)
	out, _, err = run(t, "--help")
	require.NoError(t, err)
	for _, command := range []string{"serve", "demo", "machines", "explain", "roots", "images", "version", "completion"} {
		require.Contains(t, out, "\n  "+command)
	}
}
