package pxecfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"text/template"
)

// DefaultMaxTemplate is the most that a template may write, in bytes, when
// [Template.MaxBytes] is 0.
const DefaultMaxTemplate = 1 << 20

// Template is a file of one's own, rendered for each machine with
// [text/template]. Its Render fits into [Tree.Extra]:
//
//	t, err := pxecfg.ParseTemplate("site.ipxe", text)
//	tree.Extra["site.ipxe"] = t.Render
//
// It is strict: what is not known of the machine, or not in Vars, is an error
// of the rendering and never an empty place in the file. {{if .Hostname}} is
// such an error too; {{if has . "Hostname"}} asks. A name or a UUID with a line
// break or another control character in it, which a machine can send as well,
// is not known either. Other texts of a machine may hold what a format takes
// for more than text: the functions below are for that. The data are
//
//	.MAC       52:54:00:12:34:56
//	.UUID      in PXELINUX's spelling; see swapUUID
//	.IP        192.0.2.7
//	.Hostname  as DHCP has it
//	.Arch      a number (RFC 4578 section 2.1)
//	.Platform  pcbios or efi
//	.Peer      where the request comes from
//	.Vars      what the function Vars returns
//
// and besides the functions of text/template there are
//
//	has . "Hostname"   whether it is known
//	hyphens .MAC       52-54-00-12-34-56
//	plain .MAC         525400123456
//	hexIP .IP          C0000207
//	swapUUID .UUID     the other byte order
//	kernelArg "a=b c"  a="b c", one argument as the kernel reads it
//	grubQuote "a;b"    'a;b', one word for GRUB
//	ipxe "word"        the word itself, unless iPXE would change it
//
// A Template may be used concurrently after ParseTemplate.
type Template struct {
	// Vars returns further data for a machine. An fs.ErrNotExist means that
	// there is no such file for it. nil means no data.
	Vars func(ctx context.Context, c Client) (map[string]any, error)
	// MaxBytes limits a rendered file. 0 means [DefaultMaxTemplate], -1 no
	// limit.
	MaxBytes int

	t *template.Template
}

// ParseTemplate reads a template. The name is for error messages.
func ParseTemplate(name, text string) (*Template, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(templateFuncs()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, fs.ErrInvalid)
	}
	return &Template{t: t}, nil
}

// Render writes the file for a machine.
func (t *Template) Render(ctx context.Context, c Client) ([]byte, error) {
	if t.t == nil {
		return nil, fmt.Errorf("the template is empty: make it with ParseTemplate: %w", fs.ErrInvalid)
	}
	data := templateData(c)
	data["Vars"] = map[string]any{}
	if t.Vars != nil {
		vars, err := t.Vars(ctx, c)
		if err != nil {
			return nil, err
		}
		if vars != nil {
			data["Vars"] = vars
		}
	}
	limit := t.MaxBytes
	if limit == 0 {
		limit = DefaultMaxTemplate
	}
	b := limitedBuffer{limit: limit}
	if err := t.t.Execute(&b, data); err != nil {
		var missing missingValue
		if errors.As(err, &missing) {
			return nil, fmt.Errorf("template %s: %w", t.t.Name(), missing)
		}
		if errors.Is(err, fs.ErrNotExist) {
			// From a value's method; it must not pass for a missing file.
			return nil, errors.New(err.Error())
		}
		return nil, err
	}
	return b.Bytes(), nil
}

// limitedBuffer does not embed its buffer: a template writes with Write only.
type limitedBuffer struct {
	b     bytes.Buffer
	limit int
}

func (b *limitedBuffer) Bytes() []byte { return b.b.Bytes() }

// missingValue is the line of the rendered file.
type missingValue int

func (m missingValue) Error() string {
	return fmt.Sprintf("line %d of the file would have the place of a value that is missing", int(m))
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	// What text/template makes of a nil, and of a key that index does not find.
	if s := string(p); s == "<no value>" || s == "<nil>" {
		return 0, missingValue(1 + bytes.Count(b.b.Bytes(), []byte("\n")))
	}
	if b.limit >= 0 && b.b.Len()+len(p) > b.limit {
		return 0, fmt.Errorf("the file is longer than %d bytes", b.limit)
	}
	return b.b.Write(p)
}

// templateData holds what is known, and no key for what is not.
func templateData(c Client) map[string]any {
	data := make(map[string]any, 8)
	for key, value := range map[string]string{
		"MAC": c.MAC.String(), "UUID": c.UUID, "Hostname": c.Hostname, "Platform": c.Platform,
		"IP": validText(c.IP), "Peer": validText(c.Peer),
	} {
		if value != "" && !hasControl(value) {
			data[key] = value
		}
	}
	if c.ArchKnown {
		data["Arch"] = uint16(c.Arch)
	}
	return data
}

func validText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"has": func(m map[string]any, key string) bool { _, ok := m[key]; return ok },
		"hyphens": func(mac string) (string, error) {
			a, err := templateMAC(mac)
			return strings.ReplaceAll(a.String(), ":", "-"), err
		},
		"plain": func(mac string) (string, error) {
			a, err := templateMAC(mac)
			return strings.ReplaceAll(a.String(), ":", ""), err
		},
		"hexIP": func(ip string) (string, error) {
			a, err := netip.ParseAddr(ip)
			if err != nil || !a.Is4() {
				return "", fmt.Errorf("%q is not an IPv4 address", ip)
			}
			s, _ := Client{IP: a}.hexIP()
			return s, nil
		},
		"swapUUID": func(uuid string) (string, error) {
			if _, ok := parseUUID(uuid); !ok {
				return "", fmt.Errorf("%q is not a UUID", uuid)
			}
			return SwapUUID(uuid), nil
		},
		"kernelArg": func(arg string) (string, error) {
			word, reason := kernelWord(arg)
			return word, templateReason("argument", arg, "", reason)
		},
		"grubQuote": func(s string) (string, error) {
			if hasControl(s) {
				return "", templateReason("word", s, "GRUB", "it holds a line break or another control character")
			}
			return grubQuote(s), nil
		},
		"ipxe": func(s string) (string, error) {
			reason := checkIPXE(s)
			if reason == "" {
				reason = checkText(s)
			}
			return s, templateReason("word", s, "iPXE", reason)
		},
	}
}

func templateMAC(s string) (net.HardwareAddr, error) {
	mac, ok := parseMAC(s)
	if !ok {
		return nil, fmt.Errorf("%q is not a hardware address", s)
	}
	return mac, nil
}

func templateReason(field, value, format, reason string) error {
	if reason == "" {
		return nil
	}
	return &RenderError{Format: format, Field: field, Value: value, Reason: reason}
}
