package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

var (
	//go:embed files/initrd-init
	initrdInit []byte
	//go:embed files/nbdroot
	nbdrootScript []byte
	//go:embed files/lease
	leaseScript []byte
)

// Initrd returns a small initramfs for k: busybox, nbd-client, the modules
// that a guest needs, and a script that brings up the network, attaches the
// NBD root and switches to it. It is made in a second or two and cached by
// what it is made of, so that a changed tool makes another one.
//
// It understands root=/dev/nbd0 with nbdroot=, as initramfs-tools with
// nbd-client's script does (IP:PORT/EXPORT, IP/EXPORT, IP:/EXPORT,
// IP,EXPORT,nbd0, [IPv6]:PORT/EXPORT, and DHCP's root-path), dracut's
// root=nbd:IP:EXPORT:FSTYPE:OPTIONS, and beside them ip=, BOOTIF=, ro, rw,
// rootfstype=, rootflags=, init= and overlayroot=tmpfs. What stops it is said
// in a line "DISKLESS failed=...", and the machine is switched off.
func Initrd(ctx context.Context, cacheDir string, k *Kernel) (string, error) {
	a := archive{}
	if err := a.fill(ctx, k); err != nil {
		return "", fmt.Errorf("initrd: %w", err)
	}
	var plain bytes.Buffer
	if err := a.write(&plain); err != nil {
		return "", fmt.Errorf("initrd: %w", err)
	}
	digest := sha256.Sum256(plain.Bytes())
	name := "initrd-" + hex.EncodeToString(digest[:8])
	file, err := once(ctx, cacheDir, name, func(dir string) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		w, err := zstd.NewWriter(f)
		if err != nil {
			return err
		}
		if _, err := w.Write(plain.Bytes()); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		return "", fmt.Errorf("initrd: %w", err)
	}
	return file, nil
}

func (a archive) fill(ctx context.Context, k *Kernel) error {
	if err := a.addBusybox(); err != nil {
		return err
	}
	client, err := lookTool("nbd-client")
	if err != nil {
		return err
	}
	if err := a.addProgram("bin/nbd-client", client); err != nil {
		return err
	}
	if err := a.addModules(ctx, k); err != nil {
		return err
	}
	a.file("init", 0o755, initrdInit)
	a.file("bin/nbdroot", 0o644, nbdrootScript)
	a.file("bin/lease", 0o755, leaseScript)
	a.dir("proc", "sys", "dev", "run", "sbin", "tmp")
	// The kernel opens the console before devtmpfs is there.
	a["dev/console"] = entry{mode: typeChar | 0o600, major: 5, minor: 1}
	return nil
}

// addBusybox puts in busybox, which must be the static one, and its names.
func (a archive) addBusybox() error {
	file, err := lookTool("busybox")
	if err != nil {
		return err
	}
	_, interpreter, err := needs(file)
	if err != nil {
		return err
	}
	if interpreter != "" {
		return fmt.Errorf("%s needs shared libraries; install the package busybox-static", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	a.file("bin/busybox", 0o755, data)
	for _, name := range applets {
		a.link("bin/"+name, "busybox")
	}
	return nil
}

// applets is what the guest's scripts, and a person at its console, call
// busybox by.
var applets = []string{
	"awk", "base64", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df", "dirname", "dmesg", "du", "echo",
	"env", "expr", "false", "find", "free", "grep", "head", "hexdump", "hostname", "id", "insmod", "ip", "kill", "less", "ln", "ls",
	"lsmod", "md5sum", "mkdir", "mknod", "modprobe", "more", "mount", "mv", "nc", "ping", "poweroff", "printf", "ps", "pwd",
	"readlink", "reboot", "rm", "rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "stty", "switch_root", "sync",
	"tail", "tar", "tee", "test", "tftp", "timeout", "top", "touch", "tr", "true", "udhcpc", "umount", "uname", "uniq", "uptime",
	"usleep", "vi", "wc", "wget", "xargs",
}
