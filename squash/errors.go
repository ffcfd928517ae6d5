package squash

import (
	"errors"
	"fmt"
	"io"
)

// FormatError says that an image is damaged, cut short or not a SquashFS
// image at all.
type FormatError struct {
	// Offset is where in the image, in bytes from its start, the piece lies
	// that makes no sense.
	Offset int64
	// Msg says what is wrong with it.
	Msg string
	// Err is the cause, or nil. It is [io.ErrUnexpectedEOF] when the image
	// ends too early.
	Err error
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("squash: damaged image: at byte %d: %s", e.Offset, e.Msg)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }

func badFormat(off int64, format string, args ...any) error {
	return &FormatError{Offset: off, Msg: fmt.Sprintf(format, args...)}
}

// readError tells an image that is too short from a reader that failed.
func readError(off int64, what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FormatError{Offset: off, Msg: "the image ends inside " + what + "; copy it again", Err: io.ErrUnexpectedEOF}
	}
	return fmt.Errorf("squash: reading %s at byte %d: %w", what, off, err)
}
