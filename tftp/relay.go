package tftp

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// relay stands between the engine and a client that asked an address from
// which the system would not answer by itself: a moving address of several
// servers, a second one on the interface. Firmware drops an answer from
// elsewhere, and the engine cannot choose its address; so it talks to a socket
// on the loopback, whose datagrams go out from the right one.
type relay struct {
	inside, outside *net.UDPConn
	client          netip.AddrPort
	wg              sync.WaitGroup

	mu     sync.Mutex
	engine netip.AddrPort // known with its first datagram
}

func newRelay(local netip.Addr, client netip.AddrPort) (*relay, error) {
	outside, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, fmt.Errorf("tftp: answering from %v: %w", local, err)
	}
	inside, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		outside.Close()
		return nil, fmt.Errorf("tftp: answering from %v: %w", local, err)
	}
	r := &relay{inside: inside, outside: outside, client: client}
	r.wg.Add(2)
	go r.out() // both end in close
	go r.in()
	return r, nil
}

func (r *relay) addr() netip.AddrPort { return unmap(r.inside.LocalAddr().(*net.UDPAddr).AddrPort()) }

// out carries the engine's datagrams to the client.
func (r *relay) out() {
	defer r.wg.Done()
	buf := make([]byte, 4+maxBlock)
	for {
		n, from, err := r.inside.ReadFromUDPAddrPort(buf)
		if err != nil || unmap(from) == r.addr() {
			return
		}
		r.mu.Lock()
		if !r.engine.IsValid() {
			r.engine = from
		}
		known := from == r.engine
		r.mu.Unlock()
		if known {
			// What is lost here is lost as on any wire, and sent again.
			_, _ = r.outside.WriteToUDPAddrPort(buf[:n], r.client)
		}
	}
}

// in carries the client's datagrams to the engine.
func (r *relay) in() {
	defer r.wg.Done()
	buf := make([]byte, 4+defaultBlock)
	for {
		n, from, err := r.outside.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		engine := r.engine
		r.mu.Unlock()
		if unmap(from) == r.client && engine.IsValid() {
			_, _ = r.inside.WriteToUDPAddrPort(buf[:n], engine)
		}
	}
}

// close ends the relay when the engine is done. What the engine sent last may
// still wait in the socket, so the end is marked with a datagram of our own
// behind it; the deadline is for the case that it is lost.
func (r *relay) close() {
	_ = r.inside.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = r.inside.WriteToUDPAddrPort(nil, r.addr())
	r.outside.SetReadDeadline(time.Now())
	r.wg.Wait()
	r.inside.Close()
	r.outside.Close()
}
