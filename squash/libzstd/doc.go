// Package libzstd compresses SquashFS images with the C library's Zstandard,
// which costs about half the CPU time of package squash's own [squash.Zstd] at
// the same size and has levels up to 22:
//
//	opts := &squash.Options{Compressor: libzstd.Zstd{Level: 9}}
//
// It needs cgo and a C compiler, no library that is installed: the sources
// come with github.com/DataDog/zstd. Without cgo the package is empty, so that
// a program that can do without it uses it in a file with the build tag cgo.
package libzstd
