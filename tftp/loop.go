package tftp

import (
	"container/heap"
	"sync"
	"time"
)

// instant is a time since the server began: cheap to compare.
type instant = time.Duration

// session is one transfer as its loop sees it. Its methods are called with the
// loop's lock held, and do not block.
type session interface {
	// packet is a datagram from the client; b is valid during the call.
	packet(now instant, b []byte)
	// refused is called when the client's system says that nobody listens.
	refused(now instant)
	// expire is called when the task's deadline is over.
	expire(now instant)
	// resume continues what was put off, or what waited for the file.
	resume(now instant)
	// abort ends the session, if it has not ended, and tells the client; drop
	// says nothing.
	abort(now instant, err error)
	drop(now instant)
	// answered says whether the client is known to be there.
	answered() bool
	// unseen says whether the client has left a datagram and its repetition
	// without an answer, and has never sent one: perhaps a forged address.
	unseen() bool
}

// loop is the lock, the clock and the agenda of some sessions. Each of its
// events is run to completion by whoever brings it: the goroutine that reads
// the sockets, one that has read a file, a timer.
type loop struct {
	mu     sync.Mutex
	epoch  time.Time
	alarm  func(at instant) // arranges a call of work by then; called with mu held
	timers timerHeap
	queue  []*task // to be resumed
	tasks  map[*task]struct{}
	ended  error // of those that come now
}

// task is a session's entry in its loop. session, loop and index are set before
// anybody knows it.
type task struct {
	session  session
	loop     *loop
	deadline instant // 0: none
	wake     instant // when the heap looks at it, not later than the deadline
	index    int     // in the heap, -1 when it is not
	queued   bool
	over     bool
	heard    instant // when confirmed was called last
	former   *task   // of the same request; the client has forgotten it if it answers this one
}

// confirmed is called when the client has answered, and each time that it gets
// on. Not before does a former transfer end: the request may be a late copy of
// the first.
func (t *task) confirmed(now instant) {
	t.heard = now
	if t.former != nil {
		go t.former.giveUp() // ends when that one's loop is free, which this one must not wait for
		t.former = nil
	}
}

// stalled says whether the client was there, and has not got on for so long. It is
// for those who do not hold the loop's lock, as are giveUp and giveUpUnseen.
func (t *task) stalled(d time.Duration) bool {
	t.loop.mu.Lock()
	defer t.loop.mu.Unlock()
	return t.session.answered() && t.loop.now()-t.heard >= d
}

// giveUp ends a session without a word.
func (t *task) giveUp() {
	t.loop.mu.Lock()
	defer t.loop.mu.Unlock()
	t.session.drop(t.loop.now())
}

// giveUpUnseen is giveUp for a session whose client was silent twice, and never
// said anything else.
func (t *task) giveUpUnseen() bool {
	t.loop.mu.Lock()
	defer t.loop.mu.Unlock()
	if t.over || !t.session.unseen() {
		return false
	}
	t.session.drop(t.loop.now())
	return true
}

func (l *loop) now() instant { return time.Since(l.epoch) }

// add makes a session one of the loop's. mu is held, as for all that follows.
func (l *loop) add(t *task) {
	if l.tasks == nil {
		l.tasks = make(map[*task]struct{})
	}
	l.tasks[t] = struct{}{}
}

// remove ends the session's part in the loop.
func (l *loop) remove(t *task) {
	if t.index >= 0 {
		heap.Remove(&l.timers, t.index)
	}
	t.over = true
	delete(l.tasks, t)
}

// arm sets the task's deadline. Moving it back, which every acknowledgement
// does, costs nothing: the heap finds out when it looks.
func (l *loop) arm(t *task, at instant) {
	t.deadline = at
	switch {
	case t.index < 0:
		t.wake = at
		heap.Push(&l.timers, t)
	case at < t.wake:
		t.wake = at
		heap.Fix(&l.timers, t.index)
	default:
		return
	}
	if l.timers[0] == t {
		l.alarm(at)
	}
}

// later resumes the session after the others have had their turn.
func (l *loop) later(t *task) {
	if !t.queued {
		t.queued = true
		l.queue = append(l.queue, t)
		l.alarm(1)
	}
}

// work does what is due, and gives every queued session one turn. It returns
// when to come again: at once (0) when sessions are still queued, at the next
// deadline, or never (-1).
func (l *loop) work(now instant) (next instant) {
	for len(l.timers) > 0 && l.timers[0].wake <= now {
		t := l.timers[0]
		if t.deadline > now {
			t.wake = t.deadline
			heap.Fix(&l.timers, 0)
			continue
		}
		heap.Pop(&l.timers)
		if t.deadline != 0 {
			t.deadline = 0
			t.session.expire(now)
		}
	}
	turn := len(l.queue)
	for _, t := range l.queue[:turn] {
		t.queued = false
		if !t.over {
			t.session.resume(now)
		}
	}
	l.queue = append(l.queue[:0], l.queue[turn:]...)
	switch {
	case len(l.queue) > 0:
		return 0
	case len(l.timers) > 0:
		return max(1, l.timers[0].wake)
	}
	return -1
}

// abort ends all sessions, and those that come later.
func (l *loop) abort(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = err
	for t := range l.tasks {
		t.session.abort(l.now(), err)
	}
}

type timerHeap []*task

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].wake < h[j].wake }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *timerHeap) Push(x any)        { t := x.(*task); t.index = len(*h); *h = append(*h, t) }
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1], t.index = nil, -1
	*h = old[:len(old)-1]
	return t
}
