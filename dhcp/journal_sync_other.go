//go:build !linux

package dhcp

import "os"

func syncData(f *os.File) error { return f.Sync() }
