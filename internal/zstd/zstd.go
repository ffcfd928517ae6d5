// Package zstd is the Zstandard compressor that the binaries build images
// with: the C library's when they are built with cgo, else the one in Go.
package zstd
