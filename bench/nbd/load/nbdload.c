// nbdload: a load generator for NBD servers that is on the wire what the Linux
// client is: fixed newstyle, OPT_GO, simple replies, many requests in flight.
// It costs little: replies are parsed in batches, big payloads are dropped in
// the kernel. Over TCP client i has the source address 127.1.(i/200).(i%200+1),
// so that a server sees different machines.
//
// usage: nbdload PORT EXPORT MODE ARGS
//   read   N QD BS SECS             random reads; prints operations: per second, all
//   mix    N QD BS SECS WRITE%      random reads and writes; the same
//   verify N QD BS SECS WRITE% BASE the same; each client has a model of what it
//                                   must see over the file BASE; at the end it
//                                   reads everything back
//   fill   COUNT BS                 writes COUNT different random blocks; prints bytes
//   swarm  N BYTES BS               N clients at once connect and read BYTES; prints ms:
//                                   until all are done, median, 99th percentile
//   idle   N                        connects, reads once, prints "ready", waits for stdin's end
//   hostile N SECS                  each begins a write of 32 MiB and is silent; prints
//                                   "ready", then how many were cut off, and after how many seconds
// The environment's NBDLOAD_SPREAD=n lets requests go to every n-th block only.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct __attribute__((packed)) request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t length;
};
struct __attribute__((packed)) reply {
	uint32_t magic, error;
	uint64_t handle;
};
enum { READ, WRITE, DISC, FLUSH };

struct client {
	pthread_t thread;
	int id, sock;
	uint64_t size, ops;
	double took;
};

static int port, depth, bs, writes, verify;
static const char *export;
static double secs;
static uint64_t total, spread = 1;
static const unsigned char *base;
static pthread_barrier_t barrier;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

#define FAIL(...) do { fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)

static void send_all(int s, const void *p, size_t n)
{
	for (const char *c = p; n;) {
		ssize_t k = send(s, c, n, MSG_NOSIGNAL);
		if (k < 0 && errno != EINTR)
			FAIL("send: %s", strerror(errno));
		if (k > 0)
			c += k, n -= k;
	}
}

static void recv_all(int s, void *p, size_t n)
{
	for (char *c = p; n;) {
		ssize_t k = recv(s, c, n, 0);
		if (k == 0 || (k < 0 && errno != EINTR))
			FAIL("recv: %s", k ? strerror(errno) : "the server has closed the connection");
		if (k > 0)
			c += k, n -= k;
	}
}

static int dial(int i)
{
	struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1;
	from.sin_addr.s_addr = htonl(0x7f010001 + (i / 200 % 256 << 8) + i % 200);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int try = 0;; try++) {
		int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (s < 0)
			FAIL("socket: %s", strerror(errno));
		setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
		if (bind(s, (void *)&from, sizeof from) < 0)
			FAIL("bind: %s", strerror(errno));
		if (connect(s, (void *)&to, sizeof to) == 0) {
			setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
			return s;
		}
		close(s);
		if (try > 2000)
			FAIL("connect: %s", strerror(errno));
		usleep(1000);
	}
}

static uint64_t handshake(int s)
{
	char b[65536], q[512], *p = q;
	uint32_t n = strlen(export), v;
	recv_all(s, b, 18);
	v = htonl(b[17] & 2 ? 3 : 1), memcpy(p, &v, 4), p += 4;
	memcpy(p, "IHAVEOPT\0\0\0\7", 12), p += 12;
	v = htonl(4 + n + 2), memcpy(p, &v, 4), p += 4;
	v = htonl(n), memcpy(p, &v, 4), p += 4;
	memcpy(p, export, n), p += n;
	memset(p, 0, 2), p += 2;
	send_all(s, q, p - q);
	for (uint64_t size = 0;;) {
		uint32_t type, len;
		recv_all(s, b, 20);
		memcpy(&type, b + 12, 4), memcpy(&len, b + 16, 4);
		type = ntohl(type), len = ntohl(len);
		if (len > sizeof b || type & 0x80000000)
			FAIL("the server refuses the export: %x", type);
		recv_all(s, b, len);
		if (type == 1)
			return size;
		if (type == 3 && len >= 10 && b[0] == 0 && b[1] == 0)
			memcpy(&size, b + 2, 8), size = be64toh(size);
	}
}

static struct request ask(int type, uint64_t handle, uint64_t off, uint32_t len)
{
	return (struct request){htonl(0x25609513), 0, htons(type), handle, htobe64(off), htonl(len)};
}

static void check(const struct reply *r)
{
	if (r->magic != htonl(0x67446698))
		FAIL("a reply with another magic");
	if (r->error)
		FAIL("error %d in a reply", (int)ntohl(r->error));
}

static void leave(int s)
{
	struct request r = ask(DISC, 0, 0, 0);
	send_all(s, &r, sizeof r);
	close(s);
}

static void discard(int s, size_t n)
{
	while (n) {
		ssize_t k = recv(s, NULL, n, MSG_TRUNC);
		if (k <= 0)
			FAIL("lost in a payload");
		n -= k;
	}
}

