/* Takes one connection as a destination QEMU would; its name and -uuid are what the relay looks at:
 * qemu-system-x86_64 -uuid UUID ADDRESS PORT. Prints "ready", then the bytes and the sum of their words.
 * Started by relay_throughput. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "words.h"

static char buffer[1 << 20];

int main(int count, char **words)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[count - 1]))};
    inet_pton(AF_INET, words[count - 2], &at.sin_addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4)) {
        perror("listen");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    int line = accept(listener, 0, 0);
    struct sum sum = {0};
    ssize_t got;
    while ((got = read(line, buffer, sizeof buffer)) > 0)
        sum_add(&sum, buffer, got);
    close(line);
    printf("%llu %llu\n", (unsigned long long)sum.bytes, (unsigned long long)sum.total);
    return 0;
}
