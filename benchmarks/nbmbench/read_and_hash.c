/* The bound of the fingerprint benchmark: read pages of another process and hash each of them with
 * XXH3, and nothing else. stdin: "address bytes" of each run of present pages; argv: pid, seed,
 * bytes read at a time. Prints seconds, bytes, sum of hashes. */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <xxhash.h>

enum { PAGE = 4096 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    pid_t pid = atoi(argv[1]);
    unsigned long long seed = strtoull(argv[2], NULL, 10);
    size_t step = strtoull(argv[3], NULL, 10), bytes = 0;
    unsigned long address, size;
    unsigned long long sum = 0;
    char *buffer = aligned_alloc(PAGE, step);
    double begun = now();
    while (scanf("%lu %lu", &address, &size) == 2) {
        for (size_t done = 0; done < size; done += step) {
            size_t part = size - done < step ? size - done : step;
            struct iovec local = {buffer, part}, remote = {(void *)(address + done), part};
            if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)part)
                return 1;
            for (size_t page = 0; page < part; page += PAGE)
                sum += XXH3_64bits_withSeed(buffer + page, PAGE, seed);
            bytes += part;
        }
    }
    printf("%.9f %zu %llu\n", now() - begun, bytes, sum);
    return 0;
}
