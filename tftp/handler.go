package tftp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
)

// Handler decides which file a client gets; an [Uploader] takes files besides.
// The server calls it once for each read request, concurrently for different
// requests, and does the sending.
//
// An error says why there is no file, and its kind chooses the ERROR packet
// (RFC 1350 section 5): [fs.ErrNotExist] is code 1, [fs.ErrPermission] is code
// 2, an [*Error] is sent as it is, and everything else is code 0. Only the text
// of an [*Error] reaches the client; that of any other error stays in the log.
// A nil File with a nil error means fs.ErrNotExist.
//
// ctx ends when the server is closed. The server calls the file's Close
// exactly once, when the transfer is over, whatever came of it.
type Handler interface {
	OpenTFTP(ctx context.Context, r *Request) (File, error)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, r *Request) (File, error)

// OpenTFTP calls f.
func (f HandlerFunc) OpenTFTP(ctx context.Context, r *Request) (File, error) { return f(ctx, r) }

// Request is one client's wish to read or to send a file. The handler must not change it.
type Request struct {
	// Name is the file asked for, as a path that satisfies [fs.ValidPath]:
	// slash-separated, relative to the root of the tree, "." for the root
	// itself. Backslashes count as slashes, empty and "." elements and leading
	// slashes are gone, ".." is resolved, and bytes 0xFF at the end are cut off
	// (firmware copies them from the end marker of a DHCP option). A name that
	// leads out of the tree, is not UTF-8 or contains control characters never
	// reaches a handler.
	Name string
	// Raw is the name as the client sent it, for logs and for handlers that
	// map names themselves.
	Raw string
	// Peer is the client's address and port. An IPv4 address is never in its
	// IPv6-mapped form.
	Peer netip.AddrPort
	// Local is the address the client sent its request to, and the address it
	// is answered from. It is the zero Addr when the socket does not tell.
	Local netip.Addr
	// Write says that the client wants to send the file (WRQ).
	Write bool
	// UploadSize is the length of an upload as its client announced it (RFC 2349
	// tsize), -1 when it did not, and always for a read request.
	UploadSize int64
}

// File is what a handler hands to the server: bytes of known length. ReadAt
// follows [io.ReaderAt]; it may be called concurrently.
type File interface {
	io.ReaderAt
	io.Closer

	// Size returns the length in bytes. It does not change while the file is
	// open; a file that turns out to be shorter ends the transfer with an
	// error, and what lies beyond Size is not sent.
	Size() int64

	// ID identifies the content: two files with the same ID have the same
	// bytes, so that a server may read them once for many clients. The empty
	// string says nothing about the content and shares nothing.
	ID() string
}

// NewFile makes a [File] of the first size bytes of r. Close closes r when it
// is an [io.Closer]. See [File] for id.
//
//	tftp.NewFile(bytes.NewReader(b), int64(len(b)), "")
func NewFile(r io.ReaderAt, size int64, id string) File { return &file{r, size, id} }

type file struct {
	io.ReaderAt
	size int64
	id   string
}

func (f *file) Size() int64 { return f.size }
func (f *file) ID() string  { return f.id }

func (f *file) Close() error {
	if c, ok := f.ReaderAt.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// First asks the handlers in order and returns the first answer that is not
// fs.ErrNotExist. A refusal (any other error) is an answer: nobody else is
// asked. When no handler has the file the error is fs.ErrNotExist. An upload
// goes to the first handler that takes it, in the same way.
func First(handlers ...Handler) Handler { return first(handlers) }

type first []Handler

func (hs first) OpenTFTP(ctx context.Context, r *Request) (File, error) {
	for _, h := range hs {
		f, err := h.OpenTFTP(ctx, r)
		if errors.Is(err, fs.ErrNotExist) || f == nil && err == nil {
			continue
		}
		return f, err
	}
	return nil, notExist(r.Name)
}

func (hs first) CreateTFTP(ctx context.Context, r *Request) (Upload, error) {
	for _, h := range hs {
		u, err := create(ctx, h, r)
		if errors.Is(err, fs.ErrNotExist) || err == error(errNoUploads) {
			continue
		}
		return u, err
	}
	return nil, errNoUploads
}

var errNoUploads = &Error{CodeAccessViolation, "this server accepts no uploads"}

// create asks a handler for an upload.
func create(ctx context.Context, h Handler, r *Request) (Upload, error) {
	up, ok := h.(Uploader)
	if !ok {
		return nil, errNoUploads
	}
	u, err := up.CreateTFTP(ctx, r)
	if u == nil && err == nil {
		err = notExist(r.Name)
	}
	return u, err
}

func notExist(name string) error {
	return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}
