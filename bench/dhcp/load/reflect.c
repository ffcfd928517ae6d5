// reflect answers DHCP requests out of what is in them, without leases,
// options or a look at anything else: no server can answer more of them, so
// that what is measured with it is the generator and the network.
//
//	reflect IFACE SERVER-ADDRESS
//
// One thread, in batches.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 1536 };

static uint8_t data[BATCH][SIZE];
static struct sockaddr_in peer[BATCH];
static struct iovec iov[BATCH];
static struct mmsghdr msg[BATCH];

// answer makes a request the answer to it; 0 is none.
static int answer(uint8_t *d, int len, struct sockaddr_in *to, in_addr_t self) {
	if (len < 244 || d[0] != 1) return 0;
	int type = 0;
	for (const uint8_t *o = d + 240; o + 2 < d + len && *o != 255; o += *o ? 2 + o[1] : 1)
		if (*o == 53) type = o[2];
	if (type != 1 && type != 3) return 0;
	static const uint8_t none[4];
	to->sin_port = htons(68);
	to->sin_addr.s_addr = htonl(INADDR_BROADCAST);
	if (memcmp(d + 24, none, 4)) {
		memcpy(&to->sin_addr, d + 24, 4);
		to->sin_port = htons(67);
	} else if (memcmp(d + 12, none, 4)) {
		memcpy(&to->sin_addr, d + 12, 4);
	}
	d[0] = 2;
	memcpy(d + 16, d + 4, 4); // the address is the exchange's number, in 10.16.0.0/12
	d[16] = 10, d[17] = 16 | (d[17] & 15);
	memcpy(d + 20, &self, 4);
	uint8_t *o = d + 240;
	*o++ = 53, *o++ = 1, *o++ = type == 1 ? 2 : 5;
	*o++ = 54, *o++ = 4, memcpy(o, &self, 4), o += 4;
	*o++ = 51, *o++ = 4, memcpy(o, "\0\0\x0e\x10", 4), o += 4;
	*o++ = 1, *o++ = 4, memcpy(o, "\xff\0\0\0", 4), o += 4;
	*o++ = 255;
	while (o < d + 300) *o++ = 0;
	return o - d;
}

int main(int argc, char **argv) {
	if (argc != 3) return 2;
	int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1, size = 8 << 20;
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(67)};
	in_addr_t self = inet_addr(argv[2]);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one) || setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, argv[1], strlen(argv[1])) ||
		bind(fd, (struct sockaddr *)&any, sizeof any)) {
		perror("reflect");
		return 1;
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			iov[i] = (struct iovec){data[i], SIZE};
			msg[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_namelen = sizeof peer[i], .msg_iov = &iov[i], .msg_iovlen = 1};
		}
		int n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, 0), answers = 0;
		for (int i = 0; i < n; i++) {
			int len = answer(data[i], msg[i].msg_len, &peer[i], self);
			if (!len) continue;
			iov[i].iov_len = len;
			msg[answers++].msg_hdr = msg[i].msg_hdr;
		}
		for (int i = 0; i < answers;) {
			int sent = sendmmsg(fd, msg + i, answers - i, 0);
			if (sent <= 0 && errno != EINTR) sent = 1; // as with a neighbour that does not answer
			i += sent > 0 ? sent : 0;
		}
	}
}
