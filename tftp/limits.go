package tftp

import (
	"errors"
	"net/netip"
	"time"
)

const (
	defaultMaxTransfers        = 1000
	defaultMaxTransfersPerPeer = 64
	limitWarnEvery             = 10 * time.Second
)

// ErrLimit is the reason of a [Trace].Refused for a request beyond
// [Server].MaxTransfers or MaxTransfersPerPeer. It is not answered: the client
// repeats it, and gets in when a transfer has ended; one whose client was silent
// from the beginning ends for it.
var ErrLimit = errors.New("tftp: too many transfers at once")

// ErrDuplicate is the reason of a [Trace].Refused for a repeated request whose
// first copy is being served. It is dropped; the answer to the first one is on
// its way (RFC 1123 section 4.2.3.1 is about what happens otherwise).
var ErrDuplicate = errors.New("tftp: repeated request")

// ticket is the right to work on one request.
type ticket struct {
	peer netip.AddrPort
	raw  string // the whole datagram
	from *client
	// t is set, under Server.mu, when the transfer starts.
	t *task
	// supersedes is the transfer that the client has perhaps forgotten.
	supersedes *task
}

// admission counts what is in flight. It is guarded by Server.mu.
type admission struct {
	total    int
	perPeer  map[netip.Addr]*client
	running  map[requestKey]*ticket
	refused  int // since the last warning
	warnedAt time.Time
}

// client is an address with requests in flight.
type client struct {
	n    int
	pace *pacer // nil: no limit
}

type requestKey struct {
	peer netip.AddrPort
	raw  string
}

// admit asks for the right to work on a request; release gives it back.
func (s *Server) admit(l *listener, peer netip.AddrPort, raw []byte) (*ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.admission
	if _, ok := s.listeners[l]; s.closing || !ok {
		return nil, ErrServerClosed
	}
	k := requestKey{peer, string(raw)}
	// A client that has got past its first block, was silent and asks again from
	// the same port was reset meanwhile: some firmware always begins with one
	// port. While it goes on with its transfer, this is a late copy.
	old := a.running[k]
	if old != nil && (old.t == nil || !old.t.stalled(s.timeout())) {
		return nil, ErrDuplicate
	}
	from := a.perPeer[peer.Addr()]
	if from == nil {
		from = &client{pace: newPacer(s.MaxRatePerPeer)}
	}
	if over(from.n, s.MaxTransfersPerPeer, defaultMaxTransfersPerPeer) || over(a.total, s.MaxTransfers, defaultMaxTransfers) && !a.makeRoom() {
		a.refused++
		if now := time.Now(); now.Sub(a.warnedAt) >= limitWarnEvery {
			s.logger().Warn("tftp: too many transfers at once; requests wait until the clients repeat them",
				"transfers", a.total, "peer", peer.Addr(), "from_peer", from.n, "refused", a.refused)
			a.refused, a.warnedAt = 0, now
		}
		return nil, ErrLimit
	}
	if a.running == nil {
		a.running = make(map[requestKey]*ticket)
		a.perPeer = make(map[netip.Addr]*client)
	}
	tk := &ticket{peer: peer, raw: k.raw, from: from}
	if old != nil {
		tk.supersedes = old.t
	}
	a.total++
	from.n++
	a.perPeer[peer.Addr()] = from
	a.running[k] = tk
	l.requests.Add(1) // given back in exchange.end
	return tk, nil
}

// makeRoom ends a transfer whose client has not answered twice, if there is one
// among some: forged addresses must not keep the others out. The limit is passed
// by those that are just ending.
func (a *admission) makeRoom() bool {
	looked := 0
	for _, tk := range a.running { // which begins anywhere
		if tk.t != nil && tk.t.giveUpUnseen() {
			return true
		}
		if looked++; looked == 64 {
			break
		}
	}
	return false
}

func (s *Server) release(tk *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.admission
	a.total--
	if tk.from.n--; tk.from.n == 0 {
		delete(a.perPeer, tk.peer.Addr())
	}
	a.settle(tk)
}

// settled makes the request a new one when the client sends it again. It is
// called before the client is told that it failed.
func (s *Server) settled(tk *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admission.settle(tk)
}

func (a *admission) settle(tk *ticket) {
	if k := (requestKey{tk.peer, tk.raw}); a.running[k] == tk {
		delete(a.running, k)
	}
}

// over says whether one more is beyond a limit field: 0 is its default, -1 none.
func over(n, limit, def int) bool {
	if limit == 0 {
		limit = def
	}
	return limit >= 0 && n >= limit
}
