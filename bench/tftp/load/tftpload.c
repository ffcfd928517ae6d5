// tftpload reads one file by TFTP with many clients at once, as fast as they
// can, and compares what comes with a local copy. One thread does it all, so
// that nobody's wake-ups but the server's are measured.
//
//	tftpload ADDRESS NAME COPY BLKSIZE WINDOWSIZE CLIENTS SECONDS TIMEOUT_MS
//
// It prints: bytes, seconds, complete, failed, repeated requests and
// acknowledgements, the median round trip in microseconds (from an
// acknowledgement to the next block), its own CPU seconds, the window granted.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct client {
	int fd, known, over, complete, gap;
	struct sockaddr_in peer;
	uint64_t want, bytes; // the next block
	int inwindow, blk, win;
	double sent, deadline; // the last acknowledgement; when to repeat it
	int fresh, tries;
	unsigned char last[512];
	int lastlen;
};

static const unsigned char *copy;
static uint64_t size;
static double timeout;
static long repeated, failed, complete, running;
static double rtts[1 << 16];
static long nrtts;
static unsigned char buf[70000];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void say(struct client *c, double at)
{
	if (sendto(c->fd, c->last, c->lastlen, 0, (void *)&c->peer, sizeof c->peer) < 0 && errno != EAGAIN && errno != ECONNREFUSED)
		perror("sendto");
	c->sent = at;
	c->deadline = at + timeout;
	c->fresh = 1;
}

static void number(struct client *c)
{
	c->last[0] = 0, c->last[1] = 4, c->last[2] = (c->want - 1) >> 8, c->last[3] = c->want - 1;
	c->lastlen = 4;
}

static void ack(struct client *c, double at)
{
	number(c);
	c->inwindow = 0;
	say(c, at);
}

static void end(struct client *c, int good)
{
	c->over = 1;
	running--;
	if (good)
		c->complete = 1, complete++;
	else
		failed++;
	close(c->fd);
}

static void packet(struct client *c, unsigned char *b, int n, double at)
{
	int op = b[0] << 8 | b[1], arg = b[2] << 8 | b[3];
	if (op == 5) {
		fprintf(stderr, "error %d: %.*s\n", arg, n - 4, b + 4);
		end(c, 0);
	} else if (op == 6 && c->want == 1) {
		for (char *p = (char *)b + 2, *e = (char *)b + n; p < e;) {
			char *v = p + strlen(p) + 1;
			if (!strcasecmp(p, "blksize"))
				c->blk = atoi(v);
			if (!strcasecmp(p, "windowsize"))
				c->win = atoi(v);
			p = v + strlen(v) + 1;
		}
		c->tries = 0;
		ack(c, at);
	} else if (op == 3) {
		int16_t ahead = arg - (uint16_t)c->want;
		if (ahead > 0 && !c->gap) { // once for a gap (RFC 7440 section 4)
			c->gap = 1;
			ack(c, at);
			c->fresh = 0;
		}
		if (ahead == -1 && c->inwindow == 0) { // the acknowledgement was lost
			ack(c, at);
			c->fresh = 0;
		}
		if (ahead)
			return;
		if (c->fresh && nrtts < (long)(sizeof rtts / sizeof *rtts) && c->want > 1)
			rtts[nrtts++] = at - c->sent;
		c->fresh = c->gap = c->tries = 0;
		n -= 4;
		uint64_t at_byte = (c->want - 1) * c->blk;
		if (n > c->blk || at_byte + n > size || memcmp(copy + at_byte, b + 4, n)) {
			fprintf(stderr, "block %lu differs\n", (unsigned long)c->want);
			end(c, 0);
			return;
		}
		c->bytes += n;
		c->want++;
		c->inwindow++;
		c->deadline = at + timeout;
		if (n < c->blk) {
			ack(c, at);
			end(c, at_byte + n == size);
		} else if (c->inwindow >= c->win) {
			ack(c, at);
		} else {
			number(c);
		}
	}
}

