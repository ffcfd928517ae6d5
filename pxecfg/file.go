package pxecfg

import (
	"bytes"
	"io/fs"
	"path"
	"time"
)

// file is a rendered file. It is complete when it is opened, so its size holds
// for every read. Besides fs.File it is an io.ReaderAt, io.Seeker and
// io.WriterTo, and its own fs.FileInfo.
//
// Its time is the zero time: there is no time at which it was changed, and it
// must be the same for a probe and the next read. Whoever caches by name, size
// and time must leave out files without a time.
type file struct {
	*bytes.Reader
	path       string
	data       []byte
	dispatcher bool
}

var (
	_ fs.File     = (*file)(nil)
	_ fs.FileInfo = (*fileInfo)(nil)
)

func newFile(name string, data []byte, dispatcher bool) *file {
	return &file{Reader: bytes.NewReader(data), path: name, data: data, dispatcher: dispatcher}
}

func (f *file) Stat() (fs.FileInfo, error) {
	return &fileInfo{path.Base(f.path), int64(len(f.data))}, nil
}

func (f *file) Close() error { return nil }

type fileInfo struct {
	name string
	size int64
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.size }
func (i *fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i *fileInfo) ModTime() time.Time { return time.Time{} }
func (i *fileInfo) IsDir() bool        { return false }
func (i *fileInfo) Sys() any           { return nil }
