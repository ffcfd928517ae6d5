package pxecfg

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// grubFiles are what tests have written for GRUB, whatever they were about. When
// all tests are over the real parser gets them; if it is missing the tests that
// need it say so.
var grubFiles struct {
	sync.Mutex
	texts map[string]bool
}

// grubSeen takes down a file for GRUB.
func grubSeen(text string) string {
	grubFiles.Lock()
	defer grubFiles.Unlock()
	if grubFiles.texts == nil {
		grubFiles.texts = make(map[string]bool)
	}
	if len(grubFiles.texts) < 5000 { // fuzzing goes on and on
		grubFiles.texts[text] = true
	}
	return text
}

func TestMain(m *testing.M) {
	code := m.Run()
	if tool, err := exec.LookPath("grub-script-check"); err == nil && code == 0 {
		if err := checkGRUBFiles(tool); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// checkGRUBFiles gives the parser the first few one by one, and then all of
// them together, as it takes longer to start than to read.
func checkGRUBFiles(tool string) error {
	texts, err := exampleGRUBFiles()
	if err != nil {
		return err
	}
	for text := range grubFiles.texts {
		texts = append(texts, text)
	}
	check := func(text string) error {
		cmd := exec.Command(tool)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("grub-script-check: %w\n%s\n%s", err, out, text)
		}
		return nil
	}
	for _, text := range texts[:min(len(texts), 150)] {
		if err := check(text); err != nil {
			return err
		}
	}
	return check(strings.Join(texts, "\n"))
}

// exampleGRUBFiles returns what the examples' outputs have for GRUB.
func exampleGRUBFiles() (texts []string, err error) {
	names, err := filepath.Glob("example*_test.go")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, output := range bytes.Split(source, []byte("// Output:\n"))[1:] {
			var text strings.Builder
			grub := false
			for line := range strings.SplitSeq(string(output), "\n") {
				line, ok := strings.CutPrefix(line, "\t// ")
				if !ok {
					break
				}
				if grub = grub || strings.HasPrefix(line, "set default=") || strings.HasPrefix(line, "function "); grub {
					text.WriteString(line + "\n")
				}
			}
			if grub {
				texts = append(texts, text.String())
			}
		}
	}
	if len(texts) < 3 {
		return nil, fmt.Errorf("%d of the examples have an output for GRUB, and there were three", len(texts))
	}
	return texts, nil
}
