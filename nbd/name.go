package nbd

import (
	"fmt"
	"io/fs"
	"strings"
)

// MaxName is the longest export name this package makes or takes, in bytes.
// The protocol allows 4096; kernel command lines and loaders do not.
const MaxName = 255

// GenerationDigits is how many digits of an image's SHA-256 name a generation
// in the export names that this package makes.
const GenerationDigits = 12

const (
	minGeneration = 8
	maxGeneration = 64
)

// Name is an export name taken apart: IMAGE[~GENERATION][@ROOT[.BOOT]].
//
//	debian12                                       the newest debian12, read-only
//	debian12~0a1b2c3d4e5f                          exactly this generation of it
//	debian12@node-01                               the writable root node-01
//	debian12~0a1b2c3d4e5f@node-01.mh2k3x9a-x7qm2p  the same, for one boot
//
// The separators and the alphabet of the parts pass unharmed through iPXE,
// PXELINUX, GRUB, DHCP's root-path and the initramfs scripts: letters, digits,
// '-' and '_' (and '.' in IMAGE), each part beginning with a letter or a
// digit. A name is never digits alone, which some initramfs take for a port.
type Name struct {
	// Image is the image's name.
	Image string
	// Generation is 8 to 64 lower-case hexadecimal digits, the first ones of
	// the SHA-256 of the image; "" is the newest.
	Generation string
	// Root is the name of a writable root over the image; "" is the image
	// itself, read-only.
	Root string
	// Boot is the token of the boot that asks; it needs a Root.
	Boot string
}

// ParseName takes an export name apart. One leading slash is ignored, because
// DHCP's root-path form of the initramfs scripts puts it there. The error
// wraps [fs.ErrInvalid].
func ParseName(s string) (Name, error) {
	var n Name
	if len(s) > MaxName+1 {
		return Name{}, nameError(s[:32]+"...", "it is longer than %d bytes", MaxName)
	}
	rest := strings.TrimPrefix(s, "/")
	rest, root, hasRoot := strings.Cut(rest, "@")
	image, generation, hasGeneration := strings.Cut(rest, "~")
	root, boot, hasBoot := strings.Cut(root, ".")
	n = Name{Image: image, Generation: generation, Root: root, Boot: boot}
	switch {
	case hasGeneration && generation == "":
		return Name{}, nameError(s, "the generation after '~' is empty")
	case hasRoot && root == "":
		return Name{}, nameError(s, "the root after '@' is empty")
	case hasBoot && boot == "":
		return Name{}, nameError(s, "the boot token after '.' is empty")
	}
	if err := n.Valid(); err != nil {
		return Name{}, err
	}
	return n, nil
}

// String puts the name together. [ParseName] takes it apart again when the
// name is valid.
func (n Name) String() string {
	var b strings.Builder
	b.Grow(len(n.Image) + len(n.Generation) + len(n.Root) + len(n.Boot) + 3)
	b.WriteString(n.Image)
	if n.Generation != "" {
		b.WriteByte('~')
		b.WriteString(n.Generation)
	}
	if n.Root != "" {
		b.WriteByte('@')
		b.WriteString(n.Root)
	}
	if n.Boot != "" {
		b.WriteByte('.')
		b.WriteString(n.Boot)
	}
	return b.String()
}

// Valid returns nil when n can be an export name, and otherwise an error that
// says what is wrong with it and wraps [fs.ErrInvalid].
func (n Name) Valid() error {
	s := n.String()
	switch {
	case len(s) > MaxName:
		return nameError(s[:32]+"...", "it is longer than %d bytes", MaxName)
	case !validPart(n.Image, "."):
		return nameError(s, "an image's name is letters, digits, '-', '_' and '.', and begins with a letter or a digit")
	case n.Generation != "" && !validGeneration(n.Generation):
		return nameError(s, "a generation is %d to %d lower-case hexadecimal digits", minGeneration, maxGeneration)
	case n.Root != "" && !validPart(n.Root, ""):
		return nameError(s, "a root's name is letters, digits, '-' and '_', and begins with a letter or a digit")
	case n.Boot != "" && n.Root == "":
		return nameError(s, "a boot token needs a root")
	case n.Boot != "" && !validPart(n.Boot, ""):
		return nameError(s, "a boot token is letters, digits, '-' and '_', and begins with a letter or a digit")
	case strings.Trim(s, "0123456789") == "":
		return nameError(s, "digits alone would be taken for a port")
	}
	return nil
}

func nameError(name, format string, args ...any) error {
	return fmt.Errorf("nbd: export name %q: %s: %w", name, fmt.Sprintf(format, args...), fs.ErrInvalid)
}

func validPart(s, extra string) bool {
	if s == "" || !isAlnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '-' && c != '_' && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func validGeneration(s string) bool {
	return len(s) >= minGeneration && len(s) <= maxGeneration && strings.Trim(s, "0123456789abcdef") == ""
}
