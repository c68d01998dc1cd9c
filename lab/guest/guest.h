/* Shared by the guest program's parts: main.c (PID 1 and the console), buffer.c (pages that can be checked),
 * talk.c (a TCP session with another guest). */
#ifndef NBM_GUEST_H
#define NBM_GUEST_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_MAGIC 0x6e626d2d70616765ULL /* "nbm-page"; lab/nbmlab/check.py looks for it */
#define HEADER_WORDS 4
#define PAGE_WORDS (PAGE_BYTES / 8)

/* A page carries all that is needed to tell whether it is whole, and the version table outside it tells
 * whether it is the newest one: a page that fell back to an older state is whole but old. */
struct page {
    uint64_t magic, index, version, checksum;
    uint64_t body[PAGE_WORDS - HEADER_WORDS];
};

struct buffer {
    struct page *pages;
    uint64_t *versions;
    size_t count;
    int text;               /* text-like bodies that compress well, else random ones */
    uint64_t random;        /* state of the generator */
    size_t verified;        /* pages checked in the pass under way */
    uint64_t passes, bad;   /* whole passes done; bad pages found since boot */
};

int buffer_make(struct buffer *b, size_t bytes, int text);
void buffer_write(struct buffer *b, size_t bytes);
int buffer_verify(struct buffer *b, size_t pages); /* 1 when this call completed a pass */
int talk(uint64_t id); /* never returns */

#endif
