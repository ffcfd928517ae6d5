package tftp

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// cleanName turns a name off the wire into a path that satisfies
// [fs.ValidPath]; the rules are those of [Request.Name]. What cannot be one is
// fs.ErrPermission, whose code 2 tells the client not to try again.
func cleanName(raw string) (string, error) {
	s := raw
	for strings.HasSuffix(s, "\xff") { // TrimRight takes every broken byte for this one
		s = s[:len(s)-1]
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("name %q is not UTF-8: %w", raw, fs.ErrPermission)
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return "", fmt.Errorf("name %q contains a control character: %w", raw, fs.ErrPermission)
		}
	}
	s = path.Clean(strings.TrimLeft(strings.ReplaceAll(s, `\`, "/"), "/"))
	if s == ".." || strings.HasPrefix(s, "../") {
		return "", fmt.Errorf("name %q leads out of the tree: %w", raw, fs.ErrPermission)
	}
	return s, nil
}
