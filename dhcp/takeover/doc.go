// Package takeover reads the configurations of other DHCP servers, so that a
// site can go over to package dhcp without writing everything anew: ISC's
// dhcpd.conf and its leases, the DHCP part of dnsmasq.conf, and Kea's JSON.
//
// [DHCPD], [Dnsmasq] and [Kea] return a [Config], which is a [dhcp.Handler]: its pools,
// reservations and options are those of package dhcp, and the conditions of
// the file (if, elsif, else; tags) are evaluated for each request.
//
// Addresses that only some clients may have (dhcpd's pools with allow and deny,
// dnsmasq's ranges with tags, Kea's pools with a class) are in [Network.Members].
//
// What is not understood, or has no meaning here, is never dropped in silence:
// it is in [Config.Notes], with line and column. Read them before you switch;
// a note that is not Harmless means that some client is told something else
// than before.
package takeover
