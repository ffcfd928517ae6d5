package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Position is a place in a configuration file. Line and Col count from one.
type Position struct {
	File string
	Line int
	Col  int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Error is one mistake in a configuration file. A [Load] that fails returns
// all mistakes it found, joined.
type Error struct {
	Position
	Msg string
}

func (e *Error) Error() string {
	if e.File == "" { // a configuration made in Go
		return e.Msg
	}
	return e.Position.String() + ": " + e.Msg
}

// decoder fills Go values from YAML nodes strictly: a key that no field has,
// a key given twice and a value of another kind are errors with a position.
// It remembers where every field came from, so that checks made afterwards
// can point at the place too.
type decoder struct {
	file string
	pos  map[any]Position // pointer to a field -> where its value stands
	errs []error
}

const maxDepth = 32 // deeper nesting than any section has

func (d *decoder) errorf(n *yaml.Node, format string, args ...any) {
	d.errs = append(d.errs, &Error{Position{d.file, n.Line, n.Column}, fmt.Sprintf(format, args...)})
}

// decode reads one YAML document from r into the struct that v points to.
func (d *decoder) decode(r io.Reader, v any) {
	dec := yaml.NewDecoder(r)
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // an empty file is an empty configuration
			d.errs = append(d.errs, syntaxError(d.file, err))
		}
		return
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		d.errorf(&more, "a second document in one file; remove the `---`")
	} else if !errors.Is(err, io.EOF) {
		d.errs = append(d.errs, syntaxError(d.file, err))
	}
	if len(doc.Content) > 0 && !isNull(doc.Content[0]) {
		d.value(doc.Content[0], reflect.ValueOf(v).Elem(), 0)
	}
}

// syntaxError takes the line out of a message of the YAML package, which
// gives no column.
func syntaxError(file string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if _, scanErr := fmt.Sscanf(msg, "line %d:", &line); scanErr == nil {
		_, msg, _ = strings.Cut(msg, ": ")
	} else {
		line = 1
	}
	return &Error{Position{file, line, 1}, msg}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (d *decoder) value(n *yaml.Node, v reflect.Value, depth int) {
	if depth > maxDepth {
		d.errorf(n, "nested too deeply")
		return
	}
	if n.Kind == yaml.AliasNode {
		// One anchor used many times in anchors would make the work explode.
		d.errorf(n, "anchors and aliases are not supported; write the value out")
		return
	}
	d.pos[v.Addr().Interface()] = Position{d.file, n.Line, n.Column}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode {
			d.errorf(n, "want one value, not a %s", kindName(n))
			return
		}
		if err := u.UnmarshalText([]byte(n.Value)); err != nil {
			d.errorf(n, "%s", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		// `tftp:` alone is the section with its defaults.
		if !isNull(n) || v.Type().Elem().Kind() != reflect.Struct {
			d.value(n, v.Elem(), depth+1)
		}
	case reflect.Struct:
		d.structure(n, v, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.errorf(n, "want a list, not a %s", kindName(n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.value(c, v.Index(i), depth+1)
		}
	default:
		if n.Kind != yaml.ScalarNode {
			d.errorf(n, "want %s, not a %s", wantName(v.Kind()), kindName(n))
			return
		}
		if isNull(n) {
			d.errorf(n, "want %s, not nothing; remove the key for its default", wantName(v.Kind()))
			return
		}
		if err := n.Decode(v.Addr().Interface()); err != nil {
			d.errorf(n, "want %s, not %q", wantName(v.Kind()), n.Value)
		}
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, depth int) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, "want a section of `key: value` lines, not a %s", kindName(n))
		return
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("yaml"); key != "" {
			fields[key] = i
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at, ok := fields[key.Value]
		switch {
		case !ok:
			d.errorf(key, "unknown key %q%s", key.Value, suggest(key.Value, fields))
		case seen[key.Value]:
			d.errorf(key, "key %q is given twice", key.Value)
		default:
			d.value(val, v.Field(at), depth+1)
		}
		seen[key.Value] = true
	}
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "section"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}

func wantName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint16:
		return "a number"
	default:
		return "a text"
	}
}

// suggest names the known key nearest to a misspelt one, or all of them.
func suggest(key string, fields map[string]int) string {
	best, bestAt := "", 3
	var all []string
	for f := range fields {
		all = append(all, f)
	}
	sort.Strings(all)
	for _, f := range all {
		if n := distance(strings.ToLower(key), f); n < bestAt {
			best, bestAt = f, n
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known here: " + strings.Join(all, ", ")
}

// distance is the number of letters to change, add or take away.
func distance(a, b string) int {
	if len(a) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = min(diagonal, row[j], row[j-1]) + 1
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
