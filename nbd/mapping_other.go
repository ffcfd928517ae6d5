//go:build !linux

package nbd

import "os"

const canMap = false

// MapFile fails with an error that wraps [errors.ErrUnsupported]: Mappings are
// Linux's here.
func MapFile(*os.File, int64) (*Mapping, error) { return nil, unsupported("be mapped") }

func unmap([]byte) error               { return nil }
func revoke([]byte) error              { return nil }
func fileReaches(*os.File, int64) bool { return false }
