package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
	"unicode/utf8"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// handshake negotiates until a device is open (doc/proto.md, "Fixed newstyle
// negotiation").
func (c *conn) handshake() error {
	timeout := c.srv.handshakeTimeout()
	if timeout > 0 {
		_ = c.nc.SetDeadline(time.Now().Add(timeout))
	}
	err := c.negotiate(time.Now().Add(timeout))
	if err != nil {
		if ferr := c.flush(); ferr != nil && errors.Is(err, errLeft) {
			return ferr
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("nbd: the client did not finish its handshake in time: %w", err)
		}
		return err
	}
	// What is left of the handshake goes out with the first reply, or when the
	// first request is waited for.
	if timeout > 0 {
		_ = c.nc.SetDeadline(time.Time{})
	}
	return nil
}

func (c *conn) negotiate(deadline time.Time) error {
	if c.port != nil && c.port.Oldstyle {
		return c.greetOldstyle()
	}
	p, err := c.reserve(18)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(p, protocol.NEGOTIATION_MAGIC_OLDSTYLE)
	binary.BigEndian.PutUint64(p[8:], protocol.NEGOTIATION_MAGIC_OPTION)
	binary.BigEndian.PutUint16(p[16:], flagFixedNewstyle|flagNoZeroes)

	if p, err = c.next(4); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(p)
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("nbd: the client sent unknown flags %#x", flags)
	}

	for range c.srv.maxOptions() {
		if p, err = c.next(optionHeaderLen); err != nil {
			return err
		}
		if binary.BigEndian.Uint64(p) != protocol.NEGOTIATION_MAGIC_OPTION {
			return errors.New("nbd: an option without its magic number")
		}
		opt, length := binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:])

		if int64(length) > int64(c.srv.maxOptionLength()) {
			if opt == optExportName || length > maxDrained {
				return fmt.Errorf("nbd: option %d of %d bytes is too long", opt, length)
			}
			if err := c.drop(int64(length)); err != nil {
				return err
			}
			if err := c.replyError(opt, repErrTooBig, "option too long"); err != nil {
				return err
			}
			continue
		}
		data, err := c.next(int(length))
		if err != nil {
			return err
		}

		if c.srv.RequireTLS && c.tls == nil && opt != optStartTLS && opt != protocol.NEGOTIATION_ID_OPTION_ABORT {
			if opt == optExportName {
				return errors.New("nbd: the client does not encrypt, TLS is required")
			}
			if err := c.replyError(opt, repErrTLSReqd, "TLS is required"); err != nil {
				return err
			}
			continue
		}
		switch opt {
		case optExportName:
			return c.exportName(string(data), flags&uint32(flagNoZeroes) != 0)
		case protocol.NEGOTIATION_ID_OPTION_GO:
			err = c.goOrInfo(opt, data, &deadline, PurposeGo)
			if err == nil && c.dev != nil {
				return nil
			}
		case protocol.NEGOTIATION_ID_OPTION_INFO:
			err = c.goOrInfo(opt, data, &deadline, PurposeInfo)
		case optStartTLS:
			err = c.startTLS(opt, data)
		case optStructuredReply:
			err = c.structuredReply(opt, data)
		case optListMetaContext, optSetMetaContext:
			err = c.metaContext(opt, data, &deadline)
		case protocol.NEGOTIATION_ID_OPTION_LIST:
			err = c.list(opt, data, &deadline)
		case protocol.NEGOTIATION_ID_OPTION_ABORT:
			if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0); err != nil {
				return err
			}
			return errLeft
		default:
			err = c.replyError(opt, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, "option not supported")
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("nbd: more than %d options in one handshake", c.srv.maxOptions())
}

// goOrInfo answers NBD_OPT_GO and NBD_OPT_INFO.
func (c *conn) goOrInfo(opt uint32, data []byte, deadline *time.Time, purpose Purpose) error {
	name, infos, ok := parseGo(data)
	if !ok {
		return c.replyError(opt, repErrInvalid, "malformed option")
	}
	wantName, wantBlockSize := false, false
	for ; len(infos) > 0; infos = infos[2:] {
		switch binary.BigEndian.Uint16(infos) {
		case protocol.NEGOTIATION_TYPE_INFO_NAME:
			wantName = true
		case protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
			wantBlockSize = true
		}
	}
	dev, open, err := c.openDevice(name, purpose, deadline)
	if err != nil {
		code, text := optionError(err)
		return c.replyError(opt, code, text)
	}
	if purpose == PurposeGo {
		c.setDevice(dev, open)
	} else {
		defer closeDevice(c.log, dev)
	}

	if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_INFO, 12,
		be16(protocol.NEGOTIATION_TYPE_INFO_EXPORT), be64(uint64(open.Size)), be16(transmissionFlags(open.Features, c.structured))); err != nil {
		return err
	}
	if wantName {
		if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_INFO, 2+len(open.Export),
			be16(protocol.NEGOTIATION_TYPE_INFO_NAME), []byte(open.Export)); err != nil {
			return err
		}
	}
	if wantBlockSize {
		smallest, preferred := blockSizes(open.Features)
		if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_INFO, 14,
			be16(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE), be32(smallest), be32(preferred), be32(c.maxReq)); err != nil {
			return err
		}
	}
	return c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0)
}

