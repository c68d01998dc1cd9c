/* Keeps one TCP session between two guests of a network, where the kernel command line asks for it (nbm.talk=1).
 *
 * They find each other by datagrams to all nodes of the link and need no address but the kernel's own. Each side
 * sends numbered records at a set pace and checks every one that comes; a session that breaks is begun anew, under
 * another number, and that shows. Once a second on the console:
 *   nbm talk=<session> sent=120 got=119 bad=0 sessions=1 gap=0.31
 * `gap` is the longest wait for a record so far, in seconds of this guest. lab/nbmlab/check.py reads that. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define PORT 7001
#define RECORD_WORDS 128
#define RECORDS_PER_SECOND 40
#define SLICE_MS 20
#define HELLO_SECONDS 0.5
#define LONGEST_BURST 4 /* never catches up after a pause */

struct record {
    uint64_t session, number, body[RECORD_WORDS - 2];
};

struct talk {
    uint64_t id, session, sent, got, bad, sessions;
    double last, gap;
    int connection;
    struct record out, in;
    size_t out_done, in_done; /* bytes of the record under way */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fill(struct record *r, uint64_t session, uint64_t number)
{
    uint64_t x = (session ^ number * 0x9e3779b97f4a7c15ULL) | 1;
    r->session = session;
    r->number = number;
    for (size_t i = 0; i < RECORD_WORDS - 2; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        r->body[i] = x;
    }
}

static void begin(struct talk *t, int connection, uint64_t session)
{
    t->connection = connection;
    t->session = session;
    t->sent = t->got = 0;
    t->in_done = 0;
    t->out_done = sizeof t->out;
    t->sessions++;
    t->last = now();
    t->gap = 0;
}

static void end(struct talk *t)
{
    close(t->connection);
    t->connection = -1;
    printf("nbm: session %" PRIx64 " broke: %s\n", t->session, strerror(errno));
    fflush(stdout);
}

static int listener(int type)
{
    int one = 1, fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(PORT), .sin6_addr = in6addr_any};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&any, sizeof any) || (type == SOCK_STREAM && listen(fd, 4)))
        perror("nbm talk");
    return fd;
}

static void hello(const struct talk *t, int datagrams)
{
    struct sockaddr_in6 all = {.sin6_family = AF_INET6, .sin6_port = htons(PORT),
                               .sin6_scope_id = if_nametoindex("eth0")};
    inet_pton(AF_INET6, "ff02::1", &all.sin6_addr);
    /* before the address is ready this fails: the next one will not */
    sendto(datagrams, &t->id, sizeof t->id, 0, (struct sockaddr *)&all, sizeof all);
}

/* Of two that hear each other, the one with the smaller number calls. */
static void heard(struct talk *t, int datagrams)
{
    uint64_t other;
    struct sockaddr_in6 from;
    socklen_t size = sizeof from;
    while (recvfrom(datagrams, &other, sizeof other, 0, (struct sockaddr *)&from, &size) == sizeof other) {
        if (t->connection >= 0 || other <= t->id)
            continue;
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        from.sin6_port = htons(PORT);
        if (connect(fd, (struct sockaddr *)&from, sizeof from)) {
            close(fd);
            continue;
        }
        /* the same number on both sides, another one for each session */
        uint64_t session = t->id + t->sessions + 1;
        if (write(fd, &session, sizeof session) == sizeof session)
            begin(t, fd, session);
        else
            close(fd);
    }
}

static void called(struct talk *t, int listening)
{
    uint64_t session;
    int fd = accept(listening, 0, 0);
    if (fd < 0)
        return;
    if (t->connection < 0 && recv(fd, &session, sizeof session, MSG_WAITALL) == sizeof session)
        begin(t, fd, session);
    else
        close(fd);
}

static void take(struct talk *t)
{
    for (;;) {
        ssize_t n = recv(t->connection, (char *)&t->in + t->in_done, sizeof t->in - t->in_done, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            end(t);
            return;
        }
        if (n < 0)
            return;
        t->in_done += n;
        if (t->in_done < sizeof t->in)
            continue;
        struct record expected;
        fill(&expected, t->session, ++t->got);
        t->bad += memcmp(&expected, &t->in, sizeof expected) != 0;
        t->in_done = 0;
        double at = now();
        if (at - t->last > t->gap)
            t->gap = at - t->last;
        t->last = at;
    }
}

/* Send what is due; what the socket does not take is gone on with the next time. */
static void give(struct talk *t, double *due)
{
    while (t->connection >= 0) {
        if (t->out_done == sizeof t->out) {
            if (*due < 1)
                return;
            --*due;
            fill(&t->out, t->session, ++t->sent);
            t->out_done = 0;
        }
        ssize_t n = send(t->connection, (char *)&t->out + t->out_done, sizeof t->out - t->out_done,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            end(t);
        else
            t->out_done += n;
    }
}

int talk(uint64_t id)
{
    struct talk t = {.id = id, .connection = -1};
    int datagrams = listener(SOCK_DGRAM), listening = listener(SOCK_STREAM);
    double before = now(), due = 0, greeted = 0, told = before;
    for (;;) {
        struct pollfd ready[] = {{datagrams, POLLIN, 0}, {listening, POLLIN, 0}, {t.connection, POLLIN, 0}};
        poll(ready, 3, SLICE_MS);
        double at = now();
        due += (at - before) * RECORDS_PER_SECOND;
        before = at;
        if (due > LONGEST_BURST)
            due = LONGEST_BURST;
        if (ready[0].revents)
            heard(&t, datagrams);
        if (ready[1].revents)
            called(&t, listening);
        if (t.connection >= 0)
            take(&t);
        if (t.connection >= 0)
            give(&t, &due);
        else if (at - greeted > HELLO_SECONDS) {
            hello(&t, datagrams);
            greeted = at;
        }
        if (at - told >= 1) {
            told = at;
            printf("nbm talk=%" PRIx64 " sent=%" PRIu64 " got=%" PRIu64 " bad=%" PRIu64 " sessions=%" PRIu64
                   " gap=%.2f\n", t.session, t.sent, t.got, t.bad, t.sessions, t.gap);
            fflush(stdout);
        }
    }
}
