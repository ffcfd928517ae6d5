//go:build !linux

package nbd

import "os"

func datasync(f *os.File) error { return f.Sync() }
