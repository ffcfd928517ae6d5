package guest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libraryDirs is where Debian and its relatives keep shared libraries.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// addProgram puts a program into the archive at name, with its interpreter
// and every shared library that it needs. The ELF headers say which: running
// ldd would run the program.
func (a archive) addProgram(name, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	a.file(name, 0o755, data)
	needed, interpreter, err := needs(file)
	if err != nil {
		return err
	}
	if interpreter != "" {
		if data, err = os.ReadFile(interpreter); err != nil {
			return err
		}
		a.file(strings.TrimPrefix(interpreter, "/"), 0o755, data)
	}
	for len(needed) > 0 {
		library := needed[0]
		needed = needed[1:]
		in := "lib/" + library
		if _, ok := a[in]; ok || library == filepath.Base(interpreter) {
			continue
		}
		found, err := findLibrary(library)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if data, err = os.ReadFile(found); err != nil {
			return err
		}
		a.file(in, 0o755, data)
		more, _, err := needs(found)
		if err != nil {
			return err
		}
		needed = append(needed, more...)
	}
	return nil
}

// needs returns the shared libraries an ELF file names, and its interpreter.
func needs(file string) (libraries []string, interpreter string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, "", err
			}
			interpreter = strings.TrimRight(string(b), "\x00")
		}
	}
	libraries, err = f.ImportedLibraries()
	return libraries, interpreter, err
}

func findLibrary(name string) (string, error) {
	for _, dir := range libraryDirs {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	return "", fmt.Errorf("library %s: %w in %s", name, fs.ErrNotExist, strings.Join(libraryDirs, " "))
}
