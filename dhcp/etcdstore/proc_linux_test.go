package etcdstore

import "syscall"

// dieWithParent lets no process outlive the test.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
