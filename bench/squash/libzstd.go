//go:build linux && cgo

package main

import (
	"github.com/seed-3ec230fa/diskless/squash"
	clib "github.com/seed-3ec230fa/diskless/squash/libzstd"
)

func libzstdLevel(level int) squash.Compressor { return clib.Zstd{Level: level} }
