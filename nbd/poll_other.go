//go:build unix && !linux

package nbd

func (*reader) linger(uintptr) {}
