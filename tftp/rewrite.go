package tftp

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
)

// Rewrite changes the names that its handler sees, by rules with regular
// expressions. It is for names that firmware or other servers' configurations
// hold: a prefix, a drive letter, another case.
type Rewrite struct {
	Rules []Rule
	Next  Handler
}

// Rule is one rule of a [Rewrite]. It looks at the name as [Request.Name] has
// it, without a leading slash, and a rule after another one sees its result.
type Rule struct {
	// Match says which names the rule is for.
	Match *regexp.Regexp
	// Not makes it for those that do not match; then only Refuse and Last have
	// a meaning.
	Not bool
	// With takes the place of the first match, nil leaves the name as it is. It
	// gets the name, where the groups matched, as
	// [regexp.Regexp.FindStringSubmatchIndex] says, and the request.
	With func(name string, groups []int, r *Request) string
	// All replaces all matches.
	All bool
	// Refuse is the error the client gets, instead of a file.
	Refuse error
	// Last: no rule after this one is looked at.
	Last bool
	// Again: when the rule was applied, begin with the first one.
	Again bool
	// Reads and Writes restrict the rule to requests of that kind.
	Reads, Writes bool
	// Family is 4 or 6, for clients with IPv4 or IPv6 only; 0 is for both.
	Family int
}

// maxAgain bounds rules that begin again, as a loop of them would.
const maxAgain = 50

// rewrite returns the name after the rules.
func (w *Rewrite) rewrite(r *Request, write bool) (*Request, error) {
	name := r.Name
	for i, again := 0, 0; i < len(w.Rules); i++ {
		rule := &w.Rules[i]
		if rule.Reads && write || rule.Writes && !write || rule.Family != 0 && (rule.Family == 4) != r.Peer.Addr().Is4() {
			continue
		}
		groups := rule.Match.FindStringSubmatchIndex(name)
		if (groups == nil) != rule.Not {
			continue
		}
		if rule.Refuse != nil {
			return nil, rule.Refuse
		}
		if rule.With != nil && !rule.Not {
			name = strings.TrimLeft(rule.replace(name, groups, r), "/")
			if len(name) > maxRequest {
				return nil, fmt.Errorf("tftp: rewriting %q makes a name of more than %d bytes: %w", r.Name, maxRequest, fs.ErrPermission)
			}
		}
		if rule.Last {
			break
		}
		if rule.Again {
			if again++; again > maxAgain {
				return nil, fmt.Errorf("tftp: rewriting %q does not end; see the rules that begin again: %w", r.Name, fs.ErrInvalid)
			}
			i = -1
		}
	}
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	q := *r
	q.Name = clean
	return &q, nil
}

func (u *Rule) replace(name string, groups []int, r *Request) string {
	var b strings.Builder
	at := 0
	all := [][]int{groups}
	if u.All {
		all = u.Match.FindAllStringSubmatchIndex(name, -1)
	}
	for _, g := range all {
		b.WriteString(name[at:g[0]])
		b.WriteString(u.With(name, g, r))
		at = g[1]
	}
	return b.String() + name[at:]
}

// OpenTFTP asks Next for the rewritten name.
func (w *Rewrite) OpenTFTP(ctx context.Context, r *Request) (File, error) {
	q, err := w.rewrite(r, false)
	if err != nil {
		return nil, err
	}
	return w.Next.OpenTFTP(ctx, q)
}

// CreateTFTP asks Next, when it takes uploads.
func (w *Rewrite) CreateTFTP(ctx context.Context, r *Request) (Upload, error) {
	q, err := w.rewrite(r, true)
	if err != nil {
		return nil, err
	}
	return create(ctx, w.Next, q)
}

// SyntaxError is what is wrong with a map file.
type SyntaxError struct {
	Line int
	Msg  string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("tftp: map file, line %d: %s", e.Line, e.Msg)
}

// ParseMap reads rules in the format of tftpd-hpa's map file: on each line the
// operation, a regular expression and a replacement, and comments after #. The
// letters r, g, i, e, s, a, G, P, 4, 6 and ~ of an operation are understood; in
// a replacement \0 to \9 are what matched, \i the client's address, \x its
// IPv4 address in hexadecimal digits, \U, \L and \E begin and end upper and
// lower case, and \\ and \# stand for themselves. Expressions are Go's
// ([regexp/syntax]), which has all of POSIX but back references.
//
// A rule sees the name as [Request].Name has it, with slashes, of which none
// leads: ^/ never matches, and one that a replacement begins with is taken away.
func ParseMap(r io.Reader) ([]Rule, error) {
	var rules []Rule
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		fields := mapFields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		rule, err := mapRule(fields)
		if err != nil {
			return nil, &SyntaxError{n, err.Error()}
		}
		rules = append(rules, rule)
	}
	return rules, lines.Err()
}

// mapFields splits a line; # begins a comment where it is not escaped.
func mapFields(line string) []string {
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
		} else if line[i] == '#' {
			line = line[:i]
		}
	}
	return strings.Fields(line)
}

func mapRule(fields []string) (rule Rule, err error) {
	if len(fields) < 2 || len(fields) > 3 {
		return rule, errors.New("want an operation, an expression and a replacement")
	}
	expr, with := fields[1], ""
	if len(fields) == 3 {
		with = fields[2]
	}
	var replaces bool
	for _, c := range []byte(fields[0]) {
		switch c {
		case 'r':
			replaces = true
		case 'g':
			rule.All = true
		case 'i':
			expr = "(?i)" + expr
		case 'e':
			rule.Last = true
		case 's':
			rule.Again = true
		case 'a':
			rule.Refuse = fs.ErrPermission
			if with != "" {
				rule.Refuse = &Error{CodeAccessViolation, with}
			}
		case 'G':
			rule.Reads = true
		case 'P':
			rule.Writes = true
		case '~':
			rule.Not = true
		case '4', '6':
			rule.Family = int(c - '0')
		default:
			return rule, fmt.Errorf("operation %q: unknown letter %q", fields[0], c)
		}
	}
	if rule.Match, err = regexp.Compile(expr); err != nil {
		return rule, err
	}
	if replaces {
		rule.With, err = replacement(with)
	}
	return rule, err
}

// replacement compiles the third field of a line.
func replacement(text string) (func(string, []int, *Request) string, error) {
	if strings.HasSuffix(strings.ReplaceAll(text, `\\`, ""), `\`) {
		return nil, errors.New("the replacement ends with a backslash")
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if i++; !strings.ContainsRune(`0123456789ixULE\#`, rune(text[i])) {
			return nil, fmt.Errorf(`the replacement contains \%c`, text[i])
		}
	}
	return func(name string, groups []int, r *Request) string {
		var b strings.Builder
		fold := func(s string) string { return s }
		for i := 0; i < len(text); i++ {
			if text[i] != '\\' {
				b.WriteString(fold(text[i : i+1]))
				continue
			}
			i++
			switch c := text[i]; c {
			case 'U':
				fold = strings.ToUpper
			case 'L':
				fold = strings.ToLower
			case 'E':
				fold = func(s string) string { return s }
			case 'i':
				b.WriteString(fold(r.Peer.Addr().WithZone("").String()))
			case 'x':
				if a := r.Peer.Addr(); a.Is4() {
					b.WriteString(fold(strings.ToUpper(hex.EncodeToString(a.AsSlice()))))
				}
			case '\\', '#':
				b.WriteByte(c)
			default:
				if g := 2 * int(c-'0'); g+1 < len(groups) && groups[g] >= 0 {
					b.WriteString(fold(name[groups[g]:groups[g+1]]))
				}
			}
		}
		return b.String()
	}, nil
}
