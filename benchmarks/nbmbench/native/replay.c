/* Sends files behind each other over one connection, as a source QEMU would: replay ADDRESS PORT FILE...
 * Prints the bytes and the sum of their 64-bit words; waits for the peer's end. Started by relay_throughput. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "words.h"

int main(int count, char **words)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    inet_pton(AF_INET, words[1], &to.sin_addr);
    int line = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(line, (struct sockaddr *)&to, sizeof to)) {
        perror("connect");
        return 1;
    }
    struct sum sum = {0};
    for (int i = 3; i < count; i++) {
        int fd = open(words[i], O_RDONLY);
        struct stat status;
        if (fd < 0 || fstat(fd, &status)) {
            perror(words[i]);
            return 1;
        }
        char *data = mmap(0, status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
        for (off_t at = 0; at < status.st_size;) {
            size_t size = status.st_size - at < 1 << 18 ? status.st_size - at : 1 << 18;
            ssize_t sent = write(line, data + at, size);
            if (sent <= 0) {
                perror("write");
                return 1;
            }
            sum_add(&sum, data + at, sent);
            at += sent;
        }
        munmap(data, status.st_size);
        close(fd);
    }
    shutdown(line, SHUT_WR);
    char end[64];
    while (read(line, end, sizeof end) > 0)
        continue;
    printf("%llu %llu\n", (unsigned long long)sum.bytes, (unsigned long long)sum.total);
    return 0;
}
