package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Probe asks whether DHCP servers answer on the network of an interface, and
// returns the offers of all that do, one for each server. It sends DISCOVERs,
// one of an ordinary and one of a booting client, every second, until ctx ends
// or for five seconds; a second after the first answer it returns. That nobody
// answered is no error. An offer that it gets is not accepted; the server
// holds the address for some time.
//
// The interface must be up, and needs no address; ports 67 and 68 of this
// machine may be in use. DHCP servers that run on this very machine are not
// found: that port 67 is taken tells about them. On a switch port with
// spanning tree that came up just now nothing may pass for half a minute.
//
// It needs the capability CAP_NET_RAW ([fs.ErrPermission] without), and an
// Ethernet interface. On other systems than Linux it is
// [errors.ErrUnsupported].
func Probe(ctx context.Context, iface string) ([]Offer, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("dhcp: probe: interface %q: %w", iface, err)
	}
	if len(ifi.HardwareAddr) != 6 || ifi.Flags&net.FlagLoopback != 0 {
		return nil, fmt.Errorf("dhcp: probe: interface %q is no Ethernet: %w", iface, errors.ErrUnsupported)
	}
	if ifi.Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("dhcp: probe: interface %q is down: ip link set %s up: %w", iface, iface, unix.ENETDOWN)
	}
	conn, err := openPacket(ifi)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: run as root, or with the capability CAP_NET_RAW", err)
		}
		return nil, fmt.Errorf("dhcp: probe %q: %w", iface, err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	offers, err := probe(ctx, conn, ifi.HardwareAddr)
	if err != nil {
		return offers, fmt.Errorf("dhcp: probe %q: %w", iface, err)
	}
	return offers, nil
}

func probe(ctx context.Context, conn *os.File, hw net.HardwareAddr) ([]Offer, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	messages := probeMessages(hw)
	xids := []dhcpv4.TransactionID{messages[0].TransactionID, messages[1].TransactionID}
	frame := make([]byte, 2*maxDatagram)
	var found []Offer
	var end time.Time // set by the first offer
	for ctx.Err() == nil {
		for _, m := range messages {
			if _, err := conn.Write(broadcastFrame(hw, m.ToBytes())); err != nil {
				return found, err
			}
		}
		deadline := time.Now().Add(time.Second)
		for ctx.Err() == nil {
			if !end.IsZero() {
				deadline = end
			}
			if err := conn.SetReadDeadline(deadline); err != nil {
				return found, err
			}
			if ctx.Err() != nil { // ended before the deadline was set
				break
			}
			n, err := conn.Read(frame)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return found, err
			}
			o, ok := parseOffer(frame[:n], xids...)
			if !ok || slices.ContainsFunc(found, func(f Offer) bool { return f.same(o) }) {
				continue
			}
			found = append(found, o)
			if end.IsZero() {
				end = time.Now().Add(probeMore)
			}
		}
		if !end.IsZero() {
			break
		}
	}
	return found, nil
}

// openPacket opens a packet socket on the interface that sees the UDP packets
// to port 68 only.
func openPacket(ifi *net.Interface) (*os.File, error) {
	return packetSocket(ifi, unix.ETH_P_IP, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoUDP, SkipTrue: 4},
		bpf.LoadMemShift{Off: etherHeader},
		bpf.LoadIndirect{Off: etherHeader + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 2 * maxDatagram},
		bpf.RetConstant{Val: 0},
	})
}

// packetSocket opens a packet socket for one protocol on the interface, that
// sees what the filter lets pass.
func packetSocket(ifi *net.Interface, protocol uint16, instructions []bpf.Instruction) (*os.File, error) {
	filter, err := bpf.Assemble(instructions)
	if err != nil {
		return nil, err
	}
	program := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		program[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	// Protocol 0 receives nothing until the filter is in place and bind
	// names the protocol.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("attach filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
	if err == nil {
		network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: ifi.Index}))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet:"+ifi.Name), nil
}
