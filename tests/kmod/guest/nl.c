// SPDX-License-Identifier: GPL-2.0-only
#include "nl.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

char nl_error[256];

static int sock = -1;
static uint16_t family;
static uint32_t group;
static uint32_t sequence;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void start(struct request *r, uint16_t type, uint8_t cmd, uint16_t flags)
{
    struct nlmsghdr *h = (void *)r->buffer;
    struct genlmsghdr *g = NLMSG_DATA(h);

    memset(r->buffer, 0, NLMSG_HDRLEN + GENL_HDRLEN);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    h->nlmsg_seq = ++sequence;
    g->cmd = cmd;
    g->version = 1;
    r->len = NLMSG_HDRLEN + GENL_HDRLEN;
}

void nl_put(struct request *r, uint16_t type, const void *data, size_t len)
{
    struct nlattr *a = (void *)(r->buffer + r->len);

    if (r->len + NLA_HDRLEN + NLA_ALIGN(len) > sizeof(r->buffer)) {
        fprintf(stderr, "request too large\n");
        exit(2);
    }
    a->nla_type = type;
    a->nla_len = NLA_HDRLEN + len;
    memset((char *)a + NLA_HDRLEN, 0, NLA_ALIGN(len));
    if (len)
        memcpy((char *)a + NLA_HDRLEN, data, len);
    r->len += NLA_HDRLEN + NLA_ALIGN(len);
}

void nl_put_u32(struct request *r, uint16_t type, uint32_t value)
{
    nl_put(r, type, &value, sizeof(value));
}

void nl_put_u64(struct request *r, uint16_t type, uint64_t value)
{
    nl_put(r, type, &value, sizeof(value));
}

static void parse(const uint8_t *p, size_t len, uint16_t max, const void **data, size_t *lens)
{
    while (len >= NLA_HDRLEN) {
        const struct nlattr *a = (const void *)p;
        size_t step = NLA_ALIGN(a->nla_len);
        uint16_t type = a->nla_type & NLA_TYPE_MASK;

        if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
            return;
        if (type <= max) {
            data[type] = p + NLA_HDRLEN;
            lens[type] = a->nla_len - NLA_HDRLEN;
        }
        if (step >= len)
            return;
        p += step;
        len -= step;
    }
}

static void keep_error(const struct nlmsghdr *h)
{
    const struct nlmsgerr *e = NLMSG_DATA(h);
    size_t skip = sizeof(*e);
    const void *data[NLMSGERR_ATTR_MAX + 1] = {0};
    size_t lens[NLMSGERR_ATTR_MAX + 1] = {0};

    nl_error[0] = 0;
    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
        return;
    if (!(h->nlmsg_flags & NLM_F_CAPPED))
        skip += e->msg.nlmsg_len - NLMSG_HDRLEN;
    parse((const uint8_t *)e + skip, NLMSG_PAYLOAD(h, 0) - skip, NLMSGERR_ATTR_MAX, data, lens);
    if (data[NLMSGERR_ATTR_MSG])
        snprintf(nl_error, sizeof(nl_error), "%.*s", (int)lens[NLMSGERR_ATTR_MSG],
                 (const char *)data[NLMSGERR_ATTR_MSG]);
}

int nl_call(struct request *r, void (*reply)(const struct attrs *a, void *arg), void *arg)
{
    static uint8_t in[65536] __attribute__((aligned(8)));
    struct nlmsghdr *h = (void *)r->buffer;

    h->nlmsg_len = r->len;
    if (send(sock, r->buffer, r->len, 0) < 0)
        die("send");
    for (;;) {
        ssize_t n = recv(sock, in, sizeof(in), 0);
        int left = (int)n;

        if (n < 0) {
            if (errno == EINTR)
                continue;
            die("recv");
        }
        for (h = (void *)in; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_seq != sequence)
                continue;
            if (h->nlmsg_type == NLMSG_ERROR) {
                keep_error(h);
                return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
            }
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (reply) {
                struct attrs a = {0};

                parse((uint8_t *)NLMSG_DATA(h) + GENL_HDRLEN, NLMSG_PAYLOAD(h, GENL_HDRLEN),
                      BLKFERRY_A_MAX, a.data, a.len);
                reply(&a, arg);
            }
        }
    }
}

