//go:build linux && race

package nbd

import "syscall"

// happened tells the race detector that what was done before is seen by who
// receives what is sent next. The standard library's own writes say so.
func happened() { _, _ = syscall.Write(-1, nil) }
