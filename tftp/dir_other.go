//go:build !unix

package tftp

const openNonblock = 0