uint64_t attr_u64(const struct attrs *a, int type)
{
    uint64_t v = 0;

    if (a->data[type] && a->len[type] >= sizeof(v))
        memcpy(&v, a->data[type], sizeof(v));
    return v;
}

uint32_t attr_u32(const struct attrs *a, int type)
{
    uint32_t v = 0;

    if (a->data[type] && a->len[type] >= sizeof(v))
        memcpy(&v, a->data[type], sizeof(v));
    return v;
}

static void got_group(const uint8_t *p, size_t len)
{
    while (len >= NLA_HDRLEN) {
        const struct nlattr *a = (const void *)p;
        const void *data[CTRL_ATTR_MCAST_GRP_MAX + 1] = {0};
        size_t lens[CTRL_ATTR_MCAST_GRP_MAX + 1] = {0};

        if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
            return;
        parse(p + NLA_HDRLEN, a->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_MAX, data, lens);
        if (data[CTRL_ATTR_MCAST_GRP_ID])
            memcpy(&group, data[CTRL_ATTR_MCAST_GRP_ID], sizeof(group));
        if ((size_t)NLA_ALIGN(a->nla_len) >= len)
            return;
        len -= NLA_ALIGN(a->nla_len);
        p += NLA_ALIGN(a->nla_len);
    }
}

static void got_family(const struct attrs *a, void *arg)
{
    (void)arg;
    if (a->data[CTRL_ATTR_FAMILY_ID])
        memcpy(&family, a->data[CTRL_ATTR_FAMILY_ID], sizeof(family));
    if (a->data[CTRL_ATTR_MCAST_GROUPS])
        got_group(a->data[CTRL_ATTR_MCAST_GROUPS], a->len[CTRL_ATTR_MCAST_GROUPS]);
}

void nl_open(void)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    struct request r;
    int one = 1;

    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (sock < 0 || bind(sock, (void *)&to, sizeof(to)))
        die("netlink socket");
    setsockopt(sock, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    start(&r, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
    nl_put(&r, CTRL_ATTR_FAMILY_NAME, BLKFERRY_GENL_NAME, sizeof(BLKFERRY_GENL_NAME));
    if (nl_call(&r, got_family, NULL) || !family) {
        fprintf(stderr, "no generic netlink family %s: is the module loaded?\n", BLKFERRY_GENL_NAME);
        exit(2);
    }
}

void nl_request(struct request *r, uint8_t cmd, int dump)
{
    start(r, family, cmd, dump ? NLM_F_DUMP : 0);
}

int nl_events(int count)
{
    static uint8_t in[65536] __attribute__((aligned(8)));

    if (setsockopt(sock, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
        die("joining the event group");
    printf("listening\n");
    fflush(stdout);
    while (count > 0) {
        ssize_t n = recv(sock, in, sizeof(in), 0);
        struct nlmsghdr *h = (void *)in;
        int left = (int)n;

        if (n < 0)
            die("recv");
        for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            struct attrs a = {0};

            parse((uint8_t *)NLMSG_DATA(h) + GENL_HDRLEN, NLMSG_PAYLOAD(h, GENL_HDRLEN),
                  BLKFERRY_A_MAX, a.data, a.len);
            printf("disk=%u event=%u state=%u flags=%u\n", attr_u32(&a, BLKFERRY_A_DISK),
                   attr_u32(&a, BLKFERRY_A_EVENT), attr_u32(&a, BLKFERRY_A_STATE),
                   attr_u32(&a, BLKFERRY_A_FLAGS));
            fflush(stdout);
            count--;
        }
    }
    return 0;
}
