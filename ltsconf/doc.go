// Package ltsconf reads, resolves and writes lts.conf, the per-client
// configuration of LTSP 5.
//
// An lts.conf is a list of sections of NAME=value settings. A section is
// named after a client (host name, IPv4 address or MAC address), after a
// pattern of them, after nothing but itself (for LIKE to point at), or
// Default. A client fetches the file over TFTP while it boots, runs it
// through the program getltscfg, and evaluates what comes out as shell code
// in the first process of the system. A mistake in the file therefore either
// vanishes with everything after it, or stops the boot.
//
// This package takes that work off the client:
//
//	f, err := ltsconf.ParseFile("/etc/ltsp/lts.conf") // or says what is wrong, with line and column
//	c := ltsconf.Client{Hostname: "ws01", IP: ip, MAC: mac}
//	for name, v := range f.Resolve(c) {               // what this client gets, and from where
//		fmt.Println(name, v.Raw, v.Section, v.Line)
//	}
//	ltsconf.Collect(f.Resolve(c)).WriteTo(w)          // one flat file with only that, safe to evaluate
//	ltsconf.Names("amd64", "/ltsp/amd64")             // the names at which the client asks for it
//
// # Reading
//
// [Parse] is strict: it takes what every LTSP 5 client understands the way
// the writer meant it, and refuses the rest with a [*SyntaxError]. A [Parser]
// with Compatible set reads exactly as getltscfg does, keeps what came before
// a syntax error, and lists in [File.Problems] everything the strict reader
// would have refused. A file that the strict reader takes means the same in
// both. What is well formed but has no effect is taken by both: a second
// section of one name, all but the last of several settings of one name, a
// LIKE that names no section.
//
// The grammar has traps, all of them refused by the strict reader: a section
// without settings is a syntax error; a quoted value runs to the last double
// quote on its line; newlines do not end a setting, so that "A=" takes its
// value from the next line; a single quote or a lone double quote is printed
// in front of the output, and ends the boot. There are no line continuations,
// no escapes, and no comments other than "#" to the end of the line.
//
// # Values are shell text
//
// The client's shell reads each value inside double quotes: $VAR, $(command)
// and \" do what they do there. [Value.Raw] is that text. [Literal] makes one
// of a plain string, and [Value.Literal] gives the plain string back unless
// the value needs a shell. Early in the boot, where PREINIT_*, FSTAB_* and
// RCFILE_* are used, every run of white space in a value becomes one space;
// later the spacing is kept. The word NONE (any case) as a value means
// "not set" and cannot be set.
//
// # Limits
//
// Input is limited in size ([Parser].MaxSize), each call takes time linear in it
// (matching a pattern: the product of its length and the name's), and
// no input makes it panic. A [File] does not change after parsing and may be
// used by any number of goroutines. Substitutions in values are checked to be
// closed; what runs inside them is the client's business.
//
// LTSP 19 and later read ltsp.conf, another format with a similar look, which
// this package does not read.
package ltsconf
