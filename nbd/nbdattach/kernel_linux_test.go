package nbdattach

import (
	"io/fs"
	"testing"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var family = genetlink.Family{ID: 33, Version: 1, Name: familyName, Groups: []genetlink.MulticastGroup{{ID: 7, Name: groupName}}}

// answering is the kernel's family nbd: f gets what is not about the family.
func answering(f genltest.Func) generic {
	return generic{func() (*genetlink.Conn, error) { return genltest.Dial(genltest.ServeFamily(family, f)), nil }}
}

func encode(t testing.TB, f func(*netlink.AttributeEncoder)) []byte {
	ae := netlink.NewAttributeEncoder()
	f(ae)
	data, err := ae.Encode()
	require.NoError(t, err)
	return data
}

// TestConnectMessage: the attributes are those of linux/nbd-netlink.h, and
// what is not set is not there.
func TestConnectMessage(t *testing.T) {
	g := answering(genltest.CheckRequest(33, cmdConnect, netlink.Request, func(q genetlink.Message, _ netlink.Message) ([]genetlink.Message, error) {
		got, err := netlink.UnmarshalAttributes(q.Data)
		require.NoError(t, err)
		var types []uint16
		for _, a := range got {
			types = append(types, a.Type)
		}
		require.Equal(t, []uint16{2, 3, 4, 8, 5, netlink.Nested | 7}, types, "size, block size, timeout, dead, flags, sockets")
		require.Equal(t, encode(t, func(ae *netlink.AttributeEncoder) { ae.Uint64(2, 1<<40) }), q.Data[:12])
		sockets := got[5].Data
		require.Equal(t, encode(t, func(ae *netlink.AttributeEncoder) {
			for _, fd := range []uint32{11, 12} {
				ae.Nested(1, func(item *netlink.AttributeEncoder) error { item.Uint32(1, fd); return nil })
			}
		}), sockets)
		return []genetlink.Message{{
			Header: genetlink.Header{Command: cmdConnect}, Data: encode(t, func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIndex, 9) }),
		}}, nil
	}))
	index, err := g.connect(deviceAttrs{index: -1, size: 1 << 40, blockSize: 512, timeout: 3, dead: 4, serverFlags: 1}, []uintptr{11, 12})
	require.NoError(t, err)
	require.Equal(t, 9, index)
}

func TestKernelErrors(t *testing.T) {
	refusing := func(errno unix.Errno) generic {
		return answering(func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
			return nil, genltest.Error(int(errno))
		})
	}
	_, err := refusing(unix.EBUSY).connect(deviceAttrs{index: 1}, nil)
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "attached already")
	require.ErrorIs(t, refusing(unix.ENOSPC).reconfigure(deviceAttrs{}, []uintptr{1}), errNoDead)
	require.ErrorIs(t, refusing(unix.EINVAL).reconfigure(deviceAttrs{}, nil), ErrDetached)
	require.ErrorIs(t, refusing(unix.EPERM).disconnect(1), unix.EPERM)

	none := generic{func() (*genetlink.Conn, error) {
		return genltest.Dial(func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
			return nil, genltest.Error(int(unix.ENOENT))
		}), nil
	}}
	_, err = none.attached(0)
	require.ErrorContains(t, err, "modprobe nbd")
}

// TestFlushUnseen: a device whose file is not there may be mounted.
func TestFlushUnseen(t *testing.T) {
	require.ErrorIs(t, generic{}.flush(1<<20-1), fs.ErrNotExist)
}

func status(t testing.TB, connected uint8) []byte {
	return encode(t, func(ae *netlink.AttributeEncoder) {
		ae.Nested(attrDeviceList, func(list *netlink.AttributeEncoder) error {
			list.Nested(deviceItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(1, 4)
				item.Uint8(deviceConnected, connected)
				return nil
			})
			return nil
		})
	})
}

func TestStatus(t *testing.T) {
	for _, want := range []uint8{0, 1} {
		g := answering(genltest.CheckRequest(33, cmdStatus, 0, func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
			return []genetlink.Message{{Data: status(t, want)}}, nil
		}))
		got, err := g.attached(4)
		require.NoError(t, err)
		require.Equal(t, want == 1, got)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(status(f, 1))
	f.Add(encode(f, func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIndex, 3) }))
	f.Add([]byte{5, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = connectedIn(data)
		_, _ = indexIn(data)
	})
}
