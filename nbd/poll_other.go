//go:build unix && !linux

package nbd

func pollMoment(uintptr) {}