// receive takes what there is; it waits for the first packet with wait.
static void receive(struct client *c, int wait)
{
	for (int i = 0; !c->over && i < 64; i++) {
		struct sockaddr_in from;
		socklen_t len = sizeof from;
		int n = recvfrom(c->fd, buf, sizeof buf - 1, wait && i == 0 ? 0 : MSG_DONTWAIT, (void *)&from, &len);
		if (n < 0)
			return;
		buf[n] = 0;
		if (c->known && (from.sin_port != c->peer.sin_port || from.sin_addr.s_addr != c->peer.sin_addr.s_addr))
			continue;
		c->peer = from;
		c->known = 1;
		if (n >= 4)
			packet(c, buf, n, now());
		if (wait)
			return;
	}
}

static int order(const void *a, const void *b)
{
	double x = *(double *)a, y = *(double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 9)
		return 2;
	int blk = atoi(argv[4]), win = atoi(argv[5]), n = atoi(argv[6]);
	double limit = atof(argv[7]);
	timeout = atof(argv[8]) / 1000;
	int fd = open(argv[3], O_RDONLY);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		return perror(argv[3]), 2;
	size = st.st_size;
	copy = mmap(0, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	struct client *all = calloc(n, sizeof *all);
	int ep = epoll_create1(0);
	double start = now();
	for (int i = 0; i < n; i++) {
		struct client *c = &all[i];
		int room = n == 1 ? 8 << 20 : 1 << 20;
		c->fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (c->fd < 0)
			return perror("socket"), 2;
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
		struct timeval tv = {0, 20000};
		setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		c->peer.sin_family = AF_INET;
		c->peer.sin_port = htons(69);
		inet_pton(AF_INET, argv[1], &c->peer.sin_addr);
		c->want = 1, c->blk = 512, c->win = 1;
		c->lastlen = 2 + sprintf((char *)c->last + 2, "%s%coctet", argv[2], 0) + 1;
		c->last[1] = 1;
		if (blk != 512)
			c->lastlen += sprintf((char *)c->last + c->lastlen, "blksize%c%d", 0, blk) + 1;
		if (win > 1)
			c->lastlen += sprintf((char *)c->last + c->lastlen, "windowsize%c%d", 0, win) + 1;
		struct epoll_event ev = {EPOLLIN, {.ptr = c}};
		epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
		running++;
		say(c, now());
	}
	for (double at, looked = start; at = now(), running && at < start + limit;) {
		if (n == 1) {
			receive(all, 1);
		} else {
			struct epoll_event evs[256];
			int k = epoll_wait(ep, evs, 256, 10);
			for (int i = 0; i < k; i++)
				receive(evs[i].data.ptr, 0);
		}
		if (at - looked < 0.01)
			continue;
		looked = at;
		for (int i = 0; i < n; i++) {
			struct client *c = &all[i];
			if (c->over || c->deadline > at)
				continue;
			if (++c->tries > 20) {
				end(c, 0);
				continue;
			}
			repeated++;
			c->gap = c->inwindow = 0;
			say(c, at);
			c->fresh = 0;
		}
	}
	double took = now() - start;
	uint64_t bytes = 0;
	for (int i = 0; i < n; i++) {
		struct client *c = &all[i];
		bytes += c->bytes;
		if (!c->over) {
			c->lastlen = sprintf((char *)c->last + 4, "enough") + 5;
			c->last[0] = 0, c->last[1] = 5, c->last[2] = 0, c->last[3] = 0;
			say(c, 0);
		}
	}
	qsort(rtts, nrtts, sizeof *rtts, order);
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	printf("%lu %f %ld %ld %ld %f %f %d\n", (unsigned long)bytes, took, complete, failed, repeated, nrtts ? rtts[nrtts / 2] * 1e6 : 0,
		u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6, all->win);
	return 0;
}
