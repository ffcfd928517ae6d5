//go:build !linux

package etcdstore

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
