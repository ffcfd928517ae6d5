//go:build cgo

package zstd

import (
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/libzstd"
)

// Name says which it is.
const Name = "libzstd " + libzstd.Version

// Compressor is the default one.
func Compressor() squash.Compressor { return libzstd.Zstd{} }

// Small is the one for [squash.ForMemory]. Level 9 takes a tenth more time for
// less than a thousandth of the size.
func Small() squash.Compressor { return libzstd.Zstd{Level: 8} }
