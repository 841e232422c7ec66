// Packets with descriptors over unix sockets.
#ifndef KYB_GUEST_PACKETS_H
#define KYB_GUEST_PACKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

int packet_socket(const char *name, size_t size, bool listening);  // -1: not possible
bool packet_send(int to, const struct iovec *parts, size_t count, const int *fds, size_t fd_count);
long packet_receive(int from, void *into, size_t room, int *fd);  // fd may be NULL: none is taken
#endif
