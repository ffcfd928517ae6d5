package squash_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/accept"
	"github.com/seed-3ec230fa/diskless/squash"
)

// What Linux takes, Verify finds nothing wrong with, and the other way about:
// every file of every image is read.
func TestVerifyAgreesWithLinux(t *testing.T) {
	need(t, "root", "mount", "unshare", "sh", "sha256sum")
	images, err := accept.Images()
	require.NoError(t, err)
	dir := t.TempDir()
	var names []string
	for _, i := range images {
		require.NoError(t, os.WriteFile(filepath.Join(dir, i.Name), i.Data, 0o600))
		names = append(names, i.Name)
	}
	unshare, err := lookTool("unshare")
	require.NoError(t, err)
	cmd := exec.Command(unshare, append([]string{"--mount", "--propagation", "private", "sh", "-c", accept.Script + `
mkdir mnt
for i; do
	if mount -t squashfs -o loop,ro "$i" mnt; then
		echo "$i $(sum mnt)"
		umount mnt
	else
		echo "$i not mounted"
	fi
done 2>/dev/null`, "sh"}, names...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	require.NoError(t, err)
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, sum, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = sum
	}
	want, tree := accept.Sum(), accept.Tree()
	for _, i := range images {
		var found []error
		for d, err := range squash.Verify(t.Context(), bytes.NewReader(i.Data), nil) {
			if err == nil {
				err = d
			} else {
				require.ErrorIs(t, err, errors.ErrUnsupported, i.Name)
			}
			found = append(found, err)
		}
		if !i.Taken {
			require.True(t, i.Built || want != got[i.Name], "%s: Linux reads it", i.Name)
			require.NotEmpty(t, found, i.Name)
			continue
		}
		require.Equal(t, want, got[i.Name], "%s: Linux does not read it", i.Name)
		require.Empty(t, found, i.Name)
		f, err := squash.Open(bytes.NewReader(i.Data))
		require.NoError(t, err)
		for name, file := range tree {
			require.True(t, bytes.Equal(file.Data, readAll(t, f, name)), "%s: %s", i.Name, name)
		}
	}
}
