// Package inorder has what each client sends handled in the order in which it
// came: a RELEASE must not end the lease that a REQUEST behind it made, which
// is what happens when a server that was stopped finds both.
package inorder

import "sync"

// MaxWaiting bounds what waits of one client: it repeats itself, but does not
// wait for so many answers, and must not take the places of all others.
const MaxWaiting = 8

// Lines are the clients that are being worked for, and what else of theirs
// waits for that. It is ready as zero value, safe for concurrent use, and holds
// no memory for clients that nothing is done for.
type Lines[K comparable, T any] struct {
	mu    sync.Mutex
	lines map[K][]T
}

// Enter reports whether it is the client's turn. If not, who is at work for it
// gets the item from Leave; without ok there are too many, and nobody does.
func (l *Lines[K, T]) Enter(client K, item T) (now, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting, busy := l.lines[client]
	switch {
	case !busy:
		if l.lines == nil {
			l.lines = make(map[K][]T)
		}
		l.lines[client] = nil
		return true, true
	case len(waiting) >= MaxWaiting:
		return false, false
	}
	l.lines[client] = append(waiting, item)
	return false, true
}

// Leave ends one turn, and begins that of the client's next item, if there is one.
func (l *Lines[K, T]) Leave(client K) (next T, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.lines[client]
	if len(waiting) == 0 {
		delete(l.lines, client)
		return next, false
	}
	var none T
	next, waiting[0] = waiting[0], none // not held by the array
	l.lines[client] = waiting[1:]
	return next, true
}