// exportName answers NBD_OPT_EXPORT_NAME, which has no way to say no but to
// close the connection.
func (c *conn) exportName(name string, noZeroes bool) error {
	if !validName([]byte(name)) {
		return errors.New("nbd: a malformed export name")
	}
	var deadline time.Time
	dev, open, err := c.openDevice(name, PurposeGo, &deadline)
	if err != nil {
		return fmt.Errorf("nbd: export %q refused: %w", name, err)
	}
	c.setDevice(dev, open)
	n := 10 + 124
	if noZeroes {
		n = 10
	}
	p, err := c.reserve(n)
	if err != nil {
		return err
	}
	clear(p)
	binary.BigEndian.PutUint64(p, uint64(open.Size))
	binary.BigEndian.PutUint16(p[8:], transmissionFlags(open.Features, c.structured))
	return nil
}

// warn tells the operator of something about an export, "" for all.
func (c *conn) warn(msg, export string, args ...any) {
	c.srv.warn(cause{msg, c.info.Client.Addr(), export}, args...)
}

// list answers NBD_OPT_LIST, with one NBD_REP_SERVER for each export.
func (c *conn) list(opt uint32, data []byte, deadline *time.Time) error {
	if len(data) != 0 {
		return c.replyError(opt, repErrInvalid, "malformed option")
	}
	lister, ok := c.srv.Handler.(Lister)
	if !ok {
		return c.replyError(opt, repErrPolicy, "exports are not listed")
	}
	var exports []ExportInfo
	err := c.ask(deadline, func(ctx context.Context) (err error) {
		exports, err = lister.ListNBD(ctx, c.request("", PurposeInfo))
		return err
	})
	if err != nil {
		c.warn("nbd: cannot list the exports", "", append([]any{"client", c.info.Remote}, errAttrs(err)...)...)
		code, text := optionError(err)
		return c.replyError(opt, code, text)
	}
	for _, e := range exports {
		if !validName([]byte(e.Name)) || len(e.Description) > maxNameLen {
			c.warn("nbd: an export's name or description cannot be listed: more than 4096 bytes, a NUL or no UTF-8", e.Name, "export", e.Name)
			continue
		}
		if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_SERVER, 4+len(e.Name)+len(e.Description),
			be32(uint32(len(e.Name))), []byte(e.Name), []byte(e.Description)); err != nil {
			return err
		}
	}
	return c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0)
}

// openDevice asks the handler, and logs and traces what it decided.
func (c *conn) openDevice(name string, purpose Purpose, deadline *time.Time) (Device, OpenInfo, error) {
	dev, open, err := c.askDevice(name, purpose, deadline)
	name = open.Export
	if err != nil {
		c.warn("nbd: export refused", name, append([]any{"client", c.info.Remote, "export", name}, errAttrs(err)...)...)
		if t := c.srv.Trace; t != nil && t.ExportRefused != nil {
			t.ExportRefused(c.info, open, err)
		}
		return nil, open, err
	}
	c.log.Debug("nbd: export opened", "client", c.info.Remote, "id", c.info.ID, "export", name, "purpose", purpose,
		"size", open.Size, "features", open.Features)
	if t := c.srv.Trace; t != nil && t.ExportOpened != nil {
		t.ExportOpened(c.info, open)
	}
	return dev, open, nil
}

// askDevice asks the handler for a device that can be served.
func (c *conn) askDevice(name string, purpose Purpose, deadline *time.Time) (Device, OpenInfo, error) {
	name = c.exportOf(name)
	open := OpenInfo{Export: name, Purpose: purpose}
	var dev Device
	err := c.ask(deadline, func(ctx context.Context) error {
		if c.srv.Handler == nil {
			return fs.ErrNotExist
		}
		d, err := c.srv.Handler.OpenNBD(ctx, c.request(name, purpose))
		if err != nil {
			return err
		}
		if d == nil {
			return fs.ErrNotExist
		}
		dev = d
		open.Size, open.Features = dev.Size(), FeaturesOf(dev)
		if open.Size < 0 {
			return fmt.Errorf("nbd: the device of %q has the size %d", name, open.Size)
		}
		return checkBlocks(name, open)
	})
	// A device that came with the cut, or that cannot be served, is not kept.
	if cause := context.Cause(c.ctx); err == nil && cause != nil {
		err = cause
	}
	if err != nil {
		if dev != nil {
			closeDevice(c.log, dev)
		}
		open.Size, open.Features = 0, Features{}
		return nil, open, err
	}
	return dev, open, nil
}

