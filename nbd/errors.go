package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// ErrServerClosed is returned by a [Server]'s Serve, ServeConn and
// ListenAndServe after Shutdown or Close.
var ErrServerClosed = errors.New("nbd: server closed")

// ErrTLSRequired is what a [Handler] returns that gives an export over TLS only,
// when Request.TLS is nil. The client is told so (NBD_REP_ERR_TLS_REQD).
var ErrTLSRequired = fmt.Errorf("nbd: the export is there over TLS only: %w", fs.ErrPermission)

// wireError maps a device's error to the number that a client gets.
func wireError(err error) uint32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return wireENOSPC
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return protocol.TRANSMISSION_ERROR_EPERM
	case errors.Is(err, fs.ErrInvalid), errors.Is(err, syscall.EINVAL):
		return protocol.TRANSMISSION_ERROR_EINVAL
	case errors.Is(err, syscall.ENOMEM):
		return wireENOMEM
	case errors.Is(err, syscall.ENOTSUP), errors.Is(err, errors.ErrUnsupported):
		return wireENOTSUP
	case errors.Is(err, syscall.ESHUTDOWN), errors.Is(err, ErrServerClosed):
		return wireESHUTDOWN
	default:
		return wireEIO
	}
}

// errnoOf is wireError's inverse, for the client. NBD's numbers are Linux's,
// other systems have their own.
func errnoOf(code uint32) syscall.Errno {
	switch code {
	case protocol.TRANSMISSION_ERROR_EPERM:
		return syscall.EPERM
	case protocol.TRANSMISSION_ERROR_EINVAL:
		return syscall.EINVAL
	case wireENOMEM:
		return syscall.ENOMEM
	case wireENOSPC:
		return syscall.ENOSPC
	case wireEOVERFLOW:
		return syscall.EOVERFLOW
	case wireENOTSUP:
		return syscall.ENOTSUP
	case wireESHUTDOWN:
		return syscall.ESHUTDOWN
	default:
		return syscall.EIO
	}
}

// optionError maps a handler's error to an option reply and the text beside
// it. The text says nothing that the number does not: what the handler knows
// about its exports is not for the client.
func optionError(err error) (uint32, string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, "no such export"
	case errors.Is(err, ErrTLSRequired):
		return repErrTLSReqd, "TLS is required for this"
	case errors.Is(err, fs.ErrPermission):
		return repErrPolicy, "not allowed"
	case errors.Is(err, fs.ErrInvalid):
		return repErrInvalid, "bad request"
	default:
		return repErrShutdown, "not available now, see the server's log"
	}
}
