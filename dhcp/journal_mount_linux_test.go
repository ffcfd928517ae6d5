package dhcp

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A file that is mounted alone, as into a container, cannot be replaced; its
// directory can be mounted. In a mount namespace of the test's own.
func TestFileStoreMount(t *testing.T) {
	if dir := os.Getenv("DHCP_TEST_MOUNT"); dir != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
		for _, name := range []string{"leases", "sub"} {
			require.NoError(t, unix.Mount(filepath.Join(dir, "host", name), filepath.Join(dir, "inside", name), "", unix.MS_BIND, ""))
		}
		_, err := OpenFileStore(filepath.Join(dir, "inside/leases"), nil)
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, "mount its directory")
		s, err := OpenFileStore(filepath.Join(dir, "inside/sub/leases"), nil)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return
	}
	dir := t.TempDir()
	for _, d := range []string{"host", "inside", "host/sub", "inside/sub"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	s, err := OpenFileStore(filepath.Join(dir, "host/leases"), nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "inside/leases"), nil, 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileStoreMount$", "-test.v")
	cmd.Env = append(os.Environ(), "DHCP_TEST_MOUNT="+dir)
	cmd.SysProcAttr = namespaces()
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		skip(t, "no namespaces without privileges here: "+err.Error())
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestFileStoreMount")
}
