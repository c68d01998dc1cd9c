/* An order-sensitive sum over a stream of bytes that comes in chunks of any size. */
#ifndef NBM_WORDS_H
#define NBM_WORDS_H

#include <stdint.h>
#include <string.h>

struct sum {
    uint64_t bytes, total, word;
};

static inline void sum_byte(struct sum *s, unsigned char c)
{
    s->word |= (uint64_t)c << 8 * (s->bytes % 8);
    if (++s->bytes % 8 == 0) {
        s->total = (s->total ^ s->word) * 0x9e3779b97f4a7c15ULL;
        s->word = 0;
    }
}

static inline void sum_add(struct sum *s, const char *data, size_t size)
{
    size_t at = 0;
    for (; at < size && s->bytes % 8; at++)
        sum_byte(s, data[at]);
    for (; at + 8 <= size; at += 8, s->bytes += 8) {
        uint64_t word;
        memcpy(&word, data + at, 8);
        s->total = (s->total ^ word) * 0x9e3779b97f4a7c15ULL;
    }
    for (; at < size; at++)
        sum_byte(s, data[at]);
}
#endif