static uint64_t next(uint64_t *s)
{
	*s ^= *s << 13, *s ^= *s >> 7, *s ^= *s << 17;
	return *s;
}

// What block b holds after client id's write number gen.
static uint32_t stamp(uint32_t gen, uint64_t b, int id) { return gen * 2654435761u ^ (uint32_t)b ^ (uint32_t)id << 24; }

static void compare(const char *data, uint64_t b, uint32_t gen, int id)
{
	const uint32_t want = stamp(gen, b, id), *w = (const void *)data;
	if (gen == 0 && memcmp(data, base + b * bs, bs))
		FAIL("client %d: block %lu is not the image's", id, (unsigned long)b);
	for (int k = 0; gen && k < bs / 4; k++)
		if (w[k] != want)
			FAIL("client %d: block %lu is not what it wrote", id, (unsigned long)b);
}

static void *worker(void *arg)
{
	struct client *c = arg;
	uint64_t blocks = c->size / bs, seed = 0x9e3779b97f4a7c15ull * (c->id + 1);
	struct slot { uint64_t block; uint32_t gen; int write; } *slots = calloc(depth, sizeof *slots);
	uint32_t *model = verify ? calloc(blocks, 4) : NULL, gen = 0;
	char *busy = verify ? calloc(blocks, 1) : NULL;
	char *out = malloc((size_t)depth * (sizeof(struct request) + (writes ? bs : 0)));
	size_t cap = bs + 16 > 1 << 20 ? bs + 16 : 1 << 20, have = 0, used = 0;
	char *in = malloc(cap);
	int s = c->sock, flying = 0, stop = 0;

	pthread_barrier_wait(&barrier);
	double end = now() + secs;
	for (int first = depth; first || flying;) {
		size_t p = 0;
		if (!first) {
			ssize_t k = recv(s, in + have, cap - have, 0);
			if (k <= 0)
				FAIL("connection lost: %s", k ? strerror(errno) : "end of file");
			have += k;
			stop |= now() >= end;
		}
		for (;;) {
			int i;
			if (first) {
				i = --first;
			} else {
				const struct reply *r = (void *)(in + p);
				if (have - p < sizeof *r)
					break;
				check(r);
				i = r->handle;
				size_t need = sizeof *r + (slots[i].write ? 0 : bs);
				if (have - p < need)
					break;
				if (verify) {
					if (slots[i].write)
						model[slots[i].block] = slots[i].gen;
					else
						compare(in + p + sizeof *r, slots[i].block, model[slots[i].block], c->id);
					busy[slots[i].block] = 0;
				}
				p += need, flying--, c->ops++;
			}
			if (stop)
				continue;
			uint64_t b;
			do
				b = next(&seed) % (blocks / spread) * spread;
			while (busy && busy[b]);
			if (busy)
				busy[b] = 1;
			slots[i] = (struct slot){b, 0, writes && (int)(next(&seed) % 100) < writes};
			struct request r = ask(slots[i].write ? WRITE : READ, i, b * bs, bs);
			memcpy(out + used, &r, sizeof r), used += sizeof r;
			if (slots[i].write) {
				uint32_t *w = (void *)(out + used), v = stamp(slots[i].gen = ++gen, b, c->id);
				for (int k = 0; k < bs / 4; k++)
					w[k] = v;
				used += bs;
			}
			flying++;
			if (first == 0 && have == 0)
				break;
		}
		memmove(in, in + p, have - p), have -= p;
		send_all(s, out, used), used = 0;
	}
	c->took = now() - end + secs;
	for (uint64_t b = 0; verify && b < blocks; b += 256) { // everything back, 1 MiB at a time
		uint64_t n = blocks - b < 256 ? blocks - b : 256;
		struct request r = ask(READ, 0, b * bs, n * bs);
		struct reply a;
		send_all(s, &r, sizeof r), recv_all(s, &a, sizeof a), check(&a);
		recv_all(s, in, n * bs);
		for (uint64_t k = 0; k < n; k++)
			compare(in + k * bs, b + k, model[b + k], c->id);
	}
	leave(s);
	return NULL;
}

static void *swarmer(void *arg)
{
	struct client *c = arg;
	pthread_barrier_wait(&barrier);
	double start = now();
	int s = dial(c->id);
	uint64_t size = handshake(s), pos = (uint64_t)c->id * 7919 * bs % (size - total), end = pos + total;
	for (int flying = 0; pos < end || flying;) {
		if (pos < end && flying < 8) {
			struct request r = ask(READ, 0, pos, bs);
			send_all(s, &r, sizeof r), pos += bs, flying++;
			continue;
		}
		struct reply r;
		recv_all(s, &r, sizeof r), check(&r), discard(s, bs), flying--;
	}
	c->took = now() - start;
	leave(s);
	return NULL;
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct client *)a)->took, y = ((const struct client *)b)->took;
	return x < y ? -1 : x > y;
}