// ask calls a handler. The time it takes is given back to the client.
func (c *conn) ask(deadline *time.Time, f func(context.Context) error) (err error) {
	defer recovered(&err)
	start := time.Now()
	err = f(c.ctx)
	if c.srv.handshakeTimeout() > 0 && !deadline.IsZero() {
		*deadline = deadline.Add(time.Since(start))
		_ = c.nc.SetDeadline(*deadline)
	}
	return err
}

func (c *conn) request(name string, purpose Purpose) *Request {
	return &Request{
		Export:     name,
		Purpose:    purpose,
		Client:     c.info.Client,
		Local:      c.info.Local,
		Conn:       c.nc,
		TLS:        c.tls,
		Disconnect: c.cut,
	}
}

func (c *conn) setDevice(dev Device, open OpenInfo) {
	c.dev, c.open, c.size = dev, open, uint64(open.Size)
	if open.Features.Write {
		c.wdev = dev.(io.WriterAt)
	}
	if open.Features.Flush {
		c.sdev = dev.(Syncer)
	}
	if open.Features.Extents {
		c.xdev = dev.(Extenter)
	}
	c.out.send.setTimeout(c.timeout)
	if open.Features.Map && !open.Features.Slow && c.out.send.can() {
		c.mdev = dev.(Mapper)
	}
	smallest, _ := blockSizes(open.Features)
	c.align = uint64(smallest)
	// Contexts count for the export that they were selected for.
	c.meta = c.meta && c.xdev != nil && c.metaExport == open.Export
}

// blockSizes are the smallest and the preferred one.
func blockSizes(f Features) (smallest, preferred uint32) {
	smallest, preferred = uint32(f.MinBlock), uint32(f.PreferredBlock)
	if smallest == 0 {
		smallest = 1
	}
	if preferred == 0 {
		// Any is served as well; whole pages are cheapest.
		preferred = max(blockLen, smallest)
	}
	return smallest, preferred
}

// checkBlocks refuses block sizes that clients would be right to refuse, or
// under which a part of the device could not be reached.
func checkBlocks(name string, open OpenInfo) error {
	smallest, preferred := blockSizes(open.Features)
	switch {
	case smallest&(smallest-1) != 0 || smallest > readBufLen,
		preferred&(preferred-1) != 0 || preferred < sectorLen || preferred > 32<<20 || preferred < smallest:
		return fmt.Errorf("nbd: the device of %q has the block sizes %d and %d", name, open.Features.MinBlock, open.Features.PreferredBlock)
	case open.Size%int64(smallest) != 0:
		return fmt.Errorf("nbd: the device of %q has %d bytes, which is no multiple of its block size %d", name, open.Size, smallest)
	}
	return nil
}

// parseGo takes the data of NBD_OPT_GO and NBD_OPT_INFO apart: a name, and two
// bytes for each wanted information.
func parseGo(data []byte) (name string, infos []byte, ok bool) {
	if len(data) < 6 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if n > maxNameLen || int(n) > len(data)-6 {
		return "", nil, false
	}
	raw, infos := data[4:4+n], data[4+n+2:]
	if len(infos) != 2*int(binary.BigEndian.Uint16(data[4+n:])) || !validName(raw) {
		return "", nil, false
	}
	return string(raw), infos, true
}

func validName(name []byte) bool {
	return len(name) <= maxNameLen && bytes.IndexByte(name, 0) < 0 && utf8.Valid(name)
}

// reply adds an option reply of n bytes.
func (c *conn) reply(opt, typ uint32, n int, parts ...[]byte) error {
	p, err := c.reserve(20 + n)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(p, protocol.NEGOTIATION_MAGIC_REPLY)
	binary.BigEndian.PutUint32(p[8:], opt)
	binary.BigEndian.PutUint32(p[12:], typ)
	binary.BigEndian.PutUint32(p[16:], uint32(n))
	p = p[20:]
	for _, part := range parts {
		p = p[copy(p, part):]
	}
	return nil
}

func (c *conn) replyError(opt, code uint32, text string) error {
	return c.reply(opt, code, len(text), []byte(text))
}

// drop reads n bytes and forgets them.
func (c *conn) drop(n int64) error {
	for n > 0 {
		c.armed = false
		p, err := c.next(int(min(n, readBufLen)))
		if err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return nil
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
