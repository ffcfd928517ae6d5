package dhcp

import "fmt"

// A journal is written anew when it is twice as long as its leases need, and
// longer than compactAbove.
const defaultCompactAbove = 4 << 20

// mayCompact starts to write the journal anew, beside the one in use; the
// caller has the token. Nobody waits for it but at its end, for what came in
// meanwhile.
func (s *FileStore) mayCompact() {
	s.mu.RLock()
	due := s.file.end > s.compactAbove && s.file.end > 2*int64(s.table.len())*s.file.average()
	var all []record
	if due {
		all = s.contents()
	}
	s.mu.RUnlock()
	if !due {
		return
	}
	s.tailing, s.tail = true, nil
	s.wg.Add(1)
	go func() { // ends when the new file is complete; Close waits for it
		defer s.wg.Done()
		s.compact(all)
	}()
}

func (s *FileStore) compact(all []record) {
	next, err := createJournal(s.dir, s.name+".new", all)
	<-s.token
	defer func() { s.token <- struct{}{} }()
	s.tailing = false
	if err == nil {
		// What was written to the old file since; then the new one takes its
		// place, and only then its first record is reported done.
		if err = next.write(s.tail); err != nil {
			next.discard()
		}
	}
	s.tail = nil
	if err != nil {
		s.compactAbove = 2 * s.file.end
		orDefault(s.o.Logger).Warn("dhcp: the lease file cannot be written anew, and grows on: make room on its disk",
			"file", s.name, "bytes", s.file.end, "err", err)
		return
	}
	if err := s.replaceBy(next); err != nil {
		next.close()
		// Which of the two files has the name may not be known: nothing more
		// is promised.
		s.mu.Lock()
		if s.failed == nil {
			s.failed = fmt.Errorf("dhcp: lease file: writing it anew: %w", err)
		}
		s.mu.Unlock()
	}
}

// replaceBy has the new file take the place of the one in use.
func (s *FileStore) replaceBy(next *journal) error {
	if err := next.takeName(s.dir, s.name, s.file); err != nil {
		return err
	}
	if err := s.dir.sync(); err != nil {
		return err
	}
	s.file.close()
	s.file = next
	return nil
}
