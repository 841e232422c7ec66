// Packets with descriptors over unix sockets.
#include "packets.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol.h"

// A name that begins with a zero byte is one of no file (abstract).
int packet_socket(const char *name, size_t size, bool listening) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (size >= sizeof at.sun_path) return -1;
    memcpy(at.sun_path, name, size);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (*name ? 1 : 0));
    int one = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (one < 0) return -1;
    const struct sockaddr *where = (const struct sockaddr *)&at;
    bool ready = listening ? !bind(one, where, length) && !listen(one, 16)
                           : !connect(one, where, length);
    if (ready) return one;
    close(one);
    return -1;
}

bool packet_send(int to, const struct iovec *parts, size_t count, const int *fds,
                 size_t fd_count) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(BATCH * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = count};
    if (fd_count > BATCH) return false;
    if (fd_count) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.head), fds, fd_count * sizeof(int));
    }
    return sendmsg(to, &message, MSG_NOSIGNAL) >= 0;
}

static void take_descriptors(struct msghdr *message, int *fd) {
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(one) + i * sizeof got, sizeof got);
            if (fd && *fd < 0) *fd = got;
            else close(got);
        }
    }
}

// Descriptors that nobody asked for are closed: the other side may send what it likes.
long packet_receive(int from, void *into, size_t room, int *fd) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec part = {into, room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control};
    if (fd) *fd = -1;
    ssize_t got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    if (got < 0) return -1;
    take_descriptors(&message, fd);
    return message.msg_flags & MSG_TRUNC ? (long)room + 1 : got;
}
