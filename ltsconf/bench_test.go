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
