package pxecfg

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// need returns where the tools are, and skips the test if one is missing, or
// fails it when everything is required.
func need(t testing.TB, tools ...string) []string {
	t.Helper()
	paths := make([]string, len(tools))
	for i, tool := range tools {
		p, err := exec.LookPath(tool)
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if err != nil {
				p, err = exec.LookPath(filepath.Join(dir, tool))
			}
		}
		if err != nil {
			if os.Getenv("DISKLESS_REQUIRE") == "all" {
				t.Fatalf("%s is required and missing: install it", tool)
			}
			t.Skipf("%s is missing", tool)
		}
		paths[i] = p
	}
	return paths
}
