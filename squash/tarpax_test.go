package squash_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// globalArchive has global headers, whose members have the type 'g'.
func globalArchive(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o644, Uid: 7, Gid: 8, ModTime: time.Unix(1000, 0), PAXRecords: m.pax, Format: tar.FormatPAX}
		if m.typ == tar.TypeXGlobalHeader {
			h = &tar.Header{Name: "g", Typeflag: m.typ, PAXRecords: m.pax, Format: tar.FormatPAX}
		}
		require.NoError(t, w.WriteHeader(h))
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestGlobalHeaders(t *testing.T) {
	global := func(pax map[string]string) member { return member{typ: tar.TypeXGlobalHeader, pax: pax} }
	const big = "70000"
	b := globalArchive(t,
		member{name: "before"},
		global(map[string]string{"uid": "1234", "mtime": "2000.5", "comment": "of git archive"}),
		member{name: "uid"},
		global(map[string]string{"gid": big}),
		member{name: "both"},
		global(map[string]string{"uid": "", "mtime": "3000"}),
		member{name: "gid"},
	)
	type owner struct{ uid, gid, sec uint32 }
	want := map[string]owner{"before": {7, 8, 1000}, "uid": {1234, 8, 2000}, "both": {1234, 70000, 2000}, "gid": {7, 70000, 3000}}
	f := build(t, squash.Tar(bytes.NewReader(b)))
	for name, w := range want {
		fi, err := f.Stat(name)
		require.NoError(t, err)
		st := fi.Sys().(*squash.Stat)
		require.Equal(t, w, owner{st.Uid, st.Gid, uint32(fi.ModTime().Unix())}, name)
	}
	// What an entry says itself holds.
	own := globalArchive(t, member{name: "a"})
	g := globalArchive(t, global(map[string]string{"uid": "5", "mtime": "-1.5"}))
	var pax bytes.Buffer
	w := tar.NewWriter(&pax)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "b", Uid: 3_000_000, ModTime: time.Unix(1000, 5), Format: tar.FormatPAX}))
	require.NoError(t, w.Close())
	b = append(append(g[:len(g)-1024:len(g)-1024], pax.Bytes()[:pax.Len()-1024]...), own...)
	for e, err := range squash.Tar(bytes.NewReader(b)).Entries(t.Context()) {
		require.NoError(t, err)
		switch e.Path {
		case "a":
			require.Equal(t, uint32(5), e.Uid)
			require.True(t, e.ModTime.Equal(time.Unix(-2, 5e8)), e.ModTime)
		case "b":
			require.Equal(t, uint32(3_000_000), e.Uid)
			require.True(t, e.ModTime.Equal(time.Unix(1000, 5)), e.ModTime)
		}
	}
	// Each layer has its own.
	layers := squash.Layers(layer(t, member{name: "low"}), layerOf(b))
	fi, err := build(t, layers).Stat("low")
	require.NoError(t, err)
	require.Equal(t, uint32(0), fi.Sys().(*squash.Stat).Uid)
}

func TestGlobalHeadersThatAreRefused(t *testing.T) {
	for key, value := range map[string]string{
		"path": "x", "linkpath": "x", "uid": "-1", "size": "5", "gid": "4294967296", "mtime": "soon", "SCHILY.xattr.user.a": "x",
		"SCHILY.acl.access": "x", "SCHILY.fflags": "x", "LIBARCHIVE.xattr.user.a": "eA", "RHT.security.selinux": "x",
	} {
		b := globalArchive(t, member{typ: tar.TypeXGlobalHeader, pax: map[string]string{key: value}}, member{name: "a"})
		require.ErrorContains(t, buildError(t, squash.Tar(bytes.NewReader(b)), nil), "a global header", key)
	}
}

func TestTarXattrs(t *testing.T) {
	label := "system_u:object_r:etc_t:s0"
	for range 20 { // the order in a map is another each time
		f := build(t, squash.Tar(bytes.NewReader(archive(t,
			member{name: "a", pax: map[string]string{"RHT.security.selinux": label, "LIBARCHIVE.xattr.user.n": "bGliYXJjaGl2ZQ", "SCHILY.xattr.user.n": "schily"}},
			member{name: "b", pax: map[string]string{"RHT.security.selinux": label, "SCHILY.xattr.security.selinux": "other\x00"}},
		))))
		for name, want := range map[string]map[string][]byte{
			"a": {"security.selinux": []byte(label + "\x00"), "user.n": []byte("schily")},
			"b": {"security.selinux": []byte("other\x00")},
		} {
			fi, err := f.Stat(name)
			require.NoError(t, err)
			require.Equal(t, want, fi.Sys().(*squash.Stat).Xattrs)
		}
	}
}

// What the format has no place for is counted and logged, or an error.
func TestTarDropsAreCounted(t *testing.T) {
	for key, name := range map[string]string{
		"SCHILY.acl.access":  "system.posix_acl_access",
		"SCHILY.acl.default": "system.posix_acl_default",
		"SCHILY.acl.ace":     "SCHILY.acl.ace",
		"SCHILY.fflags":      "SCHILY.fflags",
	} {
		src := func() squash.Source {
			return squash.Tar(bytes.NewReader(archive(t, member{name: "d/", pax: map[string]string{key: "user::rwx"}})))
		}
		var log bytes.Buffer
		var last squash.Progress
		require.NoError(t, squash.Build(t.Context(), &memory{}, src(), &squash.Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)), Progress: func(p squash.Progress) { last = p },
		}))
		require.Equal(t, 1, last.DroppedXattrs, key)
		require.Contains(t, log.String(), name)
		err := squash.Build(t.Context(), &memory{}, src(), &squash.Options{Strict: true})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		var pe *fs.PathError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, "d", pe.Path)
	}
}

func layerOf(b []byte) squash.Layer {
	return squash.Layer{Name: "layer", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}
