package nbd

import (
	"context"
	"slices"
	"sync"
)

// How many times what a connection has must be left for it to get more, and how
// many times what all of its address have.
const (
	leftOfOne  = 16
	leftOfPeer = 4
)

// budget is memory that connections share. What one may have depends on what is
// left, so that those that take all they can get, and give nothing back, leave
// enough for others.
type budget struct {
	mu    sync.Mutex
	free  int64
	queue []*share // those that wait, in turn
}

// share is what one connection has of a budget, which guards it.
type share struct {
	peer *peer
	held int64
	wait *claim // the first of those it waits for
}

// peer is what the connections from one address have in common.
type peer struct {
	conns int   // the server guards it
	held  int64 // the budget guards it
}

type claim struct {
	n     int64
	given chan struct{}
	next  *claim
}

// take waits for n bytes. It fails only when ctx ends.
func (b *budget) take(ctx context.Context, s *share, n int64) error {
	if n == 0 {
		return nil
	}
	b.mu.Lock()
	if s.wait == nil && b.fits(s, n) && !b.owes() {
		b.grant(s, n)
		b.mu.Unlock()
		return nil
	}
	c := &claim{n: n, given: make(chan struct{})}
	if s.wait == nil {
		b.queue = append(b.queue, s)
	}
	at := &s.wait
	for *at != nil {
		at = &(*at).next
	}
	*at = c
	b.mu.Unlock()
	select {
	case <-c.given:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for at = &s.wait; *at != nil && *at != c; at = &(*at).next {
	}
	if *at == nil {
		b.put(s, n) // it was given meanwhile
	} else if *at = c.next; s.wait == nil {
		b.queue = slices.DeleteFunc(b.queue, func(o *share) bool { return o == s })
	}
	b.serve() // others may have waited behind it
	return context.Cause(ctx)
}

// give gives n bytes back.
func (b *budget) give(s *share, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(s, n)
	b.serve()
}

func (b *budget) fits(s *share, n int64) bool {
	return max(leftOfOne*s.held, leftOfPeer*s.peer.held)+n <= b.free
}

// owes says whether one that waits has nothing, nor has its address. Nothing is in
// its way but others' being quicker: none behind it gets anything before it.
func (b *budget) owes() bool {
	return slices.ContainsFunc(b.queue, func(s *share) bool { return s.peer.held == 0 })
}

func (b *budget) grant(s *share, n int64) {
	b.free, s.held, s.peer.held = b.free-n, s.held+n, s.peer.held+n
}

func (b *budget) put(s *share, n int64) { b.grant(s, -n) }

// serve gives those that wait what they can have now. Who got something and waits
// for more goes to the end of the queue.
func (b *budget) serve() {
	for i := 0; i < len(b.queue); {
		s := b.queue[i]
		c := s.wait
		switch {
		case b.fits(s, c.n):
			b.grant(s, c.n)
			close(c.given)
			b.queue = slices.Delete(b.queue, i, i+1)
			if s.wait = c.next; s.wait != nil {
				b.queue = append(b.queue, s)
			}
		case s.peer.held == 0:
			return // as owes has it
		default:
			i++
		}
	}
}
