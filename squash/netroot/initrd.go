package netroot

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// contents is what an initrd has: the names of modules without directory and
// endings, and whether it has some programs.
type contents struct {
	modules map[string]bool
	names   map[string]bool // those that checks ask for
	network bool            // a driver of a network card
	err     error           // why it could not be looked into
}

// Bounds for what an initrd's compression may claim.
const (
	maxInitrd  = 4 << 30
	maxMembers = 1_000_000
)

// readInitrd lists the archives that an initrd is made of: one after the other,
// the later ones compressed (the kernel's buffer format, "Initramfs buffer
// format").
func readInitrd(r io.Reader) *contents {
	c := &contents{modules: make(map[string]bool), names: make(map[string]bool)}
	c.err = c.read(bufio.NewReaderSize(io.LimitReader(r, maxInitrd), 64<<10), true)
	return c
}

func (c *contents) read(r *bufio.Reader, outer bool) error {
	for {
		// Zeros stand between archives.
		b, err := r.ReadByte()
		for ; err == nil && b == 0; b, err = r.ReadByte() {
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		_ = r.UnreadByte()
		head, _ := r.Peek(6)
		if bytes.HasPrefix(head, []byte("07070")) {
			if err := c.archive(r); err != nil {
				return err
			}
			continue
		}
		if !outer {
			return errors.New("no cpio archive inside of the compression")
		}
		plain, err := plainOf(head, r)
		if err != nil {
			return err
		}
		return c.read(bufio.NewReaderSize(io.LimitReader(plain, maxInitrd), 64<<10), false)
	}
}

func plainOf(head []byte, r io.Reader) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil // runs no goroutine
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xz.NewReader(r)
	case bytes.HasPrefix(head, []byte{0x02, 0x21, 0x4c, 0x18}), bytes.HasPrefix(head, []byte{0x04, 0x22, 0x4d, 0x18}):
		return lz4.NewReader(r), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(r), nil
	}
	return nil, fmt.Errorf("no cpio archive, and no compression that is known: it begins with %x", head)
}

// archive reads one archive in the newc format up to its trailer.
func (c *contents) archive(r *bufio.Reader) error {
	var head [110]byte
	for range maxMembers {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return fmt.Errorf("the cpio archive is cut short: %w", err)
		}
		if magic := string(head[:6]); magic != "070701" && magic != "070702" {
			return fmt.Errorf("a cpio header that begins with %q", magic)
		}
		size, err1 := strconv.ParseUint(string(head[54:62]), 16, 32)
		long, err2 := strconv.ParseUint(string(head[94:102]), 16, 32)
		if err1 != nil || err2 != nil || long == 0 || long > 4096 {
			return errors.New("a cpio header with numbers that make no sense")
		}
		name := make([]byte, long)
		if _, err := io.ReadFull(r, name); err != nil {
			return fmt.Errorf("the cpio archive is cut short: %w", err)
		}
		skip := (4-(110+long)%4)%4 + size + (4-size%4)%4
		if n, err := r.Discard(int(skip)); err != nil && uint64(n)+3 < skip {
			return fmt.Errorf("the cpio archive is cut short: %w", err)
		}
		full := strings.TrimSuffix(string(name), "\x00")
		if full == "TRAILER!!!" {
			return nil
		}
		c.note(full)
	}
	return fmt.Errorf("more than %d files", maxMembers)
}

func (c *contents) note(full string) {
	full = path.Clean(strings.TrimPrefix(full, "/"))
	if name, ok := moduleName(full); ok {
		c.modules[name] = true
		c.network = c.network || isNetworkDriver(full)
		return
	}
	if full == "scripts/functions" { // as initramfs-tools has it
		c.names["functions"] = true
	}
	switch base := path.Base(full); base {
	case "nbd-client", "nfsmount", "mount.nfs", "nbd", "nfs", "overlay", "init-ltsp":
		c.names[base] = true
	}
}

// moduleName is a kernel module's name as the kernel says it.
func moduleName(file string) (string, bool) {
	base := path.Base(file)
	i := strings.Index(base, ".ko")
	if i < 0 || base[i:] != ".ko" && base[i:] != ".ko.xz" && base[i:] != ".ko.zst" && base[i:] != ".ko.gz" {
		return "", false
	}
	return strings.ReplaceAll(base[:i], "-", "_"), true
}

func isNetworkDriver(file string) bool {
	return strings.Contains(file, "/drivers/net/ethernet/") || strings.HasSuffix(strings.SplitN(path.Base(file), ".", 2)[0], "virtio_net") || strings.Contains(file, "/drivers/net/usb/")
}
