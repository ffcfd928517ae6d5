package squash_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/squash"
)

// member is an entry of an archive; typ 0 is a file, or what data says.
type member struct {
	name string
	typ  byte
	data string // or the target of a link
	mode int64
	pax  map[string]string
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.typ, Mode: m.mode, PAXRecords: m.pax, ModTime: time.Unix(1580608922, 0), Format: tar.FormatPAX}
		switch {
		case m.typ == 0 && strings.HasSuffix(m.name, "/"):
			h.Typeflag = tar.TypeDir
		case m.typ == 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(m.data))
		default:
			h.Linkname = m.data
		}
		if m.mode == 0 {
			h.Mode = 0o644
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, m.data)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func layer(t testing.TB, members ...member) squash.Layer {
	b := archive(t, members...)
	return squash.Layer{Name: "layer", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

// build makes an image of a source and opens it.
func build(t testing.TB, src squash.Source) *squash.FS {
	t.Helper()
	var m memory
	require.NoError(t, squash.Build(t.Context(), &m, src, nil))
	return open(t, m.b)
}

// contents renders a tree as "name=content", links as "name->target", names
// of one file as "name=first".
func contents(t testing.TB, f *squash.FS) []string {
	t.Helper()
	var out []string
	for e, err := range f.Entries(t.Context()) {
		require.NoError(t, err)
		switch {
		case e.Path == ".":
		case e.Mode.IsDir():
			out = append(out, e.Path+"/")
		case e.Mode&fs.ModeSymlink != 0:
			out = append(out, e.Path+"->"+e.Target)
		case e.Mode.IsRegular():
			s := e.Path + "=" + string(readAll(t, f, e.Path))
			if e.Nlink > 1 {
				s += fmt.Sprintf(" x%d", e.Nlink)
			}
			out = append(out, s)
		default:
			out = append(out, e.Path+" "+e.Mode.Type().String())
		}
	}
	slices.Sort(out)
	return out
}

func TestLayers(t *testing.T) {
	type L = []member
	link := byte(tar.TypeLink)
	for _, tt := range []struct {
		name   string
		layers []L
		want   []string
	}{
		{"upper wins", []L{{{name: "a", data: "1"}, {name: "b", data: "1"}}, {{name: "a", data: "2"}}}, []string{"a=2", "b=1"}},
		{"directories merge", []L{{{name: "d/"}, {name: "d/a", data: "1"}}, {{name: "d/"}, {name: "d/b", data: "2"}}}, []string{"d/", "d/a=1", "d/b=2"}},
		{"whiteout", []L{{{name: "d/a", data: "1"}, {name: "d/b", data: "1"}}, {{name: "d/.wh.a"}}}, []string{"d/", "d/b=1"}},
		{"whiteout of a directory", []L{{{name: "d/x/a", data: "1"}, {name: "d/b", data: "1"}}, {{name: "d/.wh.x"}}}, []string{"d/", "d/b=1"}},
		{"whiteout and a new one, in both orders", []L{{{name: "d/a", data: "1"}, {name: "e/a", data: "1"}}, {{name: "d/a", data: "2"}, {name: "d/.wh.a"}, {name: "e/.wh.a"}, {name: "e/a", data: "2"}}}, []string{"d/", "d/a=2", "e/", "e/a=2"}},
		{"whiteout hides old children of a new directory", []L{{{name: "a/"}, {name: "a/x", data: "1"}}, {{name: ".wh.a"}, {name: "a/"}, {name: "a/y", data: "2"}}}, []string{"a/", "a/y=2"}},
		{"opaque, at the end", []L{{{name: "d/a", data: "1"}, {name: "d/s/b", data: "1"}}, {{name: "d/c", data: "2"}, {name: "d/.wh..wh..opq"}}}, []string{"d/", "d/c=2"}},
		{"opaque root", []L{{{name: "a", data: "1"}}, {{name: ".wh..wh..opq"}, {name: "b", data: "2"}}}, []string{"b=2"}},
		{"opaque keeps what is above", []L{{{name: "d/a", data: "1"}}, {{name: "d/.wh..wh..opq"}}, {{name: "d/a", data: "3"}}}, []string{"d/", "d/a=3"}},
		{"other bookkeeping", []L{{{name: "a", data: "1"}}, {{name: ".wh..wh.plnk/"}, {name: ".wh..wh.aufs"}}}, []string{"a=1"}},
		{"links of aufs", []L{{{name: "d/"}, {name: ".wh..wh.plnk/1.2", data: "1"}, {name: "a", typ: link, data: ".wh..wh.plnk/1.2"}, {name: "d/b", typ: link, data: ".wh..wh.plnk/1.2"}, {name: "d/.wh..wh.orph/x/"}, {name: "d/.wh..wh.orph/x/y", data: "1"}},
			{{name: "./.wh..wh.plnk/3.4", typ: link, data: "a"}, {name: "c", typ: link, data: "./.wh..wh.plnk/3.4"}, {name: ".wh.a"}, {name: ".wh..wh.plnk/d/"}}}, []string{"c=1 x2", "d/", "d/b=1 x2"}},
		{"missing whiteout target", []L{{{name: "a", data: "1"}}, {{name: ".wh.b"}, {name: "c/.wh.d"}}}, []string{"a=1"}},
		{"file over a directory", []L{{{name: "d/a", data: "1"}}, {{name: "d", data: "2"}}}, []string{"d=2"}},
		{"directory over a file", []L{{{name: "d", data: "1"}}, {{name: "d/"}}}, []string{"d/"}},
		{"what a file hid stays hidden", []L{{{name: "d/x", data: "1"}}, {{name: "d", data: "2"}}, {{name: "d/"}, {name: "d/y", data: "3"}}}, []string{"d/", "d/y=3"}},
		{"no lower link is followed", []L{{{name: "bin", typ: tar.TypeSymlink, data: "/etc"}, {name: "etc/x", data: "1"}}, {{name: "bin/x", data: "2"}}}, []string{"bin/", "bin/x=2", "etc/", "etc/x=1"}},
		{"hard link to a lower file", []L{{{name: "a", data: "1"}}, {{name: "b", typ: link, data: "a"}}}, []string{"a=1 x2", "b=1 x2"}},
		{"to a lower file that is replaced above", []L{{{name: "a", data: "1"}}, {{name: "b", typ: link, data: "a"}}, {{name: "a", data: "3"}}}, []string{"a=3", "b=1"}},
		{"to a lower file that is removed above", []L{{{name: "a", data: "1"}}, {{name: "b", typ: link, data: "a"}}, {{name: ".wh.a"}}}, []string{"b=1"}},
		{"replaced in the same layer after the link", []L{{{name: "a", data: "1"}}, {{name: "b", typ: link, data: "a"}, {name: "a", data: "2"}}}, []string{"a=2", "b=1"}},
		{"to a name that a middle layer replaced", []L{{{name: "a", data: "1"}}, {{name: "a", data: "2"}}, {{name: "b", typ: link, data: "a"}}, {{name: "a", data: "4"}}}, []string{"a=4", "b=2"}},
		{"first name hidden, link after it", []L{{{name: "a", data: "1"}, {name: "b", typ: link, data: "a"}, {name: "c", typ: link, data: "a"}}, {{name: "a", data: "2"}}}, []string{"a=2", "b=1 x2", "c=1 x2"}},
		{"chain through layers", []L{{{name: "a", data: "1"}}, {{name: "b", typ: link, data: "a"}}, {{name: "c", typ: link, data: "b"}, {name: ".wh.b"}}, {{name: ".wh.a"}}}, []string{"c=1"}},
		{"duplicates: the last wins", []L{{{name: "a", data: "1"}, {name: "a", data: "22"}, {name: "d", data: "1"}, {name: "d/"}, {name: "d/x", data: "3"}, {name: "e/x", data: "1"}, {name: "e", data: "4"}}}, []string{"a=22", "d/", "d/x=3", "e=4"}},
		{"names", []L{{{name: "/abs", data: "1"}, {name: "./rel", data: "1"}, {name: "x/../y", data: "1"}, {name: "./", mode: 0o700}}}, []string{"abs=1", "rel=1", "y=1"}},
		{"links of special files", []L{{{name: "p", typ: tar.TypeFifo}, {name: "p2", typ: link, data: "p"}, {name: "s", typ: tar.TypeSymlink, data: "x"}, {name: "s2", typ: link, data: "/s"}}}, []string{"p p---------", "p2 p---------", "s->x", "s2->x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var layers []squash.Layer
			for _, l := range tt.layers {
				layers = append(layers, layer(t, l...))
			}
			require.Equal(t, tt.want, contents(t, build(t, squash.Layers(layers...))))
		})
	}
}

func TestLayerAttributes(t *testing.T) {
	f := build(t, squash.Layers(
		layer(t, member{name: "d/", mode: 0o700}, member{name: "d/a"}, member{name: "e/", mode: 0o711}, member{name: "g/", mode: 0o700}),
		layer(t, member{name: "d/", mode: 0o4755, pax: map[string]string{"SCHILY.xattr.user.up": "2", "SCHILY.xattr.trusted.overlay.opaque": "y"}}, member{name: "e/x"}, member{name: "f/y"}, member{name: ".wh.g"}, member{name: "g/z"}),
	))
	for name, want := range map[string]fs.FileMode{"d": fs.ModeDir | fs.ModeSetuid | 0o755, "e": fs.ModeDir | 0o711, "f": fs.ModeDir | 0o755, "g": fs.ModeDir | 0o755, ".": fs.ModeDir | 0o755} {
		fi, err := f.Lstat(name)
		require.NoError(t, err)
		require.Equal(t, want, fi.Mode(), name)
	}
	fi, err := f.Lstat("d")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"user.up": []byte("2")}, fi.Sys().(*squash.Stat).Xattrs)
}

