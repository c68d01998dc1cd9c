/* PID 1 of every guest of the lab, started by guest/init once the devices are there.
 *
 * Keeps a buffer that can be checked, writes into it at the pace the kernel command line asks for, and says
 * once a second on the console how it is:
 *   nbm tick=12 boot=<boot id> up=13.20 wrote=12345 passes=3 since=8 bad=0
 * `since` is the tick at which the last completed pass of verification began. lab/nbmlab/check.py reads that.
 * If there is a /nbm/load, it is started beside, and talk.c where the command line asks for it. Never catches up after a pause: a guest that stood still writes
 * on at its own pace. */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define SLICE_SECONDS 0.02
#define IDLE_SLICE_SECONDS 0.1 /* few wake-ups for those that write little: eight guests share two cores */
#define IDLE_RATE 100          /* pages per second */
#define LONGEST_STEP_SECONDS 0.2

struct load {
    double rate, period, on_share;
    size_t bytes;
};

static void read_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, to, size - 1);
    to[got < 0 ? 0 : got] = 0;
    to[strcspn(to, "\n")] = 0;
    if (fd >= 0)
        close(fd);
}

static long option(const char *line, const char *key, long otherwise)
{
    const char *at = strstr(line, key);
    return at ? atol(at + strlen(key)) : otherwise;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_seconds(double seconds)
{
    struct timespec t = {.tv_sec = 0, .tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, 0);
}

static void start_load(void)
{
    if (access("/nbm/load", X_OK) || fork())
        return;
    setsid();
    execl("/nbm/load", "/nbm/load", (char *)0);
    perror("/nbm/load");
    _exit(127);
}

static int writes_now(const struct load *load, double seconds)
{
    return load->period <= 0 || fmod(seconds, load->period) < load->on_share * load->period;
}

int main(void)
{
    char line[4096], boot[64];
    struct buffer buffer = {0};
    read_file("/proc/cmdline", line, sizeof line);
    read_file("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    int urandom = open("/dev/urandom", O_RDONLY);
    if (urandom < 0 || read(urandom, &buffer.random, sizeof buffer.random) != sizeof buffer.random)
        printf("nbm: no random seed\n");
    struct load load = {
        .rate = option(line, "nbm.rate=", 0), .period = option(line, "nbm.period=", 0),
        .on_share = option(line, "nbm.on=", 100) / 100.0, .bytes = option(line, "nbm.bytes=", 256)};
    size_t bytes = (size_t)option(line, "nbm.ws=", 8) << 20;
    if (buffer_make(&buffer, bytes, option(line, "nbm.text=", 0))) {
        printf("nbm: no memory for a buffer of %zu bytes\n", bytes);
        return 1;
    }
    start_load();
    if (option(line, "nbm.talk=", 0) && !fork()) {
        setsid();
        _exit(talk(buffer.random));
    }

    double pass = option(line, "nbm.pass=", 8); /* seconds for one pass of verification */
    double slice = load.rate > IDLE_RATE ? SLICE_SECONDS : IDLE_SLICE_SECONDS;
    double begin = now(), last = begin, to_write = 0, to_verify = 0, to_tick = 0;
    uint64_t tick = 0, wrote = 0, pass_began = 0, since = 0;
    for (;;) {
        pause_seconds(slice);
        double t = now(), step = t - last;
        last = t;
        if (step > LONGEST_STEP_SECONDS)
            step = LONGEST_STEP_SECONDS;
        if (load.rate > 0 && writes_now(&load, t - begin))
            to_write += step * load.rate;
        for (; to_write >= 1; to_write--, wrote++)
            buffer_write(&buffer, load.bytes);
        to_verify += step * buffer.count / pass;
        if (buffer_verify(&buffer, (size_t)to_verify)) {
            since = pass_began;
            pass_began = tick + 1;
        }
        to_verify -= (size_t)to_verify;
        to_tick += step;
        if (to_tick >= 1) {
            to_tick -= 1;
            tick++;
            printf("nbm tick=%llu boot=%s up=%.2f wrote=%llu passes=%llu since=%llu bad=%llu\n",
                   (unsigned long long)tick, boot, t, (unsigned long long)wrote,
                   (unsigned long long)buffer.passes, (unsigned long long)since,
                   (unsigned long long)buffer.bad);
            fflush(stdout);
        }
        while (waitpid(-1, 0, WNOHANG) > 0)
            continue;
    }
}
