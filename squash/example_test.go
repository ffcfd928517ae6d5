package squash_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/squash"
)

func ExampleBuild() {
	tree := fstest.MapFS{
		"etc":            {Mode: fs.ModeDir | 0o755},
		"etc/os-release": {Mode: 0o644, Data: []byte("NAME=diskless\n")},
		"etc/shadow":     {Mode: 0o640, Data: []byte("root:*::\n"), Sys: &squash.Stat{Gid: 42}},
		"bin":            {Mode: fs.ModeSymlink | 0o777, Data: []byte("usr/bin")},
		"usr":            {Mode: fs.ModeDir | 0o755},
		"usr/bin":        {Mode: fs.ModeDir | 0o755},
		"usr/bin/su":     {Mode: fs.ModeSetuid | 0o755, Data: []byte("#!/bin/sh\n")},
	}
	var image memory // an io.WriterAt, as *os.File is
	if err := squash.Build(context.Background(), &image, squash.FromFS(tree), nil); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(image.b), "bytes")

	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"etc/os-release", "etc/shadow", "bin/su"} {
		fi, err := fs.Stat(root, name)
		if err != nil {
			fmt.Println(err)
			return
		}
		st := fi.Sys().(*squash.Stat)
		fmt.Println(fi.Mode(), st.Uid, st.Gid, fi.Size(), name)
	}
	// Output:
	// 4096 bytes
	// -rw-r--r-- 0 0 14 etc/os-release
	// -rw-r----- 0 42 9 etc/shadow
	// urwxr-xr-x 0 0 10 bin/su
}

func ExampleBuildFile() {
	dir, err := os.MkdirTemp("", "squash")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	_ = os.MkdirAll(filepath.Join(tree, "etc"), 0o755)
	_ = os.WriteFile(filepath.Join(tree, "etc/motd"), []byte("hello\n"), 0o644)

	path := filepath.Join(dir, "root.squashfs")
	err = squash.BuildFile(context.Background(), path, squash.Dir(tree), &squash.Options{
		Progress: func(p squash.Progress) {
			if p.Done {
				fmt.Println(p.Entries, "entries,", p.Read, "bytes, image of", p.Written)
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := os.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	root, err := squash.Open(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	motd, err := fs.ReadFile(root, "etc/motd")
	fmt.Printf("%s%v\n", motd, err)
	// Output:
	// 3 entries, 6 bytes, image of 4096
	// hello
	// <nil>
}

func ExampleOpen() {
	var image memory
	if err := squash.Build(context.Background(), &image, squash.FromFS(fstest.MapFS{"vmlinuz": {Data: []byte("kernel")}}), nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	info := root.Info()
	fmt.Println(info.Compressor, info.BlockSize, info.Inodes)
	b, err := root.ReadFile("vmlinuz")
	fmt.Println(string(b), err)

	_, err = squash.Open(strings.NewReader(strings.Repeat("x", 4096)))
	var damaged *squash.FormatError
	fmt.Println(errors.As(err, &damaged), err)
	// Output:
	// zstd 131072 2
	// kernel <nil>
	// true squash: damaged image: at byte 0: no SquashFS image: it begins with 0x78787878
}
