package squash_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// tarball makes an archive of names and contents.
func tarball(files ...string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for pair := range slices.Chunk(files, 2) {
		_ = w.WriteHeader(&tar.Header{Name: pair[0], Mode: 0o640, Uid: 1000, Size: int64(len(pair[1]))})
		_, _ = io.WriteString(w, pair[1])
	}
	_ = w.Close()
	return &b
}

func ExampleTar() {
	var image memory
	stream := tarball("./etc/hostname", "node01\n") // os.Stdin, a pipe, a download
	if err := squash.Build(context.Background(), &image, squash.Tar(stream), nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range root.Entries(context.Background()) {
		fmt.Println(e.Mode, e.Uid, e.Size, e.Path, err)
	}
	// Output:
	// drwxr-xr-x 0 0 . <nil>
	// drwxr-xr-x 0 0 etc <nil>
	// -rw-r----- 1000 7 etc/hostname <nil>
}

func ExampleLayers() {
	layer := func(name string, files ...string) squash.Layer {
		b := tarball(files...).Bytes()
		return squash.Layer{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	}
	src := squash.Layers(
		layer("base", "etc/motd", "hello\n", "etc/old", "old\n"),
		layer("top", "etc/motd", "hello again\n", "etc/.wh.old", ""),
	)
	var image memory
	if err := squash.Build(context.Background(), &image, src, nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	motd, _ := fs.ReadFile(root, "etc/motd")
	_, err = root.Stat("etc/old")
	fmt.Println(strings.TrimSpace(string(motd)), err)
	// Output:
	// hello again stat etc/old: file does not exist
}
