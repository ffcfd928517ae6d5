// Package ltsconf reads, checks, resolves, edits and writes lts.conf, the
// per-client configuration of LTSP 5, and ltsp.conf, that of LTSP 19 and later.
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
//	f.For(c)                                          // an fs.FS with it, at every such name
//	f.Explain(c)                                      // which sections were looked for, what each setting came to
//	f.Lint()                                          // what is probably not meant
//	f.Set("pc01", "SOUND", ltsconf.Literal("False"))  // the file with that changed, comments kept
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
// # Settings that LTSP knows
//
// [Variables] lists them, with type, default and meaning; [Settings.Bool] and
// its like read values as clients do ("1" is not true). Settings of a [Family],
// such as FSTAB_* and RCFILE_*, are collected by clients in the order of
// [Family.Of]; [Family.Setting] makes one from a line, and [Mount], [CronJob],
// [HostsLine] and [Command] make lines. PREINIT_* needs an LTSP with the patch
// that introduced it; elsewhere INIT_COMMAND_* is the nearest.
//
// # Secrets
//
// What stands in Default or under a pattern goes to every client that matches.
// A secret such as a join token belongs in a section for one machine ([File.Lint]
// tells of others), and what [File.For] or a resolved file holds should be given
// only to a peer that is known to be that machine: TFTP has no passwords.
//
// # ltsp.conf
//
// LTSP 19 and later turn each section into a shell function and run those
// that apply, one after the other, so that later settings replace earlier ones:
// the other way round than in an lts.conf. [ParseLTSP] reads such a file, and
// [LTSPFile.Resolve] evaluates it without a shell, as dash would: all of a
// POSIX shell's language, functions, loops, arithmetic and here-documents
// included, with the builtins that set, test or print. No command is run, no file
// read. What depends on one is told by [LTSPFile.Undecided], with its place, and
// counts as not set; a value with a $(command) is kept as it is written.
// Variables are empty unless a section sets them or [LTSPClient].Env has them.
// echo is LTSP's own, which knows neither options nor escapes.
//
// [LTSPFile.Stops] tells where a client would stop its boot: LTSP does when a
// section ends in a command that fails. A line that starts with [ is a header,
// also where a test was meant. Quotes, braces and here-documents do not end
// where a section does; the strict reader refuses those that cross its border,
// and a compatible one reads on as the shell does (what LTSP writes between two
// sections is not in such a value letter by letter). A file without any section
// does not boot. [LTSPVariables] lists the settings that LTSP knows.
//
// # Limits
//
// Input is limited in size ([Parser].MaxSize), each call takes time linear in it
// (matching a pattern: the product of its length and the name's), and
// no input makes it panic. A [File] does not change after parsing and may be
// used by any number of goroutines. Substitutions in values are checked to be
// closed; what runs inside them is the client's business. The evaluation of an
// ltsp.conf ends after 131072 commands or 4 MiB of values and comparisons.
package ltsconf
