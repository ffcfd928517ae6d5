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
		// begin opens the file with nothing of it in memory.
		begin := func() (read func(off, n int), end func()) {
			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			require.NoError(t, f.Sync())
			left := 1
			for until := time.Now().Add(10 * time.Second); left > 0 && time.Now().Before(until); { // some may be being read
				require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
				left = residentPages(t, path).count()
			}
			if left > 0 {
				t.Skipf("the file system keeps %d pages in memory", left)
			}
			dev, err := nbd.OpenFile(path)
			require.NoError(t, err)
			r := dialRaw(t, serve(t, dev)).greet(3)
			r.open("x")
			read = func(off, n int) {
				r.send(request(0, cmdRead, 1, uint64(off), n))
				require.Zero(t, r.simple(1))
				require.Equal(t, content[off:][:n], r.recv(n))
			}
			return read, func() { require.NoError(t, dev.Close()) }
		}
		around := 1
		if !sparse {
			around = 256 << 10 >> 12
		}
		settled := func(from, least int) {
			t.Helper()
			require.Eventually(t, func() bool { return residentPages(t, path)[from:].count() >= least }, time.Minute, time.Millisecond)
			require.LessOrEqual(t, residentPages(t, path)[from:].count(), least)
		}
		read, end := begin()
		read(20<<20+4096, 4096)
		settled(0, around)
		read(24<<20, 100<<10)
		settled(24<<20>>12, max(25, around))
		end()
		// On a busy machine a send may take as long as one that waits for the
		// disk, and then what was read before is forgotten.
		for n, until := 0, time.Now().Add(time.Minute); n < 6<<20>>12; {
			require.True(t, time.Now().Before(until), "%d pages", n)
			read, end := begin()
			for off := 0; off < 4<<20; off += 128 << 10 {
				read(off, 128<<10)
			}
			for settled := time.Now().Add(time.Second); n < 6<<20>>12 && time.Now().Before(settled); {
				n = residentPages(t, path).count()
			}
			require.LessOrEqual(t, residentPages(t, path).count(), 8<<20>>12)
			end()
		}
	}
}
