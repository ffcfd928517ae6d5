// Package etcdstore keeps the leases of package dhcp in etcd, so that several
// servers give addresses of the same subnets at the same time. Any of them may
// die at any moment: the others know its leases, and no address is given twice.
//
// # Model
//
// All servers answer; a client takes one of their offers. Each change is an
// etcd transaction that compares the revisions of what it was decided by, so
// of two servers that decide at once one sees what the other did, and decides
// again. An ACK leaves a server after etcd has committed the lease. Offers are
// in etcd too: two servers do not offer one address to two machines.
//
// A machine that asks two servers, because the first was slow, may get a lease
// from each. The one that was made first counts, by etcd's revisions: a server
// that made one looks whether there was another before, once it has seen all
// that others did until then, and if so sends no ACK and takes its own back. A
// machine that has an active lease is therefore never moved to another address.
// One that renews runs on what it renews, and keeps that in any case.
//
// Reads (who has this address, which is free) are answered from a copy that an
// etcd watch keeps. Every second a server writes a key of its own and sees how
// long it takes to come back: that is how old the copy is. A client is refused
// only after the copy was brought up to date.
//
// # Time
//
// No server's clock decides when a lease is over. Leases point to a term, a key
// with an etcd lease that lasts longer than what clients were promised; an
// address is free when that key is gone, and the transaction that gives the
// address to somebody else compares that it is gone. Many leases share a term,
// so there are tens of terms, not one for each lease. An address therefore
// comes back later than the client's lease ended: by a quarter of the lease
// time at most, and some seconds. The times in values are for people.
//
// What is relied on: that etcd ends no lease early (it may end them late, as
// after the election of a leader), and that a client counts its lease from
// when it asked (RFC 2131 section 4.4.1) or, where it counts from the ACK,
// that this came within [Options.Timeout].
//
// # What a machine gives back
//
// A release ends a lease early only where one server alone has acknowledged it
// since the address was free, and it reaches that one, by its [Options.Name].
// Otherwise it could be an old one, of a server that had stopped, while the
// machine has its address again from another: the lease then lasts until its
// time is over, as without a release.
//
// # When etcd is away
//
// A server that does not reach etcd (or a member without a leader) gives no
// address and renews none: without a commit there is no ACK. It offers
// nothing and refuses nobody once its copy is older than [Options.MaxAge], so
// that clients go to servers that do reach it. Machines that have a lease keep
// their address: they ask at half of the lease time, and again until its end,
// so etcd may be away for half of the lease time before one notices. Lookups
// of leases fail too, for nobody knows whose address it is by then.
//
// # Size
//
// A server has all leases in memory, with some 240 bytes each. When it starts
// it reads them from etcd, and says nothing before it has: a million are 250
// MB from there, and some three seconds of this server's CPU time. The other
// servers answer meanwhile.
//
// # Keys
//
// Below the prefix, /diskless/dhcp by default, with JSON values:
//
//	lease/192.168.0.17   who has or had the address, what is known of it, which server gave it
//	offer/192.168.0.17   who is offered it; goes with its etcd lease
//	term/694d9c0a1b2c    leases point to it; its name is the etcd lease: etcdctl lease timetolive
//	open/694d9c0a1b2c    leases may still begin on that term
//	server/dhcp1         a server that lives
//
// A value that is not understood keeps its address out of use.
//
// # Setup
//
// The servers need the same pools, the same prefix, names and addresses of
// their own, and the others' addresses in [dhcp.Pool.Peers]. In etcd:
// --auto-compaction-retention must be set, since each renewal is a new revision
// and etcd refuses all changes when its database is full; --max-txn-ops must
// not be below 128. Three members on machines of their own survive the loss of
// one. etcd 3.4 and later are known to work.
//
// The client is the caller's: endpoints, TLS and users are set there. Its
// DialKeepAliveTime and DialKeepAliveTimeout should be some seconds, so that a
// connection that died without a word is given up.
package etcdstore
