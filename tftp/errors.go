package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// ErrServerClosed is returned by [Server.Serve] and [Server.ListenAndServe]
// after [Server.Shutdown] or [Server.Close], and is the outcome of transfers
// that Close cut short.
var ErrServerClosed = errors.New("tftp: server closed")

// Code is the number in an ERROR packet (RFC 1350 section 5, RFC 2347).
type Code uint16

// The error codes of RFC 1350, and code 8 of RFC 2347.
const (
	CodeUndefined       Code = 0 // see the message
	CodeNotFound        Code = 1
	CodeAccessViolation Code = 2
	CodeDiskFull        Code = 3
	CodeIllegal         Code = 4 // illegal TFTP operation
	CodeUnknownTID      Code = 5 // unknown transfer ID
	CodeFileExists      Code = 6
	CodeNoSuchUser      Code = 7
	CodeOption          Code = 8 // option negotiation refused; also how PXE ends a size probe
)

// Error is an ERROR packet: one that the peer sent, or one that a [Handler]
// wants the client to get word for word.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("tftp error %d: %s", e.Code, e.Message) }

// Is makes code 1 match [fs.ErrNotExist] and code 2 [fs.ErrPermission].
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Code == CodeNotFound ||
		target == fs.ErrPermission && e.Code == CodeAccessViolation
}

// wireError is the one table from Go's errors to what a client may see. It
// never shows the text of an error that was not written for the wire.
func wireError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return &Error{e.Code, printable(e.Message)}
	case errors.Is(err, fs.ErrNotExist):
		return &Error{CodeNotFound, "file not found"}
	case errors.Is(err, fs.ErrPermission):
		return &Error{CodeAccessViolation, "access violation"}
	case errors.Is(err, fs.ErrExist):
		return &Error{CodeFileExists, "file already exists"}
	case errors.Is(err, syscall.ENOSPC):
		return &Error{CodeDiskFull, "disk full"}
	case errors.Is(err, ErrServerClosed):
		return &Error{CodeUndefined, "server is shutting down"}
	}
	return &Error{CodeUndefined, "internal error, see the server's log"}
}

// printable makes a message safe for a packet and for a terminal: no NUL, no
// control characters, not longer than any screen.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

// encode returns the packet on the wire.
func (e *Error) encode() []byte {
	b := []byte{0, opERROR, byte(e.Code >> 8), byte(e.Code)}
	return append(append(b, e.Message...), 0)
}

// logged marks an error whose story is already in the log.
type logged struct{ error }

func (e logged) Unwrap() error { return e.error }
