package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

const (
	maxReplyLen = 64 << 10 // of one option reply
	maxListLen  = 16 << 20 // of all replies to one option, headers included
)

// open negotiates NBD_OPT_GO, or NBD_OPT_EXPORT_NAME with a server that does
// not know it.
func (c *Client) open(ctx context.Context, export string, cfg *tls.Config) error {
	if !validName([]byte(export)) {
		return fmt.Errorf("the name has more than 4096 bytes, a NUL or no UTF-8: %w", fs.ErrInvalid)
	}
	noZeroes, fixed, err := greet(c.nc)
	if err == nil {
		c.nc, err = encrypt(ctx, c.nc, fixed, cfg)
	}
	if err != nil {
		return err
	}
	if fixed {
		if !c.simple {
			if err := c.askForMore(export); err != nil {
				return err
			}
		}
		data := be32(uint32(len(export)))
		data = append(data, export...)
		data = append(data, be16(1)...)
		data = append(data, be16(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)...)
		if err := sendOption(c.nc, protocol.NEGOTIATION_ID_OPTION_GO, data); err != nil {
			return err
		}
		err := replies(c.nc, protocol.NEGOTIATION_ID_OPTION_GO, protocol.NEGOTIATION_TYPE_REPLY_INFO, c.takeInfo)
		if err == nil && c.size < 0 {
			err = errors.New("the server accepted but did not say the size")
		}
		if !errors.Is(err, errUnsupported) {
			return err
		}
	}
	if err := sendOption(c.nc, optExportName, []byte(export)); err != nil {
		return err
	}
	n := 10 + 124
	if noZeroes {
		n = 10
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(c.nc, p); err != nil {
		return fmt.Errorf("the server closed the connection, which is how it refuses an export here: %w", unexpected(err))
	}
	return c.setExport(p)
}

// encrypt returns what is within nc's encryption, or nc where none is wanted.
func encrypt(ctx context.Context, nc net.Conn, fixed bool, cfg *tls.Config) (net.Conn, error) {
	if cfg == nil {
		return nc, nil
	}
	err := error(errUnsupported)
	if fixed {
		if err = sendOption(nc, optStartTLS, nil); err == nil {
			err = replies(nc, optStartTLS, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
		}
	}
	if err != nil {
		return nc, fmt.Errorf("TLS: %w", err)
	}
	tc := tls.Client(nc, cfg)
	return tc, tc.HandshakeContext(ctx)
}

// askForMore negotiates structured replies and base:allocation, with servers
// that have them.
func (c *Client) askForMore(export string) error {
	ask := func(opt, typ uint32, data []byte, take func([]byte) error) (bool, error) {
		if err := sendOption(c.nc, opt, data); err != nil {
			return false, err
		}
		err := replies(c.nc, opt, typ, take)
		if errors.Is(err, errUnsupported) || errors.Is(err, errRefused) {
			return false, nil // the export itself will be refused with a reason
		}
		return err == nil, err
	}
	var err error
	if c.structured, err = ask(optStructuredReply, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil, nil); !c.structured {
		return err
	}
	data := be32(uint32(len(export)))
	data = append(data, export...)
	data = append(data, be32(1)...)
	data = append(data, be32(uint32(len(metaAllocation)))...)
	data = append(data, metaAllocation...)
	found := false
	ok, err := ask(optSetMetaContext, repMetaContext, data, func(p []byte) error {
		if len(p) < 4 || string(p[4:]) != metaAllocation {
			return errors.New("a metadata context that was not asked for")
		}
		c.metaID, found = binary.BigEndian.Uint32(p), true
		return nil
	})
	c.meta = ok && found
	return err
}

func (c *Client) setExport(p []byte) error {
	size := binary.BigEndian.Uint64(p)
	if size > math.MaxInt64 {
		return fmt.Errorf("the server says that the export has %d bytes", size)
	}
	c.size, c.flags = int64(size), binary.BigEndian.Uint16(p[8:])
	return nil
}

// takeInfo takes an NBD_REP_INFO.
func (c *Client) takeInfo(p []byte) error {
	if len(p) < 2 {
		return errors.New("an information without a type")
	}
	switch typ := binary.BigEndian.Uint16(p); {
	case typ == protocol.NEGOTIATION_TYPE_INFO_EXPORT && len(p) == 12:
		return c.setExport(p[2:])
	case typ == protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE && len(p) == 14:
		smallest, preferred := binary.BigEndian.Uint32(p[2:]), binary.BigEndian.Uint32(p[6:])
		if f := (Features{MinBlock: int(smallest), PreferredBlock: int(preferred)}); checkBlocks("", OpenInfo{Features: f}) == nil {
			c.minBlock, c.preferred = f.MinBlock, f.PreferredBlock
		}
		if m := binary.BigEndian.Uint32(p[10:]); m >= sectorLen && m < uint32(c.maxReq) {
			c.maxReq = int(m)
		}
		return nil
	case typ == protocol.NEGOTIATION_TYPE_INFO_EXPORT, typ == protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
		return fmt.Errorf("information %d with %d bytes", typ, len(p))
	}
	return nil
}

// greet takes the server's greeting and answers it.
func greet(nc net.Conn) (noZeroes, fixed bool, err error) {
	var p [18]byte
	if _, err := io.ReadFull(nc, p[:]); err != nil {
		return false, false, unexpected(err)
	}
	if binary.BigEndian.Uint64(p[:]) != protocol.NEGOTIATION_MAGIC_OLDSTYLE ||
		binary.BigEndian.Uint64(p[8:]) != protocol.NEGOTIATION_MAGIC_OPTION {
		return false, false, errors.New("the other end is no NBD server that speaks newstyle negotiation")
	}
	flags := binary.BigEndian.Uint16(p[16:]) & (flagFixedNewstyle | flagNoZeroes)
	if _, err := nc.Write(be32(uint32(flags))); err != nil {
		return false, false, err
	}
	return flags&flagNoZeroes != 0, flags&flagFixedNewstyle != 0, nil
}

func sendOption(nc net.Conn, opt uint32, data []byte) error {
	p := be64(protocol.NEGOTIATION_MAGIC_OPTION)
	p = append(p, be32(opt)...)
	p = append(p, be32(uint32(len(data)))...)
	_, err := nc.Write(append(p, data...))
	return err
}

var errRefused = errors.New("the server refused")

var errUnsupported = fmt.Errorf("the server does not support this: %w", errors.ErrUnsupported)

// replies gives take the data of each reply of type typ to opt, until the
// server acknowledges or refuses.
func replies(nc net.Conn, opt, typ uint32, take func([]byte) error) error {
	var h [20]byte
	for total := 0; total < maxListLen; total += len(h) {
		if _, err := io.ReadFull(nc, h[:]); err != nil {
			return unexpected(err)
		}
		if binary.BigEndian.Uint64(h[:]) != protocol.NEGOTIATION_MAGIC_REPLY || binary.BigEndian.Uint32(h[8:]) != opt {
			return errors.New("an option reply out of step")
		}
		got, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if n > maxReplyLen {
			return fmt.Errorf("an option reply of %d bytes", n)
		}
		total += int(n)
		data := make([]byte, n)
		if _, err := io.ReadFull(nc, data); err != nil {
			return unexpected(err)
		}
		switch {
		case got == typ && take != nil:
			if err := take(data); err != nil {
				return err
			}
		case got == protocol.NEGOTIATION_TYPE_REPLY_ACK:
			return nil
		case got == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED:
			return errUnsupported
		case got&(1<<31) != 0:
			return refusal(got, string(data))
		}
	}
	return errors.New("the server does not come to an end of its replies")
}

func refusal(code uint32, text string) error {
	if text == "" {
		text = "no reason given"
	}
	kind := map[uint32]error{
		protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN: fs.ErrNotExist,
		repErrPolicy:  fs.ErrPermission,
		repErrTLSReqd: ErrTLSRequired,
		repErrInvalid: fs.ErrInvalid,
	}[code]
	if kind == nil {
		return fmt.Errorf("%w (%d, %q)", errRefused, code&^(1<<31), text)
	}
	return fmt.Errorf("%w (%q): %w", errRefused, text, kind)
}

func listExports(ctx context.Context, nc net.Conn, cfg *tls.Config) ([]ExportInfo, error) {
	_, fixed, err := greet(nc)
	if err == nil {
		nc, err = encrypt(ctx, nc, fixed, cfg)
	}
	if err != nil {
		return nil, err
	}
	if !fixed {
		return nil, errUnsupported
	}
	if err := sendOption(nc, protocol.NEGOTIATION_ID_OPTION_LIST, nil); err != nil {
		return nil, err
	}
	var list []ExportInfo
	err = replies(nc, protocol.NEGOTIATION_ID_OPTION_LIST, protocol.NEGOTIATION_TYPE_REPLY_SERVER, func(p []byte) error {
		if len(p) < 4 || uint64(binary.BigEndian.Uint32(p)) > uint64(len(p)-4) {
			return errors.New("a malformed export in the list")
		}
		n := binary.BigEndian.Uint32(p)
		list = append(list, ExportInfo{Name: string(p[4 : 4+n]), Description: string(p[4+n:])})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, sendOption(nc, protocol.NEGOTIATION_ID_OPTION_ABORT, nil)
}
