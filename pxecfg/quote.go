package pxecfg

import (
	"io/fs"
	"strings"
)

const labelBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@~+-"

// isLabelByte is a quicker strings.IndexByte(labelBytes, c) >= 0.
func isLabelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '.' || c == '_' || c == '@' || c == '~' || c == '+' || c == '-'
}

// maxTitle is how long labels and titles may be, in bytes: PXELINUX reads the
// rest of a line of 4095 bytes as another line.
const maxTitle = 255

// checkText checks text that is shown to people.
func checkText(s string) (reason string) {
	if len(s) > maxTitle {
		return "it is longer than 255 bytes, which no menu shows and some loaders break up"
	}
	if hasControl(s) {
		return "it holds a line break or another control character"
	}
	if strings.TrimSpace(s) != s || skipSpace(s) != s || strings.Contains(s, "  ") {
		return "loaders drop leading, trailing and repeated spaces"
	}
	return ""
}

// checkPath checks a path in the tree or a URL.
func checkPath(p string) (reason string) {
	for i := 0; i < len(p); i++ {
		if p[i] <= ' ' || p[i] == 0x7f {
			return "it holds a space or a control character, which ends a file name"
		}
		if p[i] == '"' {
			return "kernels see names of files on their command line, and take the double quote for their own"
		}
	}
	if isURL(p) {
		_, reason := parseURL(p)
		return reason
	}
	if t := treePath(p); !fs.ValidPath(t) || t == "." {
		return "it is not a path in the boot tree: write dir/file, without . and .."
	}
	return ""
}

func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// kernelWord spells one argument so that the kernel reads back exactly that,
// or says why no spelling does. The kernel's quoting has no escapes: a double
// quote switches quoting on and off, and is dropped around a value.
func kernelWord(arg string) (word, reason string) {
	switch {
	case arg == "":
		return "", "it is empty and would vanish"
	case hasControl(arg):
		return "", "it holds a line break or another control character"
	}
	if !strings.ContainsAny(arg, ` "`) {
		return arg, "" // nothing in it means anything
	}
	word = arg
	if strings.Contains(arg, " ") {
		name, value, ok := strings.Cut(arg, "=")
		if ok && name != "" && !strings.Contains(name, " ") {
			word = name + `="` + value + `"`
		} else {
			word = `"` + arg + `"`
		}
	}
	// Read back with a word behind it, which an open quote would swallow.
	if back := splitKernel(word + " x"); len(back) != 2 || back[0] != arg {
		return "", `the kernel would read something else, since its double quotes cannot be escaped`
	}
	return word, ""
}

// splitKernel reads a command line as the kernel does (lib/cmdline.c,
// next_arg).
func splitKernel(line string) []string {
	var out []string
	for {
		line = strings.TrimLeft(line, " ")
		if line == "" {
			return out
		}
		quoted := line[0] == '"'
		if quoted {
			line = line[1:]
		}
		inQuote, equals, i := quoted, -1, 0
		for ; i < len(line) && (line[i] != ' ' || inQuote); i++ {
			switch line[i] {
			case '=':
				// The kernel takes a leading = for part of the name.
				if equals < 0 && i > 0 {
					equals = i
				}
			case '"':
				inQuote = !inQuote
			}
		}
		word, closed := line[:i], false
		line = line[i:]
		if equals >= 0 {
			name, value := word[:equals], word[equals+1:]
			if strings.HasPrefix(value, `"`) {
				value = value[1:]
				if strings.HasSuffix(value, `"`) {
					value, closed = value[:len(value)-1], true
				}
			}
			word = name + "=" + value
		}
		if quoted && !closed {
			word = strings.TrimSuffix(word, `"`)
		}
		out = append(out, word)
	}
}

// sysAppendLen is the most that the mask's known strings add to a command
// line; what firmware puts into the others cannot be known.
func sysAppendLen(mask uint32) int {
	n := 0
	if mask&1 != 0 {
		n += len(" ip=") + 4*len("255.255.255.255") + 3
	}
	if mask&2 != 0 {
		n += len(" BOOTIF=01") + 3*20
	}
	if mask&4 != 0 {
		n += len(" SYSUUID=") + 36
	}
	return n
}

// checkLength refuses a command line of n bytes that the kernel would cut off.
func (e *Entry) checkLength(format string, args []string, n int) error {
	if n > MaxCommandLine {
		return e.errorf(format, "command line", cutShort(strings.Join(args, " ")),
			"it is up to %d bytes long, and kernels cut off what is beyond %d", n, MaxCommandLine)
	}
	return nil
}

// spread counts how many bytes of one word after another are on a command line.
func spread(words []string) (n int) {
	for _, w := range words {
		n += 1 + len(w)
	}
	return n
}