func TestArchivesThatCannotBeBuilt(t *testing.T) {
	whole := archive(t, member{name: "a", data: "1"})
	huge := archive(t, member{name: "a", data: strings.Repeat("x", 2000)})
	for _, tt := range []struct {
		name string
		b    []byte
		text string
	}{
		{"escape", archive(t, member{name: "../a"}), "leads out of the tree"},
		{"escape within", archive(t, member{name: "x/../../a"}), "leads out of the tree"},
		{"link escapes", archive(t, member{name: "a", typ: tar.TypeLink, data: "../../etc/shadow"}), "leads out"},
		{"link to nothing", archive(t, member{name: "a", typ: tar.TypeLink, data: "b"}), "not in the archive"},
		{"link to itself", archive(t, member{name: "a", typ: tar.TypeLink, data: "a"}), "not in the archive"},
		{"below a link", archive(t, member{name: "l", typ: tar.TypeSymlink, data: "/etc"}, member{name: "l/passwd"}), `has "l", which is no directory`},
		{"file as root", archive(t, member{name: "."}), "file for its root"},
		{"cut between files", whole[:1024], "no end"},
		{"cut in a file's data", huge[:2000], "the archive is cut short"},
		{"cut in a file", huge[:2600], "the archive is cut short"},
		{"nothing", nil, "no end"},
		{"no archive", noise(1, 4096), "tar"},
		{"xz", append([]byte("\xfd7zXZ\x00"), whole...), "xz or bzip2"},
		{"base64", archive(t, member{name: "a", pax: map[string]string{"LIBARCHIVE.xattr.user.a": "!!"}}), "LIBARCHIVE.xattr.user.a"},
		{"long path", archive(t, member{name: strings.Repeat("d/", 2048) + "f"}), "4097 bytes in its name"},
		{"long name", archive(t, member{name: strings.Repeat("n", 256)}), "255"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m memory
			err := squash.Build(t.Context(), &m, squash.Tar(bytes.NewReader(tt.b)), nil)
			require.ErrorContains(t, err, tt.text)
			_, err = squash.Open(m.reader())
			require.Error(t, err)
		})
	}
	for _, o := range []squash.Options{{MaxEntries: 2}, {MaxFileSize: 1999}} {
		many := archive(t, member{name: "a/b/c", data: "1"}, member{name: "d", data: strings.Repeat("x", 2000)})
		require.ErrorContains(t, squash.Build(t.Context(), &memory{}, squash.Tar(bytes.NewReader(many)), &o), "Options.Max")
	}
	once := squash.Tar(bytes.NewReader(whole))
	require.NoError(t, squash.Build(t.Context(), &memory{}, once, nil))
	require.ErrorContains(t, squash.Build(t.Context(), &memory{}, once, nil), "read once")
}

