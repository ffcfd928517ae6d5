package ltsconf

// link finds the sections that LIKE settings name, tells of circles, and
// indexes the patterns.
func (p *parser) link() {
	f := p.f
	f.likes = p.likes
	targets := make([][]token, len(f.sections)) // beside section.like
	for _, l := range p.likes {
		if to, ok := f.index[fold(l.target.text)]; ok {
			s := &f.sections[l.section]
			s.like = append(s.like, to)
			targets[l.section] = append(targets[l.section], l.target)
		}
	}
	p.circles(targets)
	for i, s := range f.sections {
		if isPattern(s.name) && f.index[fold(s.name)] == int32(i) {
			f.patterns.add(fold(s.name), int32(i))
		}
	}
}

// circles notes each LIKE that leads back to a section it came from: clients
// follow it until memory is full.
func (p *parser) circles(targets [][]token) {
	const (
		unseen = iota
		onPath
		finished
	)
	type step struct{ section, next int32 }
	sections := p.f.sections
	state := make([]byte, len(sections))
	var path []step // explicit: a chain of LIKEs may be as long as the file
	for i := range sections {
		if state[i] != unseen {
			continue
		}
		state[i] = onPath
		path = append(path, step{section: int32(i)})
		for len(path) > 0 {
			top := &path[len(path)-1]
			if int(top.next) == len(sections[top.section].like) {
				state[top.section] = finished
				path = path[:len(path)-1]
				continue
			}
			to, t := sections[top.section].like[top.next], targets[top.section][top.next]
			top.next++
			switch state[to] {
			case unseen:
				state[to] = onPath
				path = append(path, step{section: to})
			case onPath:
				if len(p.f.problems) < maxProblems {
					p.note(t, "LIKE in a circle: [%s] leads back to itself, and clients never finish reading", clip(t.text))
				}
			}
		}
	}
}
