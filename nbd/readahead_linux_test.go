package nbd_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// resident says of each page of a file whether it is in memory.
type resident []byte

func (r resident) count() (n int) {
	for _, b := range r {
		n += int(b & 1)
	}
	return n
}

func residentPages(t *testing.T, path string) resident {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	st, err := f.Stat()
	require.NoError(t, err)
	p, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(p)) }()
	vec := make([]byte, (len(p)+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(unsafe.Pointer(&vec[0])))
	require.Zero(t, errno)
	return vec
}

// A read brings no more into memory than what it is worth, whatever the disk's
// read_ahead_kb, and a sequence is read ahead of.
func TestColdFile(t *testing.T) {
	needMaps(t)
	if os.Getpagesize() != 4096 {
		t.Skip("it counts pages of 4 KiB")
	}
	const size = 32 << 20
	for _, sparse := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "image")
		content := pattern(size)
		if sparse {
			clear(content[4096:])
			require.NoError(t, os.WriteFile(path, content[:4096], 0o600))
			require.NoError(t, os.Truncate(path, size))
		} else {
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		require.NoError(t, f.Close())
		if n := residentPages(t, path).count(); n > 0 {
			t.Skipf("the file system keeps %d pages in memory", n)
		}
		dev, err := nbd.OpenFile(path)
		require.NoError(t, err)
		defer dev.Close()
		r := dialRaw(t, serve(t, dev)).greet(3)
		r.open("x")
		read := func(off, n int) {
			r.send(request(0, cmdRead, 1, uint64(off), n))
			require.Zero(t, r.simple(1))
			require.Equal(t, content[off:][:n], r.recv(n))
		}
		around := 1
		if !sparse {
			around = 256 << 10 >> 12
		}
		settled := func(from, to, least, most int) {
			t.Helper()
			require.Eventually(t, func() bool { return residentPages(t, path)[from:to].count() >= least }, time.Minute, time.Millisecond)
			require.LessOrEqual(t, residentPages(t, path)[from:to].count(), most)
		}
		const pages = size >> 12
		read(20<<20+4096, 4096)
		settled(0, pages, around, around)
		read(24<<20, 100<<10)
		settled(24<<20>>12, pages, max(25, around), max(25, around))
		for off := 0; off < 4<<20; off += 128 << 10 {
			read(off, 128<<10)
		}
		settled(0, 20<<20>>12, 6<<20>>12, 8<<20>>12)
	}
}