static void fill(uint64_t count)
{
	int s = dial(0);
	uint64_t blocks = handshake(s) / bs, seed = 42, *order = malloc(blocks * sizeof *order);
	char *data = malloc(bs);
	for (uint64_t i = 0; i < blocks; i++)
		order[i] = i;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t j = i + next(&seed) % (blocks - i), b = order[j];
		order[j] = order[i];
		struct request r = ask(WRITE, 0, b * bs, bs);
		struct reply a;
		for (int k = 0; k < bs; k += 8) {
			uint64_t v = next(&seed);
			memcpy(data + k, &v, 8);
		}
		send_all(s, &r, sizeof r), send_all(s, data, bs), recv_all(s, &a, sizeof a), check(&a);
	}
	struct request r = ask(FLUSH, 0, 0, 0);
	struct reply a;
	send_all(s, &r, sizeof r), recv_all(s, &a, sizeof a), check(&a);
	printf("%lu\n", (unsigned long)(count * bs)), fflush(stdout);
	while (read(0, data, 1) > 0)
		;
	leave(s);
}

static void idle(int n)
{
	for (int i = 0; i < n; i++) {
		int s = dial(i);
		handshake(s);
		struct request r = ask(READ, 0, 0, 4096);
		struct reply a;
		send_all(s, &r, sizeof r), recv_all(s, &a, sizeof a), check(&a), discard(s, 4096);
	}
	puts("ready"), fflush(stdout);
	for (char x; read(0, &x, 1) > 0;)
		;
}

static void hostile(int n)
{
	struct pollfd *p = calloc(n, sizeof *p);
	for (int i = 0; i < n; i++) {
		struct request r = ask(WRITE, 0, 0, 32 << 20);
		p[i] = (struct pollfd){.fd = dial(i + 200), .events = POLLIN};
		handshake(p[i].fd);
		send_all(p[i].fd, &r, sizeof r);
	}
	puts("ready"), fflush(stdout);
	double start = now(), last = start;
	int cut = 0;
	for (double left; cut < n && (left = start + secs - now()) > 0;) {
		if (poll(p, n, left * 1000 + 1) <= 0)
			continue;
		for (int i = 0; i < n; i++) {
			char x[64];
			if (p[i].fd >= 0 && p[i].revents && recv(p[i].fd, x, sizeof x, MSG_DONTWAIT) <= 0)
				close(p[i].fd), p[i].fd = -1, cut++, last = now();
		}
	}
	printf("%d %.1f\n", cut, last - start);
}

int main(int argc, char **argv)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
	if (argc < 5)
		FAIL("usage: nbdload PORT EXPORT MODE ARGS (see its source)");
	if (getenv("NBDLOAD_SPREAD"))
		spread = atoll(getenv("NBDLOAD_SPREAD"));
	port = atoi(argv[1]), export = argv[2];
	const char *mode = argv[3];
#define ARG(i) (argc > (i) ? argv[i] : "0")
	int n = atoi(argv[4]);
	bs = atoi(ARG(5)), secs = atof(ARG(5));
	if (!strcmp(mode, "idle"))
		return idle(n), 0;
	if (!strcmp(mode, "hostile"))
		return hostile(n), 0;
	if (!strcmp(mode, "fill"))
		return fill(n), 0;
	void *(*run)(void *) = worker;
	if (!strcmp(mode, "swarm")) {
		run = swarmer, total = atoll(ARG(5)), bs = atoi(ARG(6));
	} else {
		depth = atoi(ARG(5)), bs = atoi(ARG(6)), secs = atof(ARG(7)), writes = atoi(ARG(8));
		verify = !strcmp(mode, "verify");
	}
	if (verify) {
		struct stat st;
		int f = open(ARG(9), O_RDONLY);
		if (f < 0 || fstat(f, &st) || (base = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, f, 0)) == MAP_FAILED)
			FAIL("%s: %s", ARG(9), strerror(errno));
	}
	pthread_barrier_init(&barrier, NULL, n + 1);
	struct client *c = calloc(n, sizeof *c);
	pthread_attr_t attr;
	pthread_attr_init(&attr), pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = 0; i < n; i++) {
		c[i].id = i;
		if (run == worker) // one after the other: not every server has a backlog
			c[i].sock = dial(i), c[i].size = handshake(c[i].sock);
	}
	for (int i = 0; i < n; i++)
		if (pthread_create(&c[i].thread, &attr, run, &c[i]))
			FAIL("cannot start a thread");
	pthread_barrier_wait(&barrier);
	double start = now(), rate = 0;
	uint64_t ops = 0;
	for (int i = 0; i < n; i++) {
		pthread_join(c[i].thread, NULL);
		ops += c[i].ops, rate += c[i].took > 0 ? c[i].ops / c[i].took : 0;
	}
	if (run == swarmer) {
		double all = now() - start;
		qsort(c, n, sizeof *c, by_time);
		printf("%.1f %.1f %.1f\n", all * 1e3, c[n / 2].took * 1e3, c[n * 99 / 100].took * 1e3);
	} else {
		printf("%.0f %lu\n", rate, (unsigned long)ops);
	}
	return 0;
}
