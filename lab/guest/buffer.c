/* Pages that can be checked: made, written in random order, and verified a slice at a time. */
#include <sys/mman.h>

#include "guest.h"

static uint64_t next_random(struct buffer *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

/* One word of content. Text: one of 16 words of letters, so that a compressor has its way. */
static uint64_t content(struct buffer *b)
{
    uint64_t r = next_random(b);
    return b->text ? 0x2061626364656667ULL + (r >> 60) : r;
}

/* Every word counts with an odd factor of its own place: a single changed word always changes the sum, and
 * the sum can follow a write without reading the page again. */
static uint64_t weight(size_t i)
{
    return (2 * i + 1) * 0x9e3779b97f4a7c15ULL;
}

static uint64_t checksum(const struct page *p)
{
    uint64_t sum = p->index * 0xff51afd7ed558ccdULL + p->version;
    for (size_t i = 0; i < PAGE_WORDS - HEADER_WORDS; i++)
        sum += p->body[i] * weight(i);
    return sum;
}

int buffer_make(struct buffer *b, size_t bytes, int text)
{
    b->count = bytes / PAGE_BYTES;
    b->text = text;
    b->random ^= 0x2545f4914f6cdd1dULL;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    b->pages = mmap(0, b->count * PAGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    b->versions = mmap(0, b->count * sizeof *b->versions, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (b->pages == MAP_FAILED || b->versions == MAP_FAILED)
        return -1;
    for (size_t n = 0; n < b->count; n++) {
        struct page *p = &b->pages[n];
        p->magic = PAGE_MAGIC;
        p->index = n;
        p->version = b->versions[n] = 1;
        for (size_t i = 0; i < PAGE_WORDS - HEADER_WORDS; i++)
            p->body[i] = content(b);
        p->checksum = checksum(p);
    }
    return 0;
}

/* Change `bytes` of one random page, at a random place of it. */
void buffer_write(struct buffer *b, size_t bytes)
{
    size_t n = next_random(b) % b->count;
    struct page *p = &b->pages[n];
    size_t all = PAGE_WORDS - HEADER_WORDS, words = bytes / 8;
    if (words > all)
        words = all;
    size_t from = words < all ? next_random(b) % (all - words + 1) : 0;
    uint64_t sum = p->checksum + 1; /* the version's share */
    for (size_t i = from; i < from + words; i++) {
        uint64_t word = content(b);
        sum += (word - p->body[i]) * weight(i);
        p->body[i] = word;
    }
    p->version = ++b->versions[n];
    p->checksum = sum;
}

int buffer_verify(struct buffer *b, size_t pages)
{
    for (; pages && b->verified < b->count; pages--, b->verified++) {
        const struct page *p = &b->pages[b->verified];
        if (p->magic != PAGE_MAGIC || p->index != b->verified ||
            p->version != b->versions[b->verified] || p->checksum != checksum(p))
            b->bad++;
    }
    if (b->verified < b->count)
        return 0;
    b->verified = 0;
    b->passes++;
    return 1;
}
