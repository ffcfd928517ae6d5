package squash_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// memory is an image in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) reader() *bytes.Reader { return bytes.NewReader(m.b) }

func buildBytes(t testing.TB, src fs.FS, opts *squash.Options) []byte {
	t.Helper()
	var m memory
	from := squash.FromFS(src)
	if s, ok := src.(squash.Source); ok {
		from = s
	}
	require.NoError(t, squash.Build(context.Background(), &m, from, opts))
	require.Zero(t, len(m.b)%4096)
	return m.b
}

func open(t testing.TB, image []byte) *squash.FS {
	t.Helper()
	f, err := squash.Open(bytes.NewReader(image))
	require.NoError(t, err)
	return f
}

// require all: no test may be skipped.
func requireAll() bool { return os.Getenv("DISKLESS_REQUIRE") == "all" }

func skip(t testing.TB, why string) {
	t.Helper()
	if requireAll() {
		t.Fatalf("%s, and DISKLESS_REQUIRE=all", why)
	}
	t.Skip(why)
}

// need finds tools, or skips the test.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if tool == "root" {
			if os.Geteuid() != 0 {
				skip(t, "needs root")
			}
			continue
		}
		if _, err := lookTool(tool); err != nil {
			skip(t, tool+" is not installed")
		}
	}
}

func lookTool(tool string) (string, error) {
	p, err := exec.LookPath(tool)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		p, err = exec.LookPath(filepath.Join(dir, tool))
	}
	return p, err
}

// run runs a tool and returns what it printed.
func run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	p, err := lookTool(tool)
	require.NoError(t, err)
	out, err := exec.Command(p, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", tool, strings.Join(args, " "), out)
	return string(out)
}

func imageFile(t testing.TB, image []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.squashfs")
	require.NoError(t, os.WriteFile(name, image, 0o600))
	return name
}

func readAll(t testing.TB, fsys fs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	require.NoError(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	return b
}
