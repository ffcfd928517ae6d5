package ltsconf

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// For returns one client's view of a boot server's files: its own lts.conf,
// resolved and safe to evaluate, and nothing of what is meant for others. It
// is rendered once, so that a size probe and the read that follows see the
// same bytes. What cannot be rendered is the error of [Settings.WriteTo].
//
// Since clients ask in the directory of their kernel, which differs between
// loaders, the file is there in every directory: any valid path that ends in
// lts.conf opens it. Directory listings show it under [Names] for the
// architectures that LTSP 5 knows. A server has to take off leading slashes
// first, as an [fs.FS] knows none. names are further file names, for images
// with the setting LTSCONF.
//
// Whose view to serve is the caller's decision. Give an unknown client
// For(Client{}), which has what is in Default, or nothing.
func (f *File) For(c Client, names ...string) (fs.FS, error) {
	var b bytes.Buffer
	if _, err := Collect(f.Resolve(c)).WriteTo(&b); err != nil {
		return nil, err
	}
	return &clientFS{text: b.String(), names: append([]string{"lts.conf"}, names...)}, nil
}

type clientFS struct {
	text  string
	names []string
}

// listed are the paths that directory listings show.
func (c *clientFS) listed() []string {
	var out []string
	for _, arch := range []string{"amd64", "arm64", "armhf", "i386"} {
		for _, n := range c.names {
			out = append(out, "ltsp/"+arch+"/"+n)
		}
	}
	return append(out, c.names...)
}

// Open implements [fs.FS].
func (c *clientFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if slices.Contains(c.names, path.Base(name)) && !strings.Contains(name, `\`) {
		return &clientFile{Reader: strings.NewReader(c.text), info: info{path.Base(name), int64(len(c.text))}}, nil
	}
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	var entries []fs.DirEntry
	for _, p := range c.listed() {
		rest, ok := strings.CutPrefix(p, prefix)
		if !ok {
			continue
		}
		first, _, isDir := strings.Cut(rest, "/")
		e := info{first, int64(len(c.text))}
		if isDir {
			e.size = -1
		}
		if !slices.ContainsFunc(entries, func(d fs.DirEntry) bool { return d.Name() == first }) {
			entries = append(entries, fs.FileInfoToDirEntry(e))
		}
	}
	if entries == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return &clientDir{info{path.Base(name), -1}, entries}, nil
}

// clientFile reads, seeks and reads at offsets.
type clientFile struct {
	*strings.Reader
	info info
}

func (f *clientFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *clientFile) Close() error               { return nil }

type clientDir struct {
	info    info
	entries []fs.DirEntry
}

func (d *clientDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *clientDir) Close() error               { return nil }
func (d *clientDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: fs.ErrInvalid}
}

func (d *clientDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.entries
		d.entries = nil
		return out, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	out := d.entries[:n]
	d.entries = d.entries[n:]
	return out, nil
}

// info describes a file, or a directory when its size is -1.
type info struct {
	name string
	size int64
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return max(i.size, 0) }
func (i info) Mode() fs.FileMode {
	if i.size < 0 {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.size < 0 }
func (i info) Sys() any           { return nil }
