// dhcpload plays DHCP clients on an interface, each with a hardware address of
// its own, through a packet socket and in batches. One thread.
//
//	dhcpload IFACE MODE [name=value ...]
//
// Modes:
//
//	fresh     w clients at a time do an exchange each (DISCOVER to ACK), new ones
//	          all the time (or max of them in all); one that hears nothing for a
//	          second begins again
//	renew     clients addresses are taken, then w of them at a time are renewed,
//	          as clients do: REQUEST with ciaddr, to the server, from the address
//	rate      rate new clients a second, which do not repeat themselves
//	discover  the same, but they only send DISCOVER
//	storm     clients machines within two seconds, loss of the packets lost in
//	          either direction; they repeat themselves after first, and after
//	          twice as long each time, but ten seconds at most; unlucky are
//	          those that lost four packets in a row
//
// It prints "ready" when it has prepared itself, waits for a line, and prints
// name=value pairs in the end. Times are in microseconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, FRAME = 640, RING = 1 << 20, IDLE = 0, SELECTING, REQUESTING, RENEWING, BOUND };

struct client {
	uint32_t n, ip, server;
	int state, slot, tries, lost; // lost: packets in a row
	double began, sent, due, bound;
};

static struct client *ring;
static uint32_t *holder; // by the last three bytes of the address: number + 1
static int fd;
static uint8_t server_mac[6] = {255, 255, 255, 255, 255, 255};

static char *mode, *iface;
static double secs = 2, rate = 1000, loss, first = 1e6, now, start;
static int w = 64, clients = 500, bcast = 1, relay, seed = 1;
static long max = -1;
static uint32_t base;

static uint32_t self_ip, relay_ip;
static long started, done, timeouts, naks, dups, offers, busy, unlucky;
static float *offer_us, *ack_us;
static long offer_n, ack_n, us_max = 1 << 22;

