package squash_test

import (
	"bytes"
	"context"
	"fmt"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/squash"
)

func ExampleForMemory() {
	tree := fstest.MapFS{"etc/motd": {Data: []byte("Welcome.\n"), Mode: 0o644}}
	opts := squash.ForMemory()
	opts.OmitXattrs = true
	var image memory
	if err := squash.Build(context.Background(), &image, squash.FromFS(tree), opts); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(bytes.NewReader(image.b))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(root.Info().Compressor, root.Info().BlockSize)
	// Output: zstd 1048576
}
