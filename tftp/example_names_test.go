package tftp_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/tftp"
)

func ExampleMux() {
	mux := new(tftp.Mux)
	mux.Handle("/", tftp.FileServerFS(fstest.MapFS{"pxelinux.0": {Data: []byte("a loader")}}))
	mux.Handle("images", tftp.FileServerFS(fstest.MapFS{"vmlinuz": {Data: []byte("a kernel")}}))
	show(mux, "pxelinux.0", "images/vmlinuz", "vmlinuz")
	// Output:
	// pxelinux.0: a loader
	// images/vmlinuz: a kernel
	// vmlinuz: tftp error 1: file not found
}

// The rules of another server's map file.
func ExampleParseMap() {
	rules, err := tftp.ParseMap(strings.NewReader(`
ri  ^[a-z]:/             /           # a drive letter
r   ^ltsp/([^/]+)/(.*)$  \2-\1
a   ^private/
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	files := fstest.MapFS{"vmlinuz-amd64": {Data: []byte("a kernel")}}
	show(&tftp.Rewrite{Rules: rules, Next: tftp.FileServerFS(files)}, `C:\ltsp\amd64\vmlinuz`, "private/key")
	// Output:
	// C:\ltsp\amd64\vmlinuz: a kernel
	// private/key: tftp error 2: access violation
}

func ExampleFoldCase() {
	files := fstest.MapFS{"Boot/BCD": {Data: []byte("settings")}}
	show(tftp.FileServerFS(tftp.FoldCase(files)), `\boot\bcd`)
	// Output:
	// \boot\bcd: settings
}

// A directory that takes crash dumps, beside the files that are served.
func ExampleUploads() {
	dir, err := os.MkdirTemp("", "dumps")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	h := tftp.First(
		tftp.FileServerFS(fstest.MapFS{"vmlinuz": {Data: []byte("a kernel")}}),
		&tftp.Uploads{Root: root, MaxSize: 1 << 30},
	)
	// What the server does with a client's write request:
	up, err := h.(tftp.Uploader).CreateTFTP(context.Background(), &tftp.Request{Name: "node-01.dump", UploadSize: -1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(up, "a dump")
	fmt.Println(up.Commit(), up.Close())
	b, err := fs.ReadFile(root.FS(), "node-01.dump")
	fmt.Println(string(b), err)
	// Output:
	// <nil> <nil>
	// a dump <nil>
}
