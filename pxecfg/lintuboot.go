package pxecfg

import "strings"

// ubootLabelWords and ubootTopWords are what U-Boot's reader knows inside of a
// label, and outside. In a label any other word ends the label.
var (
	ubootLabelWords = wordSet(`menu kernel linux append initrd fdt devicetree fdtdir devicetreedir fdtoverlays
		devicetree-overlay localboot ipappend kaslrseed`)
	ubootTopWords = wordSet("menu timeout label default ontimeout fallback include prompt")
	// ubootBare have no value, or can do without.
	ubootBare = wordSet("menu prompt kaslrseed")
	// ubootLoads are lines of which the loss matters.
	ubootLoads = wordSet("kernel linux append initrd fdt devicetree fdtdir devicetreedir fdtoverlays localboot ipappend")
)

// uboot reads the file as U-Boot does, to see what is lost.
func (l *linter) uboot(f *File) {
	var (
		inLabel   bool
		ended     *Line // what ended the last label too soon
		reported  bool
		hasInitrd bool
		cr        bool
	)
	for i := range f.lines {
		line := &f.lines[i]
		if line.Col > 1 {
			continue
		}
		text := strings.TrimRight(strings.TrimLeft(strings.TrimSuffix(line.raw, "\n"), " \t"), "\r")
		if strings.HasSuffix(line.raw, "\r\n") && !cr && text != "" && text[0] != '#' {
			cr = true
			l.add(f.Name, line.Number, line.Col+len(line.raw)-2, "uboot-cr", "a carriage return at the end of a line is part of the value: use plain line ends")
		}
		if text == "" || text[0] == '#' {
			continue
		}
		word, v := firstWord(text)
		v = strings.TrimLeft(v, " \t")
		col := line.Col + strings.Index(line.raw, text)
		w := strings.ToLower(word)
		known := ubootLabelWords[w]
		if known && inLabel || !inLabel && ubootTopWords[w] || w == "label" {
			if (v == "" || v[0] == '#') && !ubootBare[w] {
				l.add(f.Name, line.Number, col, "uboot-no-value", "%s without a value makes U-Boot refuse the whole file", strings.ToUpper(w))
			}
		}
		switch {
		case w == "label":
			inLabel, ended, reported, hasInitrd = true, nil, false, false
		case inLabel && !known:
			inLabel, ended = false, line
		case !inLabel && ended != nil && ubootLoads[w] && !reported:
			reported = true
			first, _ := firstWord(ended.text())
			l.add(f.Name, ended.Number, ended.Col, "uboot-ends-label", "%q ends the entry, and %s in line %d is lost: move it to the end of the entry",
				cutShort(first), strings.ToUpper(w), line.Number)
		case inLabel && w == "append":
			_, after, found := strings.Cut(v, "initrd=")
			if found && !hasInitrd {
				if !strings.Contains(after, " ") {
					l.add(f.Name, line.Number, col, "uboot-initrd-last", "initrd= at the end of APPEND is misread: use an INITRD line")
				}
				l.ubootInitrd(f.Name, line.Number, col, strings.SplitN(after, " ", 2)[0])
				hasInitrd = true
			}
		case inLabel && w == "initrd":
			if hasInitrd {
				l.add(f.Name, line.Number, col, "uboot-initrd-twice", "there is an initrd already: this INITRD ends the entry")
				inLabel, ended = false, line
			}
			l.ubootInitrd(f.Name, line.Number, col, v)
			hasInitrd = true
		case inLabel && w == "ipappend":
			if n, rest, ok := parseNumber(v, 10); !ok || strings.TrimSpace(rest) != "" || n > 3 {
				l.add(f.Name, line.Number, col, "uboot-ipappend", "only 1, 2 and 3, as decimal numbers, have an effect")
			}
		}
	}
}

func (l *linter) ubootInitrd(file string, line, col int, list string) {
	if strings.Contains(list, ",") {
		l.add(file, line, col, "uboot-one-initrd", "U-Boot takes one initrd, and looks for a file with a comma in its name")
	}
}
