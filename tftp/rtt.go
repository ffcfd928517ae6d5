package tftp

import (
	"net/netip"
	"time"
)

const (
	// firstWait is how long the answer to a client we do not know stays
	// unanswered before it is sent again.
	firstWait = 250 * time.Millisecond
	// defaultMinWait leaves a client time to write its disk.
	defaultMinWait = 20 * time.Millisecond
	// maxKnown bounds the clients whose round trip time is remembered.
	maxKnown = 4096
)

// rtt estimates a client's round trip time as RFC 6298 section 2 does.
type rtt struct{ smooth, variance time.Duration }

func (r *rtt) sample(d time.Duration) {
	if r.smooth == 0 {
		r.smooth, r.variance = d, d/2
		return
	}
	r.variance += ((r.smooth - d).Abs() - r.variance) / 4
	r.smooth += (d - r.smooth) / 8
}

// wait is how long an answer may take, between floor and limit.
func (r *rtt) wait(floor, limit time.Duration) time.Duration {
	if r.smooth == 0 {
		return min(max(firstWait, floor), limit)
	}
	// A steady round trip must not make every small delay a loss.
	return min(max(r.smooth+max(4*r.variance, r.smooth/2), floor), limit)
}

// remember keeps what was learned about a client for its next request.
func (s *Server) remember(peer netip.Addr, r rtt) {
	if r.smooth == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rtts == nil {
		s.rtts = make(map[netip.Addr]rtt)
	}
	if _, ok := s.rtts[peer]; !ok && len(s.rtts) >= maxKnown {
		for old := range s.rtts { // any one: it costs that client little
			delete(s.rtts, old)
			break
		}
	}
	s.rtts[peer] = r
}

func (s *Server) recall(peer netip.Addr) rtt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rtts[peer]
}
