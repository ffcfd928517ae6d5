package ltsconf

import (
	"fmt"
	"strconv"
	"strings"
)

// read is the builtin read, from a here-document or a pipe whose text is known.
func (ev *evaluator) read(n *node, args []string) status {
	raw := false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if args[0] != "-r" {
			ev.note(n.off, "only the client can tell what read %s does", clip(args[0]))
			return unknown
		}
		raw = true
		args = args[1:]
	}
	for _, a := range args {
		if !isName(a) {
			return 2
		}
	}
	if len(args) == 0 {
		return 2
	}
	ifs, ok := ev.lookup("IFS")
	if !ok {
		ifs = val{s: " \t\n"}
	}
	if ev.in == nil || ifs.dyn {
		ev.note(n.off, "only the client can tell what is read here")
		return unknown
	}
	line, escaped, whole := ev.in.line(raw)
	for i, v := range cutFields(line, escaped, ifs.s, len(args)) {
		if old := ev.vars[args[i]]; old != nil && old.readonly {
			ev.lastFail = n.off
			return 2
		}
		ev.assign(n.off, args[i], val{s: v})
	}
	if !whole {
		ev.lastFail = n.off
		return 1
	}
	return 0
}

// line takes a line; escaped marks the bytes that a backslash protects. whole
// is false at the end of the text.
func (in *input) line(raw bool) (line []byte, escaped []bool, whole bool) {
	for i := 0; i < len(in.text); i++ {
		c, esc := in.text[i], false
		if c == '\\' && !raw && i+1 < len(in.text) {
			i++
			if c = in.text[i]; c == '\n' {
				continue
			}
			esc = true
		} else if c == '\n' {
			in.text = in.text[i+1:]
			return line, escaped, true
		}
		line, escaped = append(line, c), append(escaped, esc)
	}
	in.text = ""
	return line, escaped, false
}

// cutFields cuts a line at the bytes of ifs into n values; the last takes the rest.
func cutFields(line []byte, escaped []bool, ifs string, n int) []string {
	sep := func(i int) bool { return !escaped[i] && strings.IndexByte(ifs, line[i]) >= 0 }
	white := func(i int) bool {
		return sep(i) && (line[i] == ' ' || line[i] == '\t' || line[i] == '\n')
	}
	i, end := 0, len(line)
	for i < end && white(i) {
		i++
	}
	for end > i && white(end-1) {
		end--
	}
	out := make([]string, n)
	for k := range n {
		if k == n-1 {
			rest := end
			// One separator at the very end belongs to the field when it is the only one.
			if rest > i && sep(rest-1) && !white(rest-1) {
				only := true
				for j := i; j < rest-1; j++ {
					only = only && !sep(j)
				}
				if only {
					rest--
				}
			}
			out[k] = string(line[i:rest])
			break
		}
		start := i
		for i < end && !sep(i) {
			i++
		}
		out[k] = string(line[start:i])
		for i < end && white(i) {
			i++
		}
		if i < end && sep(i) {
			i++
			for i < end && white(i) {
				i++
			}
		}
	}
	return out
}

// printf formats as printf(1); ok is false for what is not known here.
func printf(args []string) (out string, ok bool) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return "", false
	}
	format, args := args[0], args[1:]
	var b strings.Builder
	for {
		taken := false
		for i := 0; i < len(format); i++ {
			switch c := format[i]; {
			case c == '\\':
				if i++; i == len(format) {
					return "", false
				}
				k := strings.IndexByte(`\abfnrtv`, format[i])
				if k < 0 {
					return "", false
				}
				b.WriteByte("\\\a\b\f\n\r\t\v"[k])
			case c == '%':
				verb := strings.IndexAny(format[i+1:], "sdiuxXoc%b")
				if verb < 0 {
					return "", false
				}
				flags, kind := format[i+1:i+1+verb], format[i+1+verb]
				i += verb + 1
				if kind == '%' && flags == "" {
					b.WriteByte('%')
					continue
				}
				arg := ""
				if taken = true; len(args) > 0 {
					arg, args = args[0], args[1:]
				}
				s, ok := printfOne(flags, kind, arg)
				if !ok {
					return "", false
				}
				b.WriteString(s)
			default:
				b.WriteByte(c)
			}
		}
		if len(args) == 0 || !taken {
			return b.String(), true
		}
	}
}

func printfOne(flags string, kind byte, arg string) (string, bool) {
	width := strings.TrimLeft(flags, "-0")
	if n, err := strconv.Atoi(width); width != "" && (err != nil || n > 256) {
		return "", false
	}
	switch kind {
	case 's':
		if strings.Contains(flags, "0") && strings.HasPrefix(flags, "0") {
			return "", false
		}
		return fmt.Sprintf("%"+flags+"s", arg), true
	case 'd', 'i', 'x', 'X', 'o':
		n, ok := cInteger(strings.TrimPrefix(arg, "-"))
		if arg == "" {
			n, ok = 0, true
		}
		if strings.HasPrefix(arg, "-") {
			n = -n
		}
		if !ok || n < 0 && kind != 'd' && kind != 'i' {
			return "", false
		}
		if kind == 'i' {
			kind = 'd'
		}
		return fmt.Sprintf("%"+flags+string(kind), n), true
	}
	return "", false
}
