/* The least that a forwarder can do, in C: forward PORT ADDRESS PORT MARK takes connections on loopback and splices
 * each to one address, one after the other. Its own carry a mark, by which they pass the redirect that leads to it.
 * What the relay's splice mode is measured against. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20)

int main(int count, char **words)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    inet_pton(AF_INET, words[2], &to.sin_addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, mark = count > 4 ? atoi(words[4]) : 0, ends[2];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4) || pipe(ends)) {
        perror("listen");
        return 1;
    }
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int in = accept(listener, 0, 0), out = socket(AF_INET, SOCK_STREAM, 0);
        if (setsockopt(out, SOL_SOCKET, SO_MARK, &mark, sizeof mark) || connect(out, (struct sockaddr *)&to, sizeof to)) {
            perror("connect");
            return 1;
        }
        ssize_t taken, given;
        while ((taken = splice(in, 0, ends[1], 0, PIPE_BYTES, SPLICE_F_MOVE)) > 0)
            for (; taken > 0; taken -= given)
                if ((given = splice(ends[0], 0, out, 0, taken, SPLICE_F_MOVE)) <= 0)
                    return 1;
        shutdown(out, SHUT_WR);
        char end[64];
        while (read(out, end, sizeof end) > 0)
            continue;
        close(in);
        close(out);
    }
}
