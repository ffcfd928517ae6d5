package pxecfg

import (
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

var fullClient = Client{MAC: testMAC, UUID: wireUUID, IP: ip(7), Peer: ip(8), Hostname: "node07",
	Arch: iana.EFI_X86_64, ArchKnown: true, Platform: "efi"}

func TestTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"{{.MAC}} {{hyphens .MAC}} {{plain .MAC}}":            "52:54:00:12:34:56 52-54-00-12-34-56 525400123456",
		"{{.UUID}} {{swapUUID .UUID}}":                        wireUUID + " " + SwapUUID(wireUUID),
		"{{.IP}} {{hexIP .IP}} {{.Peer}}":                     "192.0.2.7 C0000207 192.0.2.8",
		"{{.Hostname}} {{.Arch}} {{.Platform}}":               "node07 7 efi",
		`{{has . "Hostname"}} {{has .Vars "x"}}`:              "true false",
		`{{kernelArg .Vars.arg}} {{grubQuote "it's"}}`:        `a="b c" 'it'\''s'`,
		`{{ipxe .Hostname}}{{range .Vars.list}};{{.}}{{end}}`: "node07;1;2",
	} {
		tmpl, err := ParseTemplate("x", text)
		require.NoError(t, err, text)
		tmpl.Vars = func(_ context.Context, c Client) (map[string]any, error) {
			require.Equal(t, fullClient, c)
			return map[string]any{"arg": "a=b c", "list": []int{1, 2}}, nil
		}
		got, err := tmpl.Render(t.Context(), fullClient)
		require.NoError(t, err, text)
		require.Equal(t, want, string(got))
	}
}

// TestTemplateStrict: nothing is ever left out without a word.
func TestTemplateStrict(t *testing.T) {
	for _, text := range []string{
		"{{.MAC}}", "{{.UUID}}", "{{.IP}}", "{{.Peer}}", "{{.Hostname}}", "{{.Arch}}", "{{.Platform}}", "{{.Vars.x}}", "{{.Other}}",
		"{{if .Hostname}}x{{end}}", `{{hyphens "x"}}`, `{{plain ""}}`, `{{hexIP "2001:db8::1"}}`, `{{swapUUID "x"}}`,
		`{{kernelArg "a\nb"}}`, `{{grubQuote "a\nb"}}`, `{{ipxe "${x}"}}`, `{{ipxe "a\nb"}}`, `{{template "none"}}`,
		`{{range $i := .Vars.y}}{{end}}`,
	} {
		tmpl, err := ParseTemplate("site.ipxe", "before "+text)
		require.NoError(t, err, text)
		got, err := tmpl.Render(t.Context(), Client{})
		require.ErrorContains(t, err, "site.ipxe:1", text)
		require.Nil(t, got)
		require.NotErrorIs(t, err, fs.ErrNotExist)
	}
	_, err := ParseTemplate("site.ipxe", "\n{{.MAC")
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, "site.ipxe:2")
	_, err = (&Template{}).Render(t.Context(), Client{})
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// TestTemplateMissing: a nil and a key that index does not find are no text.
func TestTemplateMissing(t *testing.T) {
	for _, text := range []string{`{{index .Vars "none"}}`, "{{.Vars.nil}}", "{{.Vars.pointer}}", "{{.Vars.deep.nil}}"} {
		tmpl, err := ParseTemplate("site.ipxe", "#!ipxe\nset x "+text+"\n")
		require.NoError(t, err)
		tmpl.Vars = func(context.Context, Client) (map[string]any, error) {
			return map[string]any{"nil": nil, "pointer": (*string)(nil), "deep": map[string]any{"nil": nil}}, nil
		}
		got, err := tmpl.Render(t.Context(), fullClient)
		require.ErrorContains(t, err, "template site.ipxe: line 2 ", text)
		require.Nil(t, got)
	}
	// A machine says what it is called: no line of its own comes with it.
	for _, text := range []string{"{{.Hostname}}", "{{.Platform}}", "{{.UUID}}"} {
		tmpl, err := ParseTemplate("site.ipxe", text)
		require.NoError(t, err)
		_, err = tmpl.Render(t.Context(), Client{Hostname: "a\nshell", Platform: "efi\nshell", UUID: "\n"})
		require.ErrorContains(t, err, "site.ipxe:1", text)
	}
}

func TestTemplateLimit(t *testing.T) {
	tmpl, err := ParseTemplate("x", "{{range .Vars.list}}0123456789{{end}}")
	require.NoError(t, err)
	tmpl.Vars = func(context.Context, Client) (map[string]any, error) {
		return map[string]any{"list": make([]int, 10)}, nil
	}
	for limit, ok := range map[int]bool{0: true, -1: true, 100: true, 99: false} {
		tmpl.MaxBytes = limit
		got, err := tmpl.Render(t.Context(), Client{})
		require.Equal(t, ok, err == nil, limit)
		require.Equal(t, ok, len(got) == 100)
	}
}

func TestTemplateInTree(t *testing.T) {
	tmpl, err := ParseTemplate("site.ipxe", "#!ipxe\nkernel /{{.Vars.image}}/vmlinuz host={{.Hostname}}\n")
	require.NoError(t, err)
	failed := 0
	tmpl.Vars = func(_ context.Context, c Client) (map[string]any, error) {
		switch c.Hostname {
		case "none":
			return nil, fs.ErrNotExist
		case "broken":
			return nil, errors.New("the database is down")
		}
		return map[string]any{"image": "debian12"}, nil
	}
	tree := &Tree{Logger: quiet, Extra: map[string]func(context.Context, Client) ([]byte, error){"site.ipxe": tmpl.Render},
		Trace: &Trace{Failed: func(context.Context, Client, string, error) { failed++ }}}
	read := func(host string) (string, error) {
		text, err := fs.ReadFile(tree.For(t.Context(), Client{MAC: mac(1), Hostname: host}), "boot/site.ipxe")
		return string(text), err
	}
	text, err := read("node07")
	require.NoError(t, err)
	require.Equal(t, "#!ipxe\nkernel /debian12/vmlinuz host=node07\n", text)
	_, err = read("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Zero(t, failed)
	for _, host := range []string{"broken", ""} {
		_, err = read(host)
		require.Error(t, err)
		require.NotErrorIs(t, err, fs.ErrNotExist)
	}
	require.Equal(t, 2, failed)
}

var manyDigits = regexp.MustCompile(`[0-9a-fA-FxX_]{4}`)

// FuzzTemplate: any template of any machine ends in a file or an error.
func FuzzTemplate(f *testing.F) {
	f.Add("{{.MAC}}", "node")
	f.Add("{{range $i, $x := .}}{{$i}}{{end}}", "x")
	f.Add("{{kernelArg .Hostname}}{{grubQuote .Hostname}}{{ipxe .Hostname}}", "a b\"")
	f.Add("{{define \"x\"}}{{template \"x\"}}{{end}}{{hyphens .Hostname}}", "")
	f.Fuzz(func(t *testing.T, text, host string) {
		if strings.Contains(text, "template") || strings.Count(text, "range") > 1 || manyDigits.MatchString(text) || strings.Contains(text, "%") {
			t.Skip("whoever writes templates can make them slow")
		}
		tmpl, err := ParseTemplate("x", text)
		if err != nil {
			require.ErrorIs(t, err, fs.ErrInvalid)
			return
		}
		tmpl.MaxBytes = 1000
		got, err := tmpl.Render(t.Context(), Client{Hostname: host})
		require.LessOrEqual(t, len(got), 1000)
		require.False(t, err != nil && got != nil)
	})
}
