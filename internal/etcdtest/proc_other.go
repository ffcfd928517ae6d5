//go:build !linux

package etcdtest

import "syscall"

// DieWithParent is for Linux.
func DieWithParent() *syscall.SysProcAttr { return nil }
