//go:build !cgo

package zstd

import "github.com/seed-3ec230fa/diskless/squash"

// Name says which it is.
const Name = "Go"

// Compressor is the default one.
func Compressor() squash.Compressor { return squash.Zstd{} }

// Small is the one for [squash.ForMemory].
func Small() squash.Compressor { return squash.ForMemory().Compressor }
