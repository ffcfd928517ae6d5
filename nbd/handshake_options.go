package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// startTLS answers NBD_OPT_STARTTLS and encrypts.
func (c *conn) startTLS(opt uint32, data []byte) error {
	switch {
	case c.srv.TLS == nil:
		return c.replyError(opt, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, "no TLS here")
	case len(data) != 0 || c.tls != nil:
		return c.replyError(opt, repErrInvalid, "malformed option, or TLS already")
	case c.rd.buffered() > 0:
		// It would be taken for what was sent under encryption.
		return errors.New("nbd: the client sent more before the server agreed to NBD_OPT_STARTTLS")
	}
	if err := c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.cork = &cork{Conn: c.nc, pool: &c.srv.bufs.small}
	tc := tls.Server(c.cork, c.srv.TLS)
	if err := tc.HandshakeContext(c.ctx); err != nil {
		return fmt.Errorf("nbd: TLS: %w", err)
	}
	state := tc.ConnectionState()
	c.tls, c.rw = &state, tc
	c.rd.release()
	c.rd.init(tc, &c.srv.bufs.read)
	c.out.send, c.out.extra = sender{}, smallBufLen
	// What was agreed on before may have been somebody else's wish.
	c.structured, c.meta, c.metaExport = false, false, ""
	return nil
}

// structuredReply answers NBD_OPT_STRUCTURED_REPLY.
func (c *conn) structuredReply(opt uint32, data []byte) error {
	if len(data) != 0 {
		return c.replyError(opt, repErrInvalid, "malformed option")
	}
	c.structured = true
	return c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0)
}

// metaContext answers NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
// There is one context, base:allocation, on devices that know their extents.
func (c *conn) metaContext(opt uint32, data []byte, deadline *time.Time) error {
	set := opt == optSetMetaContext
	if set {
		c.meta, c.metaExport = false, "" // whatever comes of this
	}
	name, queries, ok := parseMeta(data)
	switch {
	case !ok:
		return c.replyError(opt, repErrInvalid, "malformed option")
	case !c.structured:
		return c.replyError(opt, repErrInvalid, "structured replies come first")
	}
	// NBD_OPT_GO follows: the log and the trace get what it brings.
	dev, open, err := c.askDevice(name, PurposeInfo, deadline)
	if err != nil {
		code, text := optionError(err)
		return c.replyError(opt, code, text)
	}
	closeDevice(c.log, dev)

	wanted := !set && len(queries) == 0
	for _, q := range queries {
		// A namespace alone stands for all that is in it, in a list.
		wanted = wanted || q == metaAllocation || !set && strings.HasSuffix(q, ":") && strings.HasPrefix(metaAllocation, q)
	}
	if wanted && open.Features.Extents {
		id := uint32(0)
		if set {
			c.meta, c.metaExport, id = true, open.Export, metaID
		}
		if err := c.reply(opt, repMetaContext, 4+len(metaAllocation), be32(id), []byte(metaAllocation)); err != nil {
			return err
		}
	}
	return c.reply(opt, protocol.NEGOTIATION_TYPE_REPLY_ACK, 0)
}

// parseMeta takes the data of the two apart: a name, and queries.
func parseMeta(data []byte) (name string, queries []string, ok bool) {
	next := func() (string, bool) {
		if len(data) < 4 {
			return "", false
		}
		n := binary.BigEndian.Uint32(data)
		if n > maxNameLen || int(n) > len(data)-4 || !validName(data[4:4+n]) {
			return "", false
		}
		s := string(data[4 : 4+n])
		data = data[4+n:]
		return s, true
	}
	if name, ok = next(); !ok || len(data) < 4 {
		return "", nil, false
	}
	count := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(count) > uint64(len(data)/4) {
		return "", nil, false
	}
	for range count {
		q, ok := next()
		if !ok {
			return "", nil, false
		}
		queries = append(queries, q)
	}
	return name, queries, len(data) == 0
}

// greetOldstyle opens the Port's export and says so: that is all of an
// oldstyle handshake.
func (c *conn) greetOldstyle() error {
	var deadline time.Time
	dev, open, err := c.openDevice("", PurposeGo, &deadline)
	if err != nil {
		return fmt.Errorf("nbd: export %q refused: %w", c.port.Export, err)
	}
	c.setDevice(dev, open)
	p, err := c.reserve(152)
	if err != nil {
		return err
	}
	clear(p)
	binary.BigEndian.PutUint64(p, protocol.NEGOTIATION_MAGIC_OLDSTYLE)
	binary.BigEndian.PutUint64(p[8:], magicOldstyle)
	binary.BigEndian.PutUint64(p[16:], uint64(open.Size))
	binary.BigEndian.PutUint16(p[26:], transmissionFlags(open.Features, false))
	return nil
}
