//go:build !linux

package nbd

import (
	"errors"
	"net"
	"sync"
	"time"
)

// sender is Linux's: elsewhere replies are copied and written.
type sender struct{}

func (*sender) init(net.Conn)                                   {}
func (*sender) setTimeout(time.Duration)                        {}
func (*sender) can() bool                                       { return false }
func (*sender) write(*sync.Pool, []byte, *batch) (int64, error) { return 0, errors.ErrUnsupported }
