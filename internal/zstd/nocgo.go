//go:build !cgo

package zstd

import "github.com/seed-3ec230fa/diskless/squash"

// Name says which it is.
const Name = "Go"

// MaxLevel is the highest level.
const MaxLevel = 4

// Compressor is the default one.
func Compressor() squash.Compressor { return squash.Zstd{} }

// Level is the one of a level from 1 to MaxLevel.
func Level(n int) squash.Compressor { return squash.Zstd{Level: n} }

// Small is the one for [squash.ForMemory].
func Small() squash.Compressor { return squash.ForMemory().Compressor }
