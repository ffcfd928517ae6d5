package ltsconf

import (
	"fmt"
	"slices"
	"strings"
)

// Lint returns what is probably a mistake, in the order of the file; at most a
// thousand findings: the [LTSPFile.Problems] (rule "syntax"); INCLUDE of a
// section that is not there, or in a circle ("include"); sections that run for
// no client ("dead-section"); names that LTSP does not know and the file does
// not read ("unknown"), values of the wrong type ("type"), settings where they
// do not count ("unused") or that a later one of the section replaces
// ("duplicate-setting"), passwords for many clients ("secret"), fstab lines
// that can stop the boot ("fstab"). Settings within conditions and loops are
// the file's own business.
func (f *LTSPFile) Lint() []Finding {
	var out []Finding
	for _, p := range f.problems {
		out = append(out, Finding{"syntax", p.File, p.Line, p.Col, p.Msg})
	}
	add := func(rule string, line, col int, format string, args ...any) {
		if len(out) < maxFindings {
			out = append(out, Finding{rule, f.name, line, col, fmt.Sprintf(format, args...)})
		}
	}
	included := make(map[string]bool)
	left := maxEffort
	for i := range f.sections {
		s := &f.sections[i]
		walk(s.body, func(n *node) {
			if len(n.words) < 2 || plainText(n.words[0]) != includeCommand {
				return
			}
			name := plainText(n.words[1])
			included[name] = true
			if _, ok := f.find(name); !ok && len(out) < maxFindings {
				_, line, col := f.at(n.off)
				add("include", line, col, "INCLUDE of %s: no section matches, and clients ignore it%s", clip(name), f.meant(name, &left))
			}
		})
	}
	var globs []glob
	for i := range f.sections {
		s := &f.sections[i]
		if s.line == 0 || len(out) >= maxFindings {
			continue
		}
		// Dead when each alternative is: taken by an earlier section, or no
		// name of a client.
		why := ""
		for a := range strings.SplitSeq(s.label, "|") {
			w := ""
			if by := slices.IndexFunc(globs, func(g glob) bool { return left.covers(g.name, a) }); by >= 0 {
				g := f.sections[globs[by].section]
				w = fmt.Sprintf("nothing gets to [%s]: [%s] in line %d comes first", clip(s.label), clip(g.label), g.line)
			} else if dead := deadName(a); dead != "" && !strings.Contains(a, "/") && !included[a] {
				w = fmt.Sprintf("no client matches [%s]: %s", clip(s.label), dead)
			}
			if why = w; w == "" {
				break
			}
		}
		if why != "" {
			add("dead-section", s.line, 1, "%s", why)
		}
		for a := range strings.SplitSeq(s.label, "|") {
			if strings.ContainsAny(a, "*?") && len(globs) < maxFindings {
				globs = append(globs, glob{a, int32(i)})
			}
		}
	}
	f.ltspSettings(add)
	f.includeCircles(add)
	slices.SortStableFunc(out, func(a, b Finding) int { return a.Line - b.Line })
	return out
}

// meant offers the section that was probably meant.
func (f *LTSPFile) meant(name string, left *effort) string {
	best, at := 3, ""
	for _, s := range f.sections[:min(len(f.sections), maxFindings)] {
		if d := left.distance(s.label, name, best); d < best && d < len(name) {
			best, at = d, s.label
		}
	}
	if at == "" {
		return ""
	}
	return "; is it " + clip(at) + "?"
}
