package ltsconf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a variable's value must look like.
type Kind int

// The kinds of values.
const (
	Text      Kind = iota // anything
	Bool                  // true, yes, y, false, no, n in any case
	Int                   // a decimal number
	Percent               // 0 to 100
	Enum                  // one of Variable.Values
	Host                  // a host name or an address
	IP                    // an address
	IPList                // addresses
	List                  // words
	CommaList             // items with commas between them
	Path                  // an absolute path
	Time                  // HH:MM or HH:MM:SS
	Switch                // 0 or 1
)

// Variable is a setting that LTSP knows.
type Variable struct {
	// Name is the name, or that of a family of them: * stands for any text,
	// <n> for a number, <0-8> for one in that range, <nn> for one of two
	// digits, <VAR> for another variable.
	Name    string
	Group   string // as in "sound"
	Kind    Kind
	Type    string // in words, as in "int MB"
	Values  []string
	Default string // what an unset one counts as; empty when that depends
	Meaning string
	Unused  bool // documented, but read by no script of LTSP 5.18
	Early   bool // read before lts.conf is: set it on the kernel command line
}

// perScreen is the family that every other variable is a member of.
const perScreen = "SCREEN_<nn>_<VAR>"

// Variables returns the settings that LTSP 5 knows.
func Variables() []Variable { return slices.Clone(variables[:]) }

// LookupVariable returns what LTSP 5 knows about a name, in any case. For
// SCREEN_07_SOUND it is what SOUND is.
func LookupVariable(name string) (Variable, bool) {
	name = upper(name)
	for _, v := range variables {
		if v.Name == name {
			return v, true
		}
	}
	if _, rest, ok := screenName(name); ok && rest != "" && rest != "WAIT_FGCONSOLE" && !strings.HasPrefix(rest, "SCREEN_") {
		if v, ok := LookupVariable(rest); ok {
			return v, true
		}
	}
	for _, v := range variables {
		if strings.ContainsAny(v.Name, "*<") && matchFamily(v.Name, name) {
			return v, true
		}
	}
	return Variable{}, false
}

// screenName takes SCREEN_nn_REST apart.
func screenName(name string) (n, rest string, ok bool) {
	s, ok := strings.CutPrefix(name, "SCREEN_")
	if !ok || len(s) < 2 || !digits(s[:2]) {
		return "", "", false
	}
	if len(s) == 2 {
		return s, "", true
	}
	if s[2] != '_' {
		return "", "", false
	}
	return s[:2], s[3:], true
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// matchFamily matches a name with the name of a family.
func matchFamily(family, name string) bool {
	i := strings.IndexAny(family, "*<")
	if i < 0 {
		return family == name
	}
	if !strings.HasPrefix(name, family[:i]) {
		return false
	}
	name = name[i:]
	if family[i] == '*' {
		return true
	}
	what, rest, _ := strings.Cut(family[i+1:], ">")
	n := 0
	switch {
	case what == "VAR" || what == "x":
		return name != ""
	case what == "nn":
		n = 2
	case what == "n":
		for n < len(name) && digits(name[n:n+1]) {
			n++
		}
	default:
		lo, hi, _ := strings.Cut(what, "-")
		n = len(hi)
		if len(name) < n || name[:n] < lo || name[:n] > hi {
			return false
		}
	}
	return n > 0 && len(name) >= n && digits(name[:n]) && matchFamily(rest, name[n:])
}

// Get returns the last value of a name, in any case.
func (s Settings) Get(name string) (Value, bool) {
	for _, set := range slices.Backward(s) {
		if strings.EqualFold(set.Name, name) {
			return set.Value, true
		}
	}
	return Value{}, false
}

// Text returns a setting as the client sees it, or the default of a known one.
// It reports false when there is neither, and when the value needs a shell.
func (s Settings) Text(name string) (string, bool) {
	if v, ok := s.Get(name); ok {
		return v.Literal()
	}
	v, _ := LookupVariable(name)
	return v.Default, v.Default != ""
}

// Bool returns whether a setting counts as true on clients: true, yes or y in
// any case do, and nothing else; 1 and on do not. ok is as for [Settings.Text].
func (s Settings) Bool(name string) (value, ok bool) {
	t, ok := s.Text(name)
	return ok && isTrue(t), ok
}

func isTrue(s string) bool {
	s = fold(s)
	return s == "true" || s == "yes" || s == "y"
}

// Int returns a setting as a number. It reports false when it is none.
func (s Settings) Int(name string) (int, bool) {
	t, ok := s.Text(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(t))
	return n, err == nil
}

// List returns the items of a setting, at commas for those that LTSP cuts
// there, else at white space.
func (s Settings) List(name string) []string {
	t, _ := s.Text(name)
	if v, _ := LookupVariable(name); v.Kind == CommaList {
		var out []string
		for item := range strings.SplitSeq(t, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
		return out
	}
	return strings.Fields(t)
}

// Check tells what is wrong with a value, or returns "". An empty value is
// never wrong: it counts as unset.
func (v Variable) Check(value string) string {
	if value == "" {
		return ""
	}
	switch v.Kind {
	case Bool:
		switch fold(value) {
		case "true", "yes", "y", "false", "no", "n":
			return ""
		}
		return "counts as false; only true, yes and y are true"
	case Int, Percent:
		n, err := strconv.Atoi(value)
		if err != nil {
			return "is no number"
		}
		if v.Kind == Percent && (n < 0 || n > 100) {
			return "is no percentage"
		}
	case Switch:
		if value != "0" && value != "1" {
			return "must be 0 or 1"
		}
	case Enum:
		if !slices.ContainsFunc(v.Values, func(s string) bool { return s == value || s >= "A" && s <= "Z" && strings.EqualFold(s, value) }) {
			return "must be one of " + strings.Join(v.Values, ", ")
		}
	case IP, IPList:
		words := strings.Fields(value)
		if v.Kind == IP && len(words) > 1 {
			return "must be one address"
		}
		for _, w := range words {
			if _, err := netip.ParseAddr(w); err != nil {
				return "is no IP address"
			}
		}
	case Host:
		if strings.ContainsAny(value, " \t/") {
			return "is no host name or address"
		}
	case Path:
		if !strings.HasPrefix(value, "/") {
			return "must be a path that starts with /"
		}
	case Time:
		parts := strings.Split(value, ":")
		for i, limit := range []int{23, 59, 59}[:min(len(parts), 3)] {
			if n, err := strconv.Atoi(parts[i]); err != nil || n < 0 || n > limit {
				return "must be HH:MM or HH:MM:SS"
			}
		}
		if len(parts) < 2 || len(parts) > 3 {
			return "must be HH:MM or HH:MM:SS"
		}
	}
	return ""
}
