//go:build cgo

package libzstd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/libzstd"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	tree := fstest.MapFS{"etc/motd": {Data: []byte(strings.Repeat("Welcome.\n", 1000)), Mode: 0o644}}
	path := filepath.Join(dir, "root.squashfs")
	opts := &squash.Options{Compressor: libzstd.Zstd{Level: 19}}
	if err := squash.BuildFile(context.Background(), path, squash.FromFS(tree), opts); err != nil {
		fmt.Println(err)
		return
	}
	image, err := os.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	root, err := squash.Open(image)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(root.Info().Compressor)
	// Output: zstd
}
