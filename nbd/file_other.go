//go:build !linux

package nbd

// Holes are Linux's here: elsewhere a File can be read, written and flushed.
const (
	fileTrims   = false
	fileExtents = false
)
