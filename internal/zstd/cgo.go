//go:build cgo

package zstd

import (
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/libzstd"
)

// Name says which it is.
const Name = "libzstd " + libzstd.Version

// MaxLevel is the highest level.
const MaxLevel = 22

// Compressor is the default one.
func Compressor() squash.Compressor { return libzstd.Zstd{} }

// Level is the one of a level from 1 to MaxLevel.
func Level(n int) squash.Compressor { return libzstd.Zstd{Level: n} }

// Small is the one for [squash.ForMemory]. Level 9 takes a tenth more time for
// less than a thousandth of the size.
func Small() squash.Compressor { return libzstd.Zstd{Level: 8} }
