package ltsconf

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// site is an lts.conf of n machines, each with a section, a hundred groups
// and a rule for every ten machines.
func site(n int) string {
	var b strings.Builder
	b.WriteString("[Default]\nSOUND=True\nXKBLAYOUT=\"us,ru\"\nSCREEN_07=ldm\n")
	for i := range 100 {
		fmt.Fprintf(&b, "[group%d]\nLIKE=group%d\nPRINTER_0_DEVICE=/dev/lp%d\n", i, i+1, i)
	}
	for i := range n / 10 {
		fmt.Fprintf(&b, "[ws%d-*]\nSYSLOG_HOST=10.0.0.%d\n", i, i%250)
	}
	for i := range n {
		fmt.Fprintf(&b, "[ws%d-%d]\nLIKE=group%d\nRCFILE_01=\"touch /run/ws%d\"\n", i/10, i%10, 95+i%5, i)
	}
	return b.String()
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		f := parseCompatible(b, site(n))
		c := Client{Hostname: fmt.Sprintf("ws%d-5", n/20), IP: pc01.IP, MAC: pc01.MAC}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for range f.Resolve(c) {
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	in := site(10000)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(strings.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	f := parseCompatible(b, site(100))
	s := Collect(f.Resolve(Client{Hostname: "ws5-5"}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// rules is an lts.conf of n machines and r patterns of several shapes.
func rules(n, r int) string {
	var b strings.Builder
	b.WriteString("[Default]\nSOUND=True\n")
	for i := range r {
		fmt.Fprintf(&b, "[%s]\nVOLUME=%d\n", []string{"lab%d-*", "*-room%d", "10.%d.*", "x%d-*-y"}[i%4], i%100)
	}
	return strings.ReplaceAll(numbered(b.String()), "\x00", "") + machines(n)
}

// numbered replaces each %d in headers by a running number.
func numbered(s string) string {
	parts := strings.Split(s, "%d")
	var b strings.Builder
	for i, p := range parts {
		b.WriteString(p)
		if i < len(parts)-1 {
			fmt.Fprint(&b, i)
		}
	}
	return b.String()
}

func machines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[52:54:00:%02x:%02x:%02x]\nHOSTNAME=m%d\nRCFILE_01=\"touch /run/m%d\"\n", i>>16, i>>8&255, i&255, i, i)
	}
	return b.String()
}

// BenchmarkDecision is one client's file among many machines and rules.
func BenchmarkDecision(b *testing.B) {
	for _, size := range [][2]int{{100, 10}, {1000, 100}, {10000, 1000}} {
		in := rules(size[0], size[1])
		c := Client{Hostname: "ws-7-room1", IP: pc01.IP, MAC: []byte{0x52, 0x54, 0, 0, 0, 50}}
		name := fmt.Sprintf("%d-%d", size[0], size[1])
		b.Run("lts.conf/"+name, func(b *testing.B) {
			f := parseCompatible(b, in)
			b.ReportAllocs()
			for b.Loop() {
				for range f.Resolve(c) {
				}
			}
		})
		b.Run("ltsp.conf/"+name, func(b *testing.B) {
			f, err := LTSPParser{}.Parse("", strings.NewReader(in))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				for range f.Resolve(LTSPClient{Client: c, Applet: "init"}) {
				}
			}
		})
	}
}
