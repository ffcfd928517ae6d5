//go:build !linux

package dhcp

import "os"

// dataSync flushes a file.
type dataSync struct{}

func newDataSync() (s dataSync) { return s }

func (dataSync) close() {}

func (dataSync) sync(f *os.File) error { return f.Sync() }
