package nbdattach

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/nbd-netlink.h
const (
	familyName = "nbd"
	groupName  = "nbd_mc_group"

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdLinkDead    = 4
	cmdStatus      = 5

	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrClientFlags = 6
	attrSockets     = 7
	attrDeadTimeout = 8
	attrDeviceList  = 9

	sockItem        = 1
	sockFD          = 1
	deviceItem      = 1
	deviceConnected = 2
)

// generic is the family "nbd" of generic netlink. Each command has a netlink
// socket of its own, so that no late answer is taken for another's.
type generic struct {
	dial func() (*genetlink.Conn, error)
}

func newKernel() (kernel, error) {
	return generic{func() (*genetlink.Conn, error) { return genetlink.Dial(nil) }}, nil
}

// open returns a netlink socket and the family.
func (g generic) open() (*genetlink.Conn, genetlink.Family, error) {
	c, err := g.dial()
	if err != nil {
		return nil, genetlink.Family{}, fmt.Errorf("netlink: %w", err)
	}
	f, err := c.GetFamily(familyName)
	if err != nil {
		c.Close()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; load the kernel's module with `modprobe nbd`", err)
		}
		return nil, f, fmt.Errorf("netlink: the family nbd: %w", err)
	}
	return c, f, nil
}

func (g generic) do(command uint8, flags netlink.HeaderFlags, encode func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	c, f, err := g.open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ae := netlink.NewAttributeEncoder()
	encode(ae)
	data, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: f.Version}, Data: data}
	return c.Execute(m, f.ID, netlink.Request|flags)
}

func (d deviceAttrs) encode(ae *netlink.AttributeEncoder, sockets []uintptr) {
	if d.index >= 0 {
		ae.Uint32(attrIndex, uint32(d.index))
	}
	for _, a := range []struct {
		typ   uint16
		value uint64
	}{
		{attrSize, d.size}, {attrBlockSize, d.blockSize}, {attrTimeout, d.timeout}, {attrDeadTimeout, d.dead},
		{attrServerFlags, d.serverFlags}, {attrClientFlags, d.clientFlags},
	} {
		if a.value != 0 {
			ae.Uint64(a.typ, a.value)
		}
	}
	if len(sockets) == 0 {
		return
	}
	ae.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, fd := range sockets {
			list.Nested(sockItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(sockFD, uint32(fd))
				return nil
			})
		}
		return nil
	})
}

func (g generic) connect(d deviceAttrs, sockets []uintptr) (int, error) {
	// The answer is the index; asked for an acknowledgement the kernel would
	// send two messages.
	answers, err := g.do(cmdConnect, 0, func(ae *netlink.AttributeEncoder) { d.encode(ae, sockets) })
	if errors.Is(err, unix.EBUSY) {
		return 0, fmt.Errorf("%w: the device is attached already, or all are", err)
	}
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		if i, ok := indexIn(m.Data); ok {
			return i, nil
		}
	}
	return 0, errors.New("the kernel did not say which device it is")
}

func (g generic) reconfigure(d deviceAttrs, sockets []uintptr) error {
	_, err := g.do(cmdReconfigure, netlink.Acknowledge, func(ae *netlink.AttributeEncoder) { d.encode(ae, sockets) })
	switch {
	case errors.Is(err, unix.ENOSPC):
		return errNoDead
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (%w)", ErrDetached, err)
	}
	return err
}

func (g generic) disconnect(index int) error {
	_, err := g.do(cmdDisconnect, netlink.Acknowledge, func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIndex, uint32(index)) })
	return err
}

func (g generic) attached(index int) (bool, error) {
	answers, err := g.do(cmdStatus, 0, func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIndex, uint32(index)) })
	if err != nil {
		return false, err
	}
	for _, m := range answers {
		if connected, err := connectedIn(m.Data); connected || err != nil {
			return connected, err
		}
	}
	return false, nil
}

// connectedIn says whether a device of an answer's list is connected.
func connectedIn(data []byte) (bool, error) {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return false, err
	}
	connected := false
	item := func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			if ad.Type() == deviceConnected {
				connected = connected || ad.Uint8() != 0
			}
		}
		return nil
	}
	list := func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			if ad.Type() == deviceItem {
				ad.Nested(item)
			}
		}
		return nil
	}
	for ad.Next() {
		if ad.Type() == attrDeviceList {
			ad.Nested(list)
		}
	}
	return connected, ad.Err()
}

func (g generic) watch(dead func(index int)) (func(), error) {
	c, f, err := g.open()
	if err != nil {
		return nil, err
	}
	joined := false
	for _, group := range f.Groups {
		if group.Name == groupName {
			if err := c.JoinGroup(group.ID); err != nil {
				c.Close()
				return nil, fmt.Errorf("netlink: %w", err)
			}
			joined = true
		}
	}
	if !joined {
		c.Close()
		return nil, fmt.Errorf("netlink: the kernel's nbd has no group %s: %w", groupName, errors.ErrUnsupported)
	}
	ended := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			messages, _, err := c.Receive()
			select {
			case <-stop:
				return
			default:
			}
			if err != nil {
				dead(-1) // ENOBUFS: some were lost
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
			}
			for _, m := range messages {
				if m.Header.Command != cmdLinkDead {
					continue
				}
				if i, ok := indexIn(m.Data); ok {
					dead(i)
				}
			}
		}
	}()
	return func() {
		close(stop)
		c.Close()
		<-ended
	}, nil
}

func indexIn(data []byte) (int, bool) {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return 0, false
	}
	index, ok := 0, false
	for ad.Next() {
		if ad.Type() == attrIndex {
			index, ok = int(ad.Uint32()), true
		}
	}
	return index, ok && ad.Err() == nil
}
