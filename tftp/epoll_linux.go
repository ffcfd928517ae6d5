package tftp

import (
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxPollers = 4
	// hotWait is how long a poller waits for the next packet without telling
	// the scheduler: less than it takes the runtime to notice, and several
	// times the cheaper. A client in lockstep answers within it.
	hotWait = 100 * time.Microsecond
	// A few clients whose packets come within spinWait are waited for awake: to
	// fall asleep and to be woken takes as long, above all in virtual machines,
	// and as much of the processor. Where there are more, one is always there.
	// The time includes that of being woken, as long as they are not waited for
	// so: less would not notice a quick client after slow ones.
	spinWait = 75 * time.Microsecond
	spinners = 4
)

// epoll is the transport for a *net.UDPConn: one goroutine, or a few, that wait
// for all sockets and do what a packet asks for on the spot.
type epoll struct {
	s       *Server
	fd      int // the socket of the requests, our own copy
	onePort bool
	v4      bool // fd's family
	pollers []*poller
	turn    atomic.Uint32 // whose the next transfer is
	accept  func(datagram, []byte)

	down    chan struct{} // stopped: no more requests
	broken  chan error
	running sync.WaitGroup // the pollers
	in      *batch
	ports   map[portKey]*udpLink // one-port mode; guarded by pollers[0].mu
}

// poller is a loop with a goroutine of its own.
type poller struct {
	loop
	tr     *epoll
	ep     int
	wakeup int // an eventfd
	links  map[int32]*udpLink
	until  instant // the end of its waiting; 0 while it is awake
	quit   bool
	buf    []byte
	gap    time.Duration // between packets, about
}

func newTransport(s *Server, conn net.PacketConn) (transport, error) {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return newPacketConn(s, conn), nil
	}
	rc, err := udp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("tftp: %w", err)
	}
	e := &epoll{s: s, onePort: s.OnePort, down: make(chan struct{}), broken: make(chan error, 1), in: newBatch()}
	// A copy, which the runtime does not know of, is polled by us alone.
	if cerr := rc.Control(func(fd uintptr) { e.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("tftp: %w", err)
	}
	conn.Close()
	local, err := unix.Getsockname(e.fd)
	if err != nil {
		unix.Close(e.fd)
		return nil, fmt.Errorf("tftp: %w", err)
	}
	_, e.v4 = local.(*unix.SockaddrInet4)
	_ = unix.SetsockoptInt(e.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	_ = unix.SetsockoptInt(e.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	_ = unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // a room full of machines asks at once
	n := 1
	if e.onePort {
		e.ports = make(map[portKey]*udpLink)
		_ = unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	} else {
		// One processor stays with the rest of the program: what it does with
		// its own sockets must not wait for a hot poller.
		n = max(1, min(maxPollers, runtime.GOMAXPROCS(0)-1))
	}
	for range n {
		p, err := newPoller(e)
		if err != nil {
			e.close()
			return nil, fmt.Errorf("tftp: %w", err)
		}
		e.pollers = append(e.pollers, p)
	}
	if err := e.pollers[0].watch(e.fd); err != nil {
		e.close()
		return nil, fmt.Errorf("tftp: %w", err)
	}
	return e, nil
}

func newPoller(e *epoll) (*poller, error) {
	p := &poller{tr: e, wakeup: -1, links: make(map[int32]*udpLink), buf: make([]byte, 4+maxBlock)}
	p.loop.epoch, p.loop.alarm = e.s.epoch, p.alarm
	var err error
	if p.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if p.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = p.watch(p.wakeup)
	}
	if err != nil {
		p.free()
		return nil, os.NewSyscallError("eventfd", err)
	}
	return p, nil
}

func (p *poller) watch(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

func (p *poller) free() {
	unix.Close(p.ep)
	if p.wakeup >= 0 {
		unix.Close(p.wakeup)
	}
}

func (e *epoll) run(accept func(datagram, []byte)) error {
	e.accept = accept
	for _, p := range e.pollers {
		e.running.Go(p.poll) // ends in close
	}
	select {
	case err := <-e.broken:
		return err
	case <-e.down:
		return nil
	}
}

// stop frees the port, unless transfers use it.
func (e *epoll) stop() {
	p := e.pollers[0]
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.stopped() {
		return
	}
	close(e.down)
	if !e.onePort {
		// Closing is not enough where somebody else has the socket, too, such as
		// the service manager: what arrives on it would go on waking us.
		_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, e.fd, nil)
		e.shut()
	}
}

// shut closes the socket of the requests. The lock of the first poller is held.
func (e *epoll) shut() {
	if e.fd >= 0 {
		unix.Close(e.fd)
		e.fd = -1
	}
}

func (e *epoll) stopped() bool {
	select {
	case <-e.down:
		return true
	default:
		return false
	}
}

func (e *epoll) close() {
	for _, p := range e.pollers {
		p.mu.Lock()
		p.quit = true
		p.wake()
		p.mu.Unlock()
	}
	e.running.Wait()
	for _, p := range e.pollers {
		p.free()
	}
	e.shut()
}

func (e *epoll) abort(err error) {
	for _, p := range e.pollers {
		p.loop.abort(err)
	}
}

// alarm wakes the poller when it would sleep too long.
func (p *poller) alarm(at instant) {
	if at < p.until {
		p.until = at
		p.wake()
	}
}

func (p *poller) wake() {
	one := [8]byte{0: 1, 7: 1} // in either byte order not zero
	_, _ = unix.Write(p.wakeup, one[:])
}

// poll waits for packets and deadlines.
func (p *poller) poll() {
	events := make([]unix.EpollEvent, 64)
	hot := false
	for {
		p.mu.Lock()
		next := p.work(p.now())
		p.until = next
		if next < 0 {
			p.until = math.MaxInt64
		}
		quit, few := p.quit, len(p.tasks) <= spinners
		p.mu.Unlock()
		if quit {
			return
		}
		n := 0
		if hot && next != 0 {
			n = p.waitHot(events, next, few)
		} else {
			n = p.wait(events, next)
		}
		hot = n > 0
		p.mu.Lock()
		p.until = 0
		now, requests := p.now(), false
		for _, ev := range events[:n] {
			switch link := p.links[ev.Fd]; {
			case link != nil:
				p.receive(now, link)
			case int(ev.Fd) == p.wakeup:
				var b [8]byte
				_, _ = unix.Read(p.wakeup, b[:])
			case p == p.tr.pollers[0] && int(ev.Fd) == p.tr.fd:
				requests = true
			}
		}
		p.mu.Unlock()
		if requests {
			p.tr.receive(p)
		}
	}
}

// waitHot waits after a packet, when the next one may be near.
func (p *poller) waitHot(events []unix.EpollEvent, next instant, few bool) (n int) {
	runtime.Gosched() // others first
	began := p.now()
	if p.gap <= hotWait {
		var limit struct{ sec, nsec int64 } // so on 32-bit systems, too
		spin := few && p.gap <= spinWait
		if !spin {
			limit.nsec = int64(hotWait)
		}
		for again := true; again; again = spin && n == 0 && p.now()-began < hotWait {
			r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
				uintptr(unsafe.Pointer(&limit)), 0, 0)
			if errno != 0 { // a kernel before 5.11 does not know it
				break
			}
			n = int(r)
		}
	}
	if n == 0 {
		n = p.wait(events, next)
	}
	if n > 0 {
		p.gap += (min(p.now()-began, 4*hotWait) - p.gap) / 4
	}
	return n
}

