package dhcp

import "sync"

// keyLock is a mutex per key. The zero value is ready to use. It holds no
// memory for keys that are not locked.
type keyLock struct {
	mu    sync.Mutex
	locks map[string]*keyEntry
	spare []*keyEntry // a few that nobody uses
}

type keyEntry struct {
	mu    sync.Mutex
	users int // holding or waiting
}

const maxSpare = 64

// lock waits for the key; what it returns is given to unlock.
func (k *keyLock) lock(key string) *keyEntry {
	k.mu.Lock()
	e := k.locks[key]
	if e == nil {
		if k.locks == nil {
			k.locks = make(map[string]*keyEntry)
		}
		if n := len(k.spare); n > 0 {
			e, k.spare = k.spare[n-1], k.spare[:n-1]
		} else {
			e = new(keyEntry)
		}
		k.locks[key] = e
	}
	e.users++
	k.mu.Unlock()
	e.mu.Lock()
	return e
}

func (k *keyLock) unlock(key string, e *keyEntry) {
	e.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(k.locks, key)
		if len(k.spare) < maxSpare {
			k.spare = append(k.spare, e)
		}
	}
}
