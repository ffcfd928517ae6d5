package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The code in the README is this program's.
func TestREADME(t *testing.T) {
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, body, ok := strings.Cut(string(source), "func main() {\n")
	require.True(t, ok)
	body = strings.TrimSuffix(strings.TrimSpace(body), "}")
	lines := strings.Split(strings.TrimSpace(body), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "\t")
	}
	require.Contains(t, string(readme), "```go\n"+strings.Join(lines, "\n")+"\n```")
}