// wait waits for events until next: 0 does not wait, negative waits for ever.
func (p *poller) wait(events []unix.EpollEvent, next instant) int {
	ms := -1
	if next >= 0 {
		ms = int(min((max(0, next-p.now())+time.Millisecond-1)/time.Millisecond, 60_000))
	}
	n, err := unix.EpollWait(p.ep, events, ms)
	if err != nil { // interrupted
		return 0
	}
	return n
}

// receive reads one packet of a transfer with a socket of its own; when there
// are more the system says so again.
func (p *poller) receive(now instant, u *udpLink) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(u.fd), uintptr(unsafe.Pointer(&p.buf[0])), uintptr(len(p.buf)),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	switch {
	case errno == unix.ECONNREFUSED:
		u.session.refused(now)
	case errno == 0 && int(n) <= len(p.buf):
		u.session.packet(now, p.buf[:n])
	}
}

// receive reads the socket of the requests, on the goroutine of its poller.
func (e *epoll) receive(p *poller) {
	p.mu.Lock()
	n, err := 0, error(nil)
	if e.fd >= 0 {
		n, err = e.in.read(e.fd)
	}
	p.mu.Unlock()
	if err != nil {
		e.s.logger().Warn("tftp: reading a request", "error", err)
		if e.in.failed++; e.in.failed == maxReadErrors {
			select {
			case e.broken <- fmt.Errorf("tftp: reading requests: %w", err):
			default:
			}
		}
		return
	}
	e.in.failed = 0
	if e.onePort {
		p.mu.Lock()
		now := p.now()
		for i := range n {
			if b, whole := e.in.datagram(i); whole && !isRequest(b) {
				if u := e.ports[e.in.key(i)]; u != nil {
					u.session.packet(now, b)
				}
			}
		}
		p.mu.Unlock()
	}
	for i := range n {
		if b, _ := e.in.datagram(i); isRequest(b) && !e.stopped() {
			e.accept(e.in.from(i), b)
		}
	}
}
