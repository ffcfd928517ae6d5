package tftp

import "syscall"

// dropFileRights takes root's way around permissions from this thread.
func dropFileRights() error { return syscall.Setfsuid(65534) }
