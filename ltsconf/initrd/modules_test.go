package initrd

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

// ko is a module with nothing but its information.
func ko(t testing.TB, needs string) []byte {
	t.Helper()
	info := []byte("license=GPL\x00depends=" + needs + "\x00name=x\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	head := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(64 + len(info) + len(names)),
	}
	sections := [3]elf.Section64{
		1: {Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))},
		2: {Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	for _, part := range []any{head, info, names, sections} {
		require.NoError(t, binary.Write(&b, binary.LittleEndian, part))
	}
	return b.Bytes()
}

func TestReadModules(t *testing.T) {
	var packed [3]bytes.Buffer
	g := gzip.NewWriter(&packed[0])
	x, err := xz.NewWriter(&packed[1])
	require.NoError(t, err)
	z, err := zstd.NewWriter(&packed[2])
	require.NoError(t, err)
	overlay, squashfs, nbd, base := ko(t, ""), ko(t, "base-one,builtin"), ko(t, "base-one"), ko(t, "")
	for _, w := range []struct {
		write func([]byte) (int, error)
		close func() error
		data  []byte
	}{{g.Write, g.Close, overlay}, {x.Write, x.Close, squashfs}, {z.Write, z.Close, nbd}} {
		_, err := w.write(w.data)
		require.NoError(t, err)
		require.NoError(t, w.close())
	}
	for _, lib := range []string{"usr/lib", "lib"} {
		dir := lib + "/modules/6.1.0-x/"
		root := fstest.MapFS{
			dir + "modules.builtin":                   {Data: []byte("kernel/lib/built-in.ko\nkernel/lib/builtin.ko\n")},
			dir + "kernel/fs/overlayfs/overlay.ko.gz": {Data: packed[0].Bytes()},
			dir + "kernel/fs/squashfs/squashfs.ko.xz": {Data: packed[1].Bytes()},
			dir + "kernel/drivers/block/nbd.ko.zst":   {Data: packed[2].Bytes()},
			dir + "kernel/lib/base-one.ko":            {Data: base},
			dir + "kernel/broken.ko":                  {Data: []byte("text")},
			dir + "kernel/broken-too.ko.xz":           {Data: []byte("text")},
			lib + "/modules/5.0/kernel/lib/unused.ko": {Data: base},
		}
		got, err := ReadModules(root, "6.1.0-x", "squashfs", "overlay", "nbd", "built_in", "overlay")
		require.NoError(t, err)
		require.Equal(t, Modules{{"base_one", base}, {"squashfs", squashfs}, {"overlay", overlay}, {"nbd", nbd}}, got)

		got, err = ReadModules(root, "6.1.0-x", "missing", "overlay")
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Len(t, got, 1, "those that are there")
		for _, name := range []string{"broken", "broken-too"} {
			_, err = ReadModules(root, "6.1.0-x", name)
			require.ErrorContains(t, err, name)
		}
		_, err = ReadModules(root, "6.2", "overlay")
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = ReadModules(root, "../modules/5.0", "unused")
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}

func FuzzDepends(f *testing.F) {
	f.Add(ko(f, "a,b"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = depends(data) })
}

func bzImage(version string) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	copy(b[0x300:], version)
	return b
}

func TestKernelVersion(t *testing.T) {
	got, err := KernelVersion(bytes.NewReader(bzImage("6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1")))
	require.NoError(t, err)
	require.Equal(t, "6.1.0-56-cloud-amd64", got)
	for _, b := range [][]byte{nil, []byte("MZ"), make([]byte, 4096), bzImage(""), bzImage("no-space"), bzImage("a/b "), bzImage("x ")[:0x300]} {
		_, err := KernelVersion(bytes.NewReader(b))
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}

func FuzzKernelVersion(f *testing.F) {
	f.Add(bzImage("6.1 x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := KernelVersion(bytes.NewReader(b)); err == nil {
			require.NotContains(t, v, "/")
		}
	})
}
