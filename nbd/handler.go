package nbd

import "context"

// Handler decides which device a client gets. The server calls it for every
// NBD_OPT_GO, NBD_OPT_INFO and NBD_OPT_EXPORT_NAME, concurrently for
// different connections. The context ends when the connection is cut; a nil
// Device without an error means that there is no such export.
//
// An error says why not, and its kind chooses the reply: [fs.ErrNotExist] is
// NBD_REP_ERR_UNKNOWN, [fs.ErrPermission] is NBD_REP_ERR_POLICY,
// [ErrTLSRequired] is
// NBD_REP_ERR_TLS_REQD, [fs.ErrInvalid] is NBD_REP_ERR_INVALID, and anything else
// NBD_REP_ERR_SHUTDOWN ("try again later"). The text of the error reaches the
// log, never the client.
type Handler interface {
	OpenNBD(ctx context.Context, r *Request) (Device, error)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, r *Request) (Device, error)

// OpenNBD calls f.
func (f HandlerFunc) OpenNBD(ctx context.Context, r *Request) (Device, error) { return f(ctx, r) }

// ExportInfo is one row of an export list.
type ExportInfo struct {
	Name        string
	Description string
}

// Lister is a [Handler] that can list its exports (NBD_OPT_LIST). A handler
// that is no Lister refuses the list with NBD_REP_ERR_POLICY. The request has
// no Export and PurposeInfo.
type Lister interface {
	ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error)
}
