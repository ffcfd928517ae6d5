package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/internal/guest"
)

const noNFS = noGuest + "_nfs"

// PrepareNFS fetches what [NFS] runs. Call it before [Main], in a process that
// has the network still.
func PrepareNFS() {
	if os.Getenv(noNFS) != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if _, err := guest.FetchNFSServer(ctx, guest.CacheDir()); err != nil {
		fmt.Fprintln(os.Stderr, "some tests that boot a machine will not run:", err)
		os.Setenv(noNFS, err.Error())
	}
}

// ganesha serves one directory. There is no krb5 here, and no D-Bus.
const ganesha = `NFS_CORE_PARAM { Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; Plugins_Dir = "PLUGINS"; }
NFSv4 { RecoveryRoot = /run/ganesha; Only_Numeric_Owners = true; UseGetpwnam = true; }
EXPORT { Export_Id = 1; Path = "DIR"; Pseudo = "DIR"; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP; FSAL { Name = VFS; } }
`

// serveNFS runs the two programs where nobody else sees their files in /run,
// and rpcbind's user is there. The second becomes the first process of a PID
// namespace, so the first one ends with it.
const serveNFS = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/rpcbind /run/ganesha
{ cat /etc/passwd; echo _rpc:x:65533:65534::/run/rpcbind:/usr/sbin/nologin; } >/run/passwd
mount --bind /run/passwd /etc/passwd
"$1" -f &
exec "$2" -F -f "$3" -L /dev/stderr -p /run/ganesha.pid -N NIV_CRIT`

// NFS makes a file system in memory, has fill put a tree into it and serves it
// by NFS 3, for reading and writing, until the test's end. It returns the
// directory, which has the same name for clients. It needs root: the server
// opens files by their handles, and not every file system has those.
func NFS(t testing.TB, addr netip.Addr, fill func(dir string) error) (dir string) {
	t.Helper()
	if why := os.Getenv(noNFS); why != "" {
		Skip(t, "%s", why)
	}
	server, err := guest.FetchNFSServer(context.Background(), guest.CacheDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "nfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("diskless", dir, "tmpfs", 0, "mode=0755"); err != nil {
		Skip(t, "a file system in memory: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := fill(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(dir), "ganesha.conf")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("DIR", dir, "PLUGINS", server.Plugins).Replace(ganesha)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", serveNFS, "sh", server.RPCBind, server.Ganesha, file)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+server.Library)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begun, ended := make(chan error, 1), make(chan struct{})
	go func() { // the kernel kills it with the thread that has started it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		begun <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the NFS server:\n%s", said.String())
		}
	})
	// It has registered its ports by the time it listens.
	for deadline := time.Now().Add(time.Minute); ; {
		select {
		case <-ended:
			t.Fatalf("the NFS server has ended:\n%s", said.String())
		case <-time.After(50 * time.Millisecond):
		}
		if conn, err := net.Dial("tcp", net.JoinHostPort(addr.String(), "2049")); err == nil {
			conn.Close()
			return dir
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
