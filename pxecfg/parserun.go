package pxecfg

import "strings"

// execute reads a command as PXELINUX runs it: the type of what boots, its file
// and its arguments. A first word such as ".linux" is a type, the rest then the
// command.
func execute(cmd string) (typ, file, args string) {
	for {
		if file, args = cutWord(cmd); typ == "" {
			typ = typeByName(file)
		}
		next, ok := strings.CutPrefix(file, ".")
		switch {
		case !ok || next == "none" || next == "comboot" || !kernelTypes[next]:
			return typ, file, args
		case next == "com32":
			if cmd, args = firstWord(args); !strings.HasSuffix(cmd, ".c32") {
				cmd += ".c32"
			}
			cmd, typ = cmd+args, next
		case next == "kernel", next == "fdimage":
			cmd, typ = args, "linux"
		default:
			cmd, typ = args, next
		}
	}
}

func typeByName(name string) string {
	for _, x := range [...]struct{ suffix, typ string }{
		{".c32", "com32"}, {".bss", "bss"}, {".bin", "boot"}, {".bs", "boot"}, {".0", "pxe"},
	} {
		if strings.HasSuffix(name, x.suffix) {
			return x.typ
		}
	}
	return "linux"
}

// ImageType is the type that the entry boots as: Type or, for "kernel", what
// PXELINUX tells from the end of the file's name, which is "linux" if nothing
// else. A disk image, "fdimage" or a name that ends in .img, is "linux" too:
// PXELINUX knows the word and hands the file to its loader of kernels, as only
// ISOLINUX has one for images. It is empty for entries that do not boot.
func (e *MenuEntry) ImageType() string {
	switch {
	case e.Action != ActionCommand:
		return ""
	case e.Type == "none", e.Type == "comboot":
		return e.Type // known to the reader only: there is no such file
	}
	typ, _, _ := execute(e.CommandLine(SysStrings{}))
	return typ
}

// KernelLine returns the command line as a Linux kernel sees it in
// /proc/cmdline, BOOT_IMAGE= included. ok is false for what is not Linux.
func (e *MenuEntry) KernelLine(sys SysStrings) (line string, ok bool) {
	if e.ImageType() != "linux" {
		return "", false
	}
	_, file, args := execute(e.CommandLine(sys))
	return "BOOT_IMAGE=" + file + " " + args, true
}

// Initrds returns the files that PXELINUX loads for a Linux kernel, wherever
// they are named. It takes the first "initrd=" of the whole command line, even
// from the middle of a word, and no other.
func (e *MenuEntry) Initrds() []string {
	line, ok := e.KernelLine(SysStrings{})
	if !ok {
		return nil
	}
	_, list, ok := strings.Cut(line, "initrd=")
	if !ok {
		return nil
	}
	list, _, _ = strings.Cut(list, " ")
	return strings.Split(list, ",")
}

// Resolve turns a command as people type it, and as DEFAULT, ONTIMEOUT and
// ONERROR have it, into the one that runs: a label is replaced by what it
// boots, arguments after it are kept. What is no label is a file, and has the
// strings of the last SYSAPPEND before the first LABEL or, with ALLOWOPTIONS 0,
// no other arguments. The result is empty if nothing runs.
func (p *PXELINUX) Resolve(command string, sys SysStrings) string {
	if e := p.Lookup(command); e != nil {
		line := e.CommandLine(sys)
		if _, args := cutWord(command); args != "" && e.Action == ActionCommand {
			line += " " + args
		}
		return line
	}
	if !p.Implicit {
		return ""
	}
	if !p.AllowOptions {
		command, _ = firstWord(command)
	}
	if typ, _, _ := execute(command); typ != "linux" {
		return command
	}
	for i, s := range sys {
		if p.sysAppend>>i&1 != 0 && s != "" {
			command += " " + mangle(asciiOnly(s))
		}
	}
	return command
}

// asciiOnly makes white space of what it is for a command that is no label.
func asciiOnly(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 0x80 {
			b[i] = ' '
		}
	}
	return string(b)
}