// GNU tar's archives of the torture tree, in its formats, give the tree.
func TestTarOfTortureTree(t *testing.T) {
	need(t, "root", "tar")
	root := torture(t, 131072, 1000)
	want := describe(t, dirFS(root))
	for name, line := range want { // GNU tar has no sockets, and no hard links of devices
		if strings.HasPrefix(line, fs.ModeSocket.String()[:1]) || name == "fifo2" || name == "null2" {
			require.NoError(t, os.Remove(filepath.Join(root, name)))
		}
	}
	times := []unix.Timespec{{Sec: 1580608922}, {Sec: 1580608922}}
	for _, dir := range []string{".", "sub"} {
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, dir), times, 0))
	}
	want = describe(t, dirFS(root))
	for _, args := range [][]string{
		{"--format=posix", "--xattrs", "--xattrs-include=*", "--sparse"},
		{"--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"},
		{"--format=posix", "--xattrs", "--xattrs-include=*"},
		{"--format=posix", "--xattrs", "--xattrs-include=*", "--gzip"},
	} {
		t.Run(strings.Join(args, ""), func(t *testing.T) {
			cmd := exec.Command("tar", append(args, "-C", root, "-cf", "-", ".")...)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			got := describe(t, build(t, squash.Tar(stdout)))
			require.NoError(t, cmd.Wait())
			requireSame(t, want, got)
		})
	}
	t.Run("GNU", func(t *testing.T) { // has no extended attributes
		out, err := exec.Command("tar", "--format=gnu", "--sparse", "-C", root, "-cf", "-", ".").Output()
		require.NoError(t, err)
		got := describe(t, build(t, squash.Tar(bytes.NewReader(out))))
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
		for name, line := range want {
			bare, _, _ := strings.Cut(line, " security.")
			bare, _, _ = strings.Cut(bare, " trusted.")
			bare, _, _ = strings.Cut(bare, " user.")
			require.Equal(t, bare, got[name])
		}
	})
}

