package nbd

import "github.com/pojntfx/go-nbd/pkg/protocol"

// The commands without data. Each returns what goes on the wire.

func (c *conn) doFlush(r command) uint32 {
	if c.sdev == nil || c.badFlags(r, 0) || r.offset != 0 || r.length != 0 {
		return protocol.TRANSMISSION_ERROR_EINVAL
	}
	return c.wireError(c.sync(), "flush")
}

func (c *conn) doTrim(r command) uint32 {
	switch {
	case c.wdev == nil:
		return protocol.TRANSMISSION_ERROR_EPERM
	case !c.open.Features.Trim, c.badFlags(r, 0), c.outside(r), c.unaligned(r):
		return protocol.TRANSMISSION_ERROR_EINVAL
	case r.length == 0:
		return 0
	}
	t := c.dev.(Trimmer)
	if code := c.wireError(guard(func() error { return t.Trim(int64(r.offset), int64(r.length)) }), "trim"); code != 0 {
		return code
	}
	return c.persist(r)
}

func (c *conn) doZero(r command) uint32 {
	allowed := cmdFlagNoHole
	if c.open.Features.FastZero {
		allowed |= cmdFlagFastZero
	}
	switch {
	case c.wdev == nil:
		return protocol.TRANSMISSION_ERROR_EPERM
	case !c.open.Features.Zero, c.badFlags(r, allowed):
		return protocol.TRANSMISSION_ERROR_EINVAL
	case c.outside(r):
		return wireENOSPC
	case c.unaligned(r):
		return protocol.TRANSMISSION_ERROR_EINVAL
	case r.length == 0:
		return 0
	}
	var flags ZeroFlags
	if r.flags&cmdFlagNoHole != 0 {
		flags |= ZeroNoHole
	}
	if r.flags&cmdFlagFastZero != 0 {
		flags |= ZeroFast
	}
	z := c.dev.(Zeroer)
	err := guard(func() error { return z.Zero(int64(r.offset), int64(r.length), flags) })
	if flags&ZeroFast != 0 && wireError(err) == wireENOTSUP {
		return wireENOTSUP // asked for, and no fault of the device
	}
	if code := c.wireError(err, "zero"); code != 0 {
		return code
	}
	return c.persist(r)
}

func (c *conn) doCache(r command) uint32 {
	switch {
	case !c.open.Features.Cache, c.badFlags(r, 0), c.outside(r), c.unaligned(r):
		return protocol.TRANSMISSION_ERROR_EINVAL
	case r.length == 0:
		return 0
	}
	d := c.dev.(Cacher)
	return c.wireError(guard(func() error { return d.Cache(int64(r.offset), int64(r.length)) }), "cache")
}
