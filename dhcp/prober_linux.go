package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

func arpProbe(ctx context.Context, iface *net.Interface, addr netip.Addr, client net.HardwareAddr) (bool, error) {
	if len(iface.HardwareAddr) != 6 {
		return false, fmt.Errorf("dhcp: probe: interface %q is no Ethernet: %w", iface.Name, errors.ErrUnsupported)
	}
	a := addr.As4()
	conn, err := packetSocket(iface, unix.ETH_P_ARP, []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 14, Size: 4}, // the sender's address
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3]), SkipTrue: 1},
		bpf.RetConstant{Val: 128},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Asked twice: the first frame may get lost.
	end, _ := ctx.Deadline()
	half := time.Until(end) / 2
	frame := make([]byte, 128)
	for range 2 {
		if _, err := conn.Write(arpRequest(iface.HardwareAddr, addr)); err != nil {
			return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
		}
		conn.SetReadDeadline(time.Now().Add(half))
		for ctx.Err() == nil {
			n, err := conn.Read(frame)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
			}
			if arpConflict(frame[:n], addr, client, iface.HardwareAddr) {
				return true, nil
			}
		}
	}
	return false, nil
}

func pingProbe(ctx context.Context, addr netip.Addr) (bool, error) {
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
	}
	defer conn.Close()
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Data: []byte("in use?")}}
	data, err := echo.Marshal(nil)
	if err != nil {
		return false, err
	}
	if _, err := conn.WriteTo(data, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
		return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("dhcp: probe %v: %w", addr, err)
		}
		ip, ok := from.(*net.IPAddr)
		if ok && toAddr(ip.IP) == addr && n > 0 && buf[0] == byte(ipv4.ICMPTypeEchoReply) {
			return true, nil
		}
	}
}