static double clock_us(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double random_share(void) {
	static uint64_t x;
	if (!x) x = 88172645463325252ull + seed * 7919ull;
	x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	return (x >> 11) * 0x1p-53;
}

static void die(const char *what) {
	perror(what);
	exit(1);
}

// What is sent is collected, and goes out in batches.
static uint8_t out[BATCH][FRAME];
static struct iovec out_iov[BATCH];
static struct mmsghdr out_msg[BATCH];
static int out_n;

static void flush(void) {
	for (int i = 0; i < out_n;) {
		int n = sendmmsg(fd, out_msg + i, out_n - i, 0);
		if (n > 0) {
			i += n;
		} else if (errno == ENOBUFS || errno == EAGAIN) {
			struct pollfd p = {fd, POLLOUT, 0};
			busy++;
			poll(&p, 1, 1);
		} else if (errno != EINTR) {
			die("sendmmsg");
		}
	}
	out_n = 0;
}

static uint16_t ip_sum(const uint8_t *p) {
	uint32_t s = 0;
	for (int i = 0; i < 20; i += 2) s += p[i] << 8 | p[i + 1];
	while (s >> 16) s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static void put16(uint8_t *p, uint16_t v) { p[0] = v >> 8, p[1] = v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

// is_lost is for a packet of the client's, or one to it. Whoever loses four in
// a row waits for 15 seconds, whatever the server does.
static int is_lost(struct client *c) {
	if (loss <= 0) return 0;
	if (random_share() >= loss) return 0;
	if (++c->lost == 4) unlucky++;
	return 1;
}

// send_message is what a UEFI machine sends.
static void send_message(struct client *c, int type) {
	c->sent = now;
	if (is_lost(c)) return;
	static const uint8_t options[] = {57, 2, 5, 0xc0, 93, 2, 0, 7, 94, 3, 1, 3, 16, 60, 32, 'P', 'X', 'E', 'C', 'l', 'i', 'e', 'n', 't', ':',
		'A', 'r', 'c', 'h', ':', '0', '0', '0', '0', '7', ':', 'U', 'N', 'D', 'I', ':', '0', '0', '3', '0', '1', '6',
		55, 10, 1, 3, 6, 12, 15, 43, 60, 66, 67, 54};
	uint8_t *f = out[out_n], *ip = f + 14, *u = f + 34, *d = f + 42, *o = d + 240;
	uint8_t mac[6] = {2, 0x50};
	put32(mac + 2, c->n);
	int renewing = c->state == RENEWING;
	memset(f, 0, 42 + 240);
	memcpy(f, relay || renewing ? server_mac : (uint8_t[]){255, 255, 255, 255, 255, 255}, 6);
	memcpy(f + 6, mac, 6);
	f[12] = 8;
	ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
	put32(ip + 12, relay ? relay_ip : renewing ? c->ip : 0);
	put32(ip + 16, relay || renewing ? self_ip : 0xffffffff);
	put16(u, relay ? 67 : 68), put16(u + 2, 67);
	d[0] = 1, d[1] = 1, d[2] = 6;
	put32(d + 4, c->n);
	if (bcast && !renewing) d[10] = 0x80;
	if (renewing) put32(d + 12, c->ip);
	if (relay) d[3] = 1, put32(d + 24, relay_ip);
	memcpy(d + 28, mac, 6);
	memcpy(d + 236, "\x63\x82\x53\x63", 4);
	*o++ = 53, *o++ = 1, *o++ = type;
	if (type == 3 && !renewing) {
		*o++ = 50, *o++ = 4, put32(o, c->ip), o += 4;
		*o++ = 54, *o++ = 4, put32(o, c->server), o += 4;
	}
	memcpy(o, options, sizeof options), o += sizeof options;
	*o++ = 97, *o++ = 17, *o++ = 0, memset(o, 0x11, 10), memcpy(o + 10, mac, 6), o += 16;
	*o++ = 255;
	int len = o - f;
	put16(ip + 2, len - 14), put16(u + 4, len - 34), put16(ip + 10, ip_sum(ip));
	out_iov[out_n].iov_len = len;
	if (++out_n == BATCH) flush();
}

static uint32_t next_n, in_slot[1 << 16]; // who is busy in each of the w places

static void begin(uint32_t n, int slot) {
	struct client *c = &ring[n % RING];
	*c = (struct client){.n = n, .state = SELECTING, .slot = slot, .began = now, .due = now + first};
	started++;
	if (slot >= 0) in_slot[slot] = n;
	send_message(c, 1);
}

// again puts a new client, or the next renewal, in the place of one that is done.
static void again(int slot) {
	if (max >= 0 && started >= max) return;
	begin(next_n++, slot);
}

static void renew(struct client *c) {
	c->state = RENEWING;
	c->began = now;
	in_slot[c->slot] = c->n;
	send_message(c, 3);
}

static int renewing; // the phase in which they do

static uint32_t renewals;

static void note(float *list, long *n, double v) {
	if (*n < us_max) list[(*n)++] = v;
}

static void receive(const uint8_t *f, int len) {
	const uint8_t *d = f + 42, *end = f + len;
	if (len < 42 + 240 || d[0] != 2) return;
	uint32_t n = get32(d + 4), ip = get32(d + 16), server = 0;
	struct client *c = &ring[n % RING];
	if (c->n != n || c->state == IDLE || (c->state == BOUND && loss > 0) || is_lost(c)) return;
	c->lost = 0;
	int type = 0;
	for (const uint8_t *o = d + 240; o + 1 < end && *o != 255;) {
		if (*o == 0) {
			o++;
			continue;
		}
		if (o + 2 + o[1] > end) break;
		if (*o == 53) type = o[2];
		if (*o == 54) server = get32(o + 2);
		o += 2 + o[1];
	}
	if (type == 2 && c->state == SELECTING) {
		offers++;
		note(offer_us, &offer_n, now - c->sent);
		if (server_mac[0] == 255) memcpy(server_mac, f + 6, 6);
		c->ip = ip, c->server = server;
		if (!strcmp(mode, "discover")) {
			c->state = IDLE;
			done++;
			return;
		}
		c->state = REQUESTING;
		c->tries = 0, c->due = now + first;
		send_message(c, 3);
	} else if (type == 5 && (c->state == REQUESTING || c->state == RENEWING)) {
		uint32_t *h = &holder[ip & 0xffffff];
		if (*h && *h != n + 1) dups++;
		*h = n + 1;
		note(ack_us, &ack_n, now - c->sent);
		done++;
		c->state = BOUND, c->bound = now;
		if (renewing) {
			// the next of the population, which is not busy: it is larger than w
			for (;;) {
				struct client *o = &ring[(base + renewals++ % clients) % RING];
				if (o->state == BOUND) {
					o->slot = c->slot;
					renew(o);
					break;
				}
			}
		} else if (c->slot >= 0) {
			again(c->slot);
		}
	} else if (type == 6) {
		naks++;
		c->state = SELECTING;
		c->tries = 0, c->due = now + first;
		send_message(c, 1);
	}
}

// take handles what is there, or waits for it for at most wait_us.
static void take(double wait_us) {
	static uint8_t in[BATCH][2048];
	static struct iovec iov[BATCH];
	static struct mmsghdr msg[BATCH];
	if (!iov[0].iov_base)
		for (int i = 0; i < BATCH; i++) {
			iov[i] = (struct iovec){in[i], sizeof in[i]};
			msg[i].msg_hdr.msg_iov = &iov[i], msg[i].msg_hdr.msg_iovlen = 1;
		}
	flush();
	int n = recvmmsg(fd, msg, BATCH, MSG_DONTWAIT, 0);
	if (n <= 0) {
		struct pollfd p = {fd, POLLIN, 0};
		struct timespec t = {wait_us / 1e6, (long)(wait_us * 1e3) % 1000000000};
		ppoll(&p, 1, &t, 0);
		n = recvmmsg(fd, msg, BATCH, MSG_DONTWAIT, 0);
	}
	now = clock_us();
	for (int i = 0; i < n; i++) receive(in[i], msg[i].msg_len);
	flush();
}

// closed keeps w clients busy until the time is over or enough are done.
static void closed(double until, long enough) {
	double scan = now;
	while (now < until && (enough < 0 || done < enough)) {
		take(1000);
		if (now - scan < 50e3) continue;
		scan = now;
		for (int i = 0; i < w; i++) {
			struct client *c = &ring[in_slot[i] % RING];
			if (c->state == IDLE || c->state == BOUND || now - c->sent < 1e6) continue;
			timeouts++;
			if (c->state != RENEWING) c->state = SELECTING;
			send_message(c, c->state == RENEWING ? 3 : 1);
		}
	}
}

static void open_loop(void) {
	double until = start + secs * 1e6;
	while (now < until + 5e5) {
		double left = 1000;
		if (now < until) {
			long due = (now - start) * rate / 1e6 - started;
			for (long i = 0; i < due && i < BATCH; i++) begin(next_n++, -1);
			left = start + (started + 1) * 1e6 / rate - now;
		}
		take(left < 0 ? 0 : left > 1000 ? 1000 : left);
	}
}

static void storm(void) {
	double spread = 2e6, scan = 0;
	while (done < clients && now < start + 60e6) {
		long due = (now - start) / spread * clients;
		for (int i = 0; started < clients && started < due && i < BATCH; i++) begin(next_n++, -1);
		take(1000);
		if (now - scan < 5000) continue;
		scan = now;
		for (uint32_t n = base; n < next_n; n++) {
			struct client *c = &ring[n % RING];
			if (c->state == BOUND || c->state == IDLE || now < c->due) continue;
			timeouts++;
			double wait = first;
			for (int i = 0; i <= c->tries; i++) wait *= 2;
			c->due = now + (wait > 10e6 ? 10e6 : wait);
			if (++c->tries > 4 && c->state == REQUESTING) c->state = SELECTING, c->tries = 0, c->due = now + first;
			send_message(c, c->state == SELECTING ? 1 : 3);
		}
	}
}

static int by_value(const void *a, const void *b) {
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void percentiles(const char *name, float *v, long n) {
	qsort(v, n, sizeof *v, by_value);
	printf(" %s_p50=%.1f %s_p99=%.1f", name, n ? v[n / 2] : 0, name, n ? v[(n - 1) * 99 / 100] : 0);
}

static void set(const char *arg) {
	double v = strchr(arg, '=') ? atof(strchr(arg, '=') + 1) : 0;
	struct in_addr a;
	if (!strncmp(arg, "secs=", 5)) secs = v;
	else if (!strncmp(arg, "w=", 2)) w = v;
	else if (!strncmp(arg, "clients=", 8)) clients = v;
	else if (!strncmp(arg, "rate=", 5)) rate = v;
	else if (!strncmp(arg, "loss=", 5)) loss = v;
	else if (!strncmp(arg, "first=", 6)) first = v * 1e6;
	else if (!strncmp(arg, "max=", 4)) max = v;
	else if (!strncmp(arg, "base=", 5)) base = v;
	else if (!strncmp(arg, "seed=", 5)) seed = v;
	else if (!strncmp(arg, "bcast=", 6)) bcast = v;
	else if (!strncmp(arg, "server=", 7) && inet_aton(arg + 7, &a)) self_ip = ntohl(a.s_addr);
	else if (!strncmp(arg, "mac=", 4) && sscanf(arg + 4, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", server_mac, server_mac + 1, server_mac + 2,
		server_mac + 3, server_mac + 4, server_mac + 5) == 6) return;
	else if (!strncmp(arg, "relay=", 6) && inet_aton(arg + 6, &a)) relay = 1, relay_ip = ntohl(a.s_addr);
	else fprintf(stderr, "what is %s?\n", arg), exit(2);
}

// sink takes what the kernel delivers besides, so that it does not refuse it.
static void sink(int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	int s = socket(AF_INET, SOCK_DGRAM, 0), small = 1, one = 1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(s, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	if (bind(s, (struct sockaddr *)&a, sizeof a)) die("bind");
}

int main(int argc, char **argv) {
	if (argc < 3) return 2;
	iface = argv[1], mode = argv[2];
	for (int i = 3; i < argc; i++) set(argv[i]);
	if (w > 1 << 16) return 2;
	ring = calloc(RING, sizeof *ring), holder = calloc(1 << 24, sizeof *holder);
	offer_us = malloc(us_max * sizeof *offer_us), ack_us = malloc(us_max * sizeof *ack_us);
	sink(68), sink(67);

	fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0) die("socket");
	// UDP over IPv4 without options, from port 67
	struct sock_filter code[] = {
		{BPF_LD | BPF_H | BPF_ABS, 0, 0, 12}, {BPF_JMP | BPF_JEQ | BPF_K, 0, 5, ETHERTYPE_IP},
		{BPF_LD | BPF_B | BPF_ABS, 0, 0, 23}, {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 17},
		{BPF_LD | BPF_H | BPF_ABS, 0, 0, 34}, {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 67},
		{BPF_RET | BPF_K, 0, 0, 65535}, {BPF_RET | BPF_K, 0, 0, 0}};
	struct sock_fprog prog = {sizeof code / sizeof *code, code};
	int size = 64 << 20, one = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog)) die("filter");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_PACKET, 20 /* PACKET_QDISC_BYPASS */, &one, sizeof one);
	setsockopt(fd, SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &one, sizeof one);
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = if_nametoindex(iface)};
	if (bind(fd, (struct sockaddr *)&ll, sizeof ll)) die("bind");
	for (int i = 0; i < BATCH; i++) {
		out_iov[i].iov_base = out[i];
		out_msg[i].msg_hdr.msg_iov = &out_iov[i], out_msg[i].msg_hdr.msg_iovlen = 1;
	}

	next_n = base;
	start = now = clock_us();
	if (!strcmp(mode, "renew")) {
		long each = max;
		max = clients;
		for (int i = 0; i < w && i < clients; i++) again(i);
		closed(now + 20e6, clients);
		max = each;
		if (done < clients) {
			fprintf(stderr, "%ld of %d clients got an address\n", done, clients);
			return 1;
		}
	}
	puts("ready");
	fflush(stdout);
	getchar();
	started = done = timeouts = naks = dups = offers = offer_n = ack_n = 0;
	start = now = clock_us();
	if (!strcmp(mode, "fresh")) {
		for (int i = 0; i < w; i++) again(i);
		closed(start + secs * 1e6, max);
	} else if (!strcmp(mode, "renew")) {
		renewing = 1;
		for (int i = 0; i < w; i++) {
			struct client *c = &ring[(base + renewals++) % RING];
			c->slot = i;
			renew(c);
		}
		closed(start + secs * 1e6, -1);
	} else if (!strcmp(mode, "rate") || !strcmp(mode, "discover")) {
		open_loop();
	} else if (!strcmp(mode, "storm")) {
		storm();
	} else {
		return 2;
	}
	double took = (now - start) / 1e6, last = 0;
	long within = 0;
	for (uint32_t n = base; n < next_n && !strcmp(mode, "storm"); n++) {
		struct client *c = &ring[n % RING];
		if (c->state != BOUND) continue;
		double t = (c->bound - c->began) / 1e6;
		within += t <= 15;
		if (t > last) last = t;
	}
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	printf("started=%ld done=%ld offers=%ld secs=%.6f timeouts=%ld naks=%ld dups=%ld busy=%ld unlucky=%ld within=%ld last=%.3f cpu=%.3f", started, done, offers, took, timeouts,
		naks, dups, busy, unlucky, within, last, u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	percentiles("offer", offer_us, offer_n);
	percentiles("ack", ack_us, ack_n);
	puts("");
	return 0;
}