// A name and a link's target keep no memory of the header that they came in.
func TestTarKeepsNoHeaders(t *testing.T) {
	pax := map[string]string{"comment.of.somebody": strings.Repeat("x", 500_000), "SCHILY.xattr.user.a": "b"}
	var members []member
	for i := range 60 {
		members = append(members, member{name: strings.Repeat("n", 200) + fmt.Sprint("/", i), pax: pax, typ: tar.TypeSymlink, data: strings.Repeat("t", 200)})
	}
	b := archive(t, members...)
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, src := range []squash.Source{squash.Tar(bytes.NewReader(b)), squash.Layers(layer(t, members...), layer(t, members...))} {
		n, before, most := 0, heap(), 0
		require.NoError(t, squash.Build(t.Context(), &memory{}, squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
			return func(yield func(*squash.Entry, error) bool) {
				for e, err := range src.Entries(ctx) {
					if !yield(e, err) {
						return
					}
					if n++; n == len(members)-1 {
						most = heap() - before
					}
				}
			}
		}), nil))
		require.Less(t, most, 12<<20)
	}
}

func TestCompressedTar(t *testing.T) {
	plain := archive(t, member{name: "a", data: "1", pax: map[string]string{"LIBARCHIVE.xattr.user.a%20b": "AP8", "SCHILY.xattr.user.n": "x\x00y"}})
	var gz, zs bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, _ = zw.Write(plain)
	require.NoError(t, zw.Close())
	enc, err := zstd.NewWriter(&zs)
	require.NoError(t, err)
	_, _ = enc.Write(plain)
	require.NoError(t, enc.Close())
	for _, b := range [][]byte{plain, gz.Bytes(), zs.Bytes()} {
		f := build(t, squash.Tar(bytes.NewReader(b)))
		require.Equal(t, []string{"a=1"}, contents(t, f))
		fi, err := f.Stat("a")
		require.NoError(t, err)
		require.Equal(t, map[string][]byte{"user.a b": {0, 255}, "user.n": []byte("x\x00y")}, fi.Sys().(*squash.Stat).Xattrs)
	}
	for _, b := range [][]byte{gz.Bytes(), zs.Bytes()} {
		require.Error(t, squash.Build(t.Context(), &memory{}, squash.Tar(bytes.NewReader(b[:len(b)-3])), nil))
	}
}

func FuzzTar(f *testing.F) {
	f.Add(archive(f, member{name: "a/"}, member{name: "a/b", data: "text"}, member{name: "l", typ: tar.TypeLink, data: "a/b"}), archive(f, member{name: "a/.wh.b"}, member{name: "c", typ: tar.TypeLink, data: "a/b"}))
	f.Add(archive(f, member{name: "a", data: "text"}), archive(f, member{name: ".wh..wh..opq"}, member{name: "a/b", typ: tar.TypeSymlink, data: ".."}))
	f.Add(archive(f, member{name: "a", pax: map[string]string{"SCHILY.xattr.user.a": "b"}}), []byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		mk := func(b []byte) squash.Layer {
			return squash.Layer{Name: "l", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
		}
		var m memory
		if squash.Build(t.Context(), &m, squash.Layers(mk(lower), mk(upper)), &squash.Options{BlockSize: 4096, Workers: 1, MaxFileSize: 1 << 20}) != nil {
			return
		}
		for e, err := range open(t, m.b).Entries(t.Context()) { // what is built can be read
			require.NoError(t, err)
			if e.Open != nil {
				r, err := e.Open()
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, r)
				require.NoError(t, err)
			}
		}
	})
}
