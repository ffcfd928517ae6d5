package etcdtest

import "syscall"

// DieWithParent lets no process outlive the test.
func DieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
