/* The inner loops of the relay's codec: finding runs of pages in a stream, matching pages with the dictionary, writing a
 * block's control part, putting a stream together again; and splicing past all that. Each has a twin in reference.py or
 * reference_decoding.py that does the same on the same arrays; tests hold the two against each other. Every buffer and
 * index is checked before it is used: what comes from a peer may be anything. Holds no state of its own and keeps no
 * reference to a buffer. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include "../xxh3.h"
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE
#endif

#define WORDS (PAGE / 8)
#define HEADER 8
#define RECORD (HEADER + PAGE)
#define BITMAP (WORDS / 8)
#define FLAG_ZERO_CONTINUE 0x22
#define FLAG_PAGE_CONTINUE 0x28

/* the same numbers stand in layout.py */
enum { RUN_VERBATIM, RUN_ZERO, RUN_PAGES, RUN_BARE };
enum { OP_LITERAL, OP_RAW, OP_TRANSIENT, OP_TRANSIENT_RAW, OP_REFERENCE, OP_DELTA, OP_UPDATE,
       OP_TRANSIENT_DELTA };
enum { STOP_MORE, STOP_OTHER, STOP_FULL };
enum { S_NEXT, S_PINNED, S_RING, S_BLOCK, S_LATE_NEXT, S_LATE_RING, S_LATE, S_FIELDS };
enum { FOUND_SELF, FOUND_CROSS, FOUND_DELTAS, FOUND_WORDS, FOUND_LITERALS, FOUND_RAWS, FOUND_FIELDS };

#define RUN_COLUMNS 5
#define RAW_SAMPLES 4
#define RAW_SAMPLE_BYTES 64
#define RAW_DISTINCT 140
/* where the numbers of the second ring begin, which lies in the last slots of the first one */
#define LATE ((int64_t)1 << 40)
/* pages between asking the memory for a version's entry and using it */
#define AHEAD 8
/* of the page that comes next, what is asked for ahead: the processor finds the rest */
#define AHEAD_BYTES 2048

static uint64_t big_endian(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return __builtin_bswap64(value);
}

static int enough(const Py_buffer *buffer, int64_t items, int64_t item_bytes, const char *name)
{
    if (items < 0 || buffer->len / item_bytes < items) {
        PyErr_Format(PyExc_ValueError, "%s is shorter than what it has to hold", name);
        return 0;
    }
    return 1;
}

/* Do pages at all these offsets lie in the data? */
static int inside(const Py_buffer *data, const int64_t *offsets, int64_t pages)
{
    for (int64_t i = 0; i < pages; i++)
        if (offsets[i] < 0 || offsets[i] > data->len - PAGE) {
            PyErr_SetString(PyExc_ValueError, "a page lies outside of the data");
            return 0;
        }
    return 1;
}

static void release(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++)
        if (buffers[i].obj)
            PyBuffer_Release(&buffers[i]);
}

/* scan_records(data, start, end, block, runs, first_row, rows) -> (position, next_row, stop) */
static PyObject *scan_records(PyObject *self, PyObject *args)
{
    Py_buffer b[2] = {{0}};
    long long start, end, block, row, rows;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*LLLw*LL", &b[0], &start, &end, &block, &b[1], &row, &rows))
        return NULL;
    if (start < 0 || start > end || row < 0 || !enough(&b[0], end, 1, "data") ||
        !enough(&b[1], rows, RUN_COLUMNS * 8, "runs")) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "start lies outside of the data");
        goto out;
    }
    const uint8_t *data = b[0].buf;
    int64_t *run = b[1].buf;
    int stop = STOP_MORE, kind = -1;
    uint64_t expected = 0;
    while (start + HEADER <= end) {
        uint64_t header = big_endian(data + start);
        unsigned flags = header & (PAGE - 1);
        int this_kind;
        int64_t size;
        if (flags == FLAG_PAGE_CONTINUE) {
            this_kind = RUN_PAGES;
            size = RECORD;
        } else if (flags == FLAG_ZERO_CONTINUE) {
            this_kind = RUN_ZERO;
            size = HEADER + 1;
        } else {
            stop = STOP_OTHER;
            break;
        }
        if (start + size > end)
            break;
        if (this_kind == RUN_ZERO && data[start + HEADER]) {
            stop = STOP_OTHER;
            break;
        }
        if (this_kind == kind && header == expected) {
            run[(row - 1) * RUN_COLUMNS + 2]++;
        } else {
            if (row >= rows) {
                stop = STOP_FULL;
                break;
            }
            int64_t *fields = run + row++ * RUN_COLUMNS;
            fields[0] = kind = this_kind;
            fields[1] = start;
            fields[2] = 1;
            fields[3] = (int64_t)header;
            fields[4] = block;
        }
        expected = header + PAGE;
        start += size;
    }
    result = Py_BuildValue("LLi", start, row, stop);
out:
    release(b, 2);
    return result;
}

/* The same function for several processors, chosen when the module is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define VECTORS __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define VECTORS
#endif

/* Sum of products of keyed 32-bit halves, eight lanes at a time, as XXH3 does for long inputs. It only chooses whom
 * to compare with; nothing is believed because of it. */
typedef uint64_t lanes __attribute__((vector_size(64)));

VECTORS static uint64_t page_hash(const uint8_t *page)
{
    lanes lane = {0x9E3779B185EBCA87u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u, 0x85EBCA77C2B2AE63u,
                  0x27D4EB2F165667C5u, 0xD6E8FEB86659FD93u, 0xA0761D6478BD642Fu, 0xE7037ED1A0B428DBu};
    lanes key = {0xb8fe6c3923a44bbeu, 0x7c01812cf721ad1cu, 0xded46de9839097dbu, 0x7240a4a4b7b3671fu,
                 0xcb79e64eccc0e578u, 0x825ad07dccff7221u, 0xb8084674f743248eu, 0xe03590e6813a264cu};
    for (int stripe = 0; stripe < PAGE / 64; stripe++) {
        lanes word, keyed;
        memcpy(&word, page + stripe * 64, 64);
        keyed = word ^ key;
        lane += (keyed & 0xffffffffu) * (keyed >> 32) + (word << 32 | word >> 32);
        key += 0x9E3779B97F4A7C15u;
    }
    uint64_t hash = PAGE;
    for (int i = 0; i < 8; i++) {
        hash = (hash ^ lane[i]) * 0x9FB21C651E98DF25u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* Count the words in which two pages differ; more than `most`: any number above it. */
VECTORS static int words_changed(const uint8_t *page, const uint8_t *base, int most)
{
    int changed = 0;
    for (int part = 0; part < PAGE; part += 512) {
        uint64_t a[64], b[64];
        memcpy(a, page + part, 512);
        memcpy(b, base + part, 512);
        int64_t here = 0;
        for (int i = 0; i < 64; i++)
            here += a[i] != b[i];
        changed += (int)here;
        if (changed > most)
            break;
    }
    return changed;
}

/* Copy a page of any alignment, and ask meanwhile for the one that is likely to be copied next, and for the place
 * behind this one, where it is likely to go: a quarter of the time is waiting for what is going to be written over. */
VECTORS static void copy_page(uint8_t *restrict to, const uint8_t *restrict from, const uint8_t *next)
{
    for (int i = 0; i < PAGE; i += 128) {
        lanes part[2];
        __builtin_prefetch(next + i);
        __builtin_prefetch(next + i + 64);
        __builtin_prefetch(to + PAGE + i, 1);
        __builtin_prefetch(to + PAGE + i + 64, 1);
        memcpy(part, from + i, 128);
        memcpy(to + i, part, 128);
    }
}

/* Copy a page to where it is not read again soon: past the caches, which are not filled with what was there. */
static void store_page(uint8_t *to, const uint8_t *from)
{
#ifdef __SSE2__
    if (!((uintptr_t)to & 15)) {
        for (int i = 0; i < PAGE; i += 64) {
            __m128i part[4];
            memcpy(part, from + i, 64);
            for (int j = 0; j < 4; j++)
                _mm_stream_si128((__m128i *)(to + i) + j, part[j]);
        }
        return;
    }
#endif
    memcpy(to, from, PAGE);
}

static void ask_for(const uint8_t *page)
{
    for (int i = 0; i < AHEAD_BYTES; i += 64)
        __builtin_prefetch(page + i);
}

/* Tell whether two pages are the same; ask meanwhile for the two that are likely to be compared next, little by
 * little: more requests at once than the processor keeps only stop it. */
VECTORS static int same_page(const uint8_t *page, const uint8_t *held, const uint8_t *next, const uint8_t *next_held)
{
    for (int part = 0; part < PAGE; part += 256) {
        uint64_t a[32], b[32], differ = 0;
        for (int i = part; i < part + 256; i += 64) {
            __builtin_prefetch(next_held + i);
            __builtin_prefetch(next + i);
        }
        memcpy(a, page + part, 256);
        memcpy(b, held + part, 256);
        for (int i = 0; i < 32; i++)
            differ |= a[i] ^ b[i];
        if (differ)
            return 0;
    }
    return 1;
}

/* Let other threads see what store_page wrote before anything that is written from now on. */
static void stored(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

/* Write which words differ, and by how much. That comes without a pattern: no branch depends on it. */
static int write_delta(const uint8_t *page, const uint8_t *base, uint8_t *bitmap, uint8_t *words)
{
    uint64_t changed[WORDS];
    int count = 0;
    for (int byte = 0; byte < BITMAP; byte++) {
        unsigned bits = 0;
        for (int bit = 0; bit < 8; bit++) {
            uint64_t a, b;
            memcpy(&a, page + (byte * 8 + bit) * 8, 8);
            memcpy(&b, base + (byte * 8 + bit) * 8, 8);
            changed[count] = a - b;
            count += a != b;
            bits |= (unsigned)(a != b) << bit;
        }
        bitmap[byte] = (uint8_t)bits;
    }
    memcpy(words, changed, 8 * count);
    return count;
}

#ifdef WIDE
/* The same, eight words at a time. */
__attribute__((target("avx512f,popcnt"))) static int write_delta_wide(const uint8_t *page, const uint8_t *base,
                                                                      uint8_t *bitmap, uint8_t *words)
{
    uint64_t changed[WORDS + 8];
    int count = 0;
    for (int byte = 0; byte < BITMAP; byte++) {
        __m512i a = _mm512_loadu_si512(page + byte * 64), b = _mm512_loadu_si512(base + byte * 64);
        __mmask8 bits = _mm512_cmpneq_epi64_mask(a, b);
        _mm512_storeu_si512(changed + count, _mm512_maskz_compress_epi64(bits, _mm512_sub_epi64(a, b)));
        count += __builtin_popcount(bits);
        bitmap[byte] = (uint8_t)bits;
    }
    memcpy(words, changed, 8 * count);
    return count;
}

static int is_wide;
#endif

static int looks_random(const uint8_t *page)
{
    uint8_t seen[256] = {0};
    int distinct = 0;
    for (int sample = 0; sample < RAW_SAMPLES; sample++)
        for (int i = 0; i < RAW_SAMPLE_BYTES; i++)
            seen[page[sample * (PAGE / RAW_SAMPLES) + i]] = 1;
    for (int i = 0; i < 256; i++)
        distinct += seen[i];
    return distinct >= RAW_DISTINCT;
}

typedef struct {
    int64_t *scalars;
    uint8_t *ring;
    int64_t *slot_seq;
    uint64_t *slot_hash;
    int64_t *slot_written, *slot_referred;
    int32_t *slot_owner;
    uint8_t *slot_shared;
    int32_t *next, *heads;
    uint64_t *version_keys;
    int64_t *version_seqs;
    int64_t slots, head_mask, version_mask;
    int64_t guard[2];                   /* of the ring, and of the second one */
} book;

static int64_t place(int64_t seq, int64_t pinned, int64_t ring, int64_t late_ring)
{
    if (seq >= LATE)
        return pinned + ring - late_ring + (seq - LATE) % late_ring;
    return seq < pinned ? seq : pinned + (seq - pinned) % ring;
}

static int64_t slot_of(const book *d, int64_t seq)
{
    return place(seq, d->scalars[S_PINNED], d->scalars[S_RING], d->scalars[S_LATE_RING]);
}

/* Return the slot of a number that may be referred to in this block, or -1. */
static int64_t live(const book *d, int64_t seq)
{
    int late = seq >= LATE;
    if (seq < 0 || seq >= d->scalars[late ? S_LATE_NEXT : S_NEXT] ||
        (seq < d->guard[late] && seq >= d->scalars[S_PINNED]))
        return -1;
    int64_t slot = slot_of(d, seq);
    return d->slot_seq[slot] == seq ? slot : -1;
}

static void unlink_slot(book *d, int64_t slot)
{
    int32_t *at = &d->heads[d->slot_hash[slot] & d->head_mask];
    while (*at >= 0 && *at != slot)
        at = &d->next[*at];
    if (*at == slot)
        *at = d->next[slot];
}

static void link_slot(book *d, int64_t slot, uint64_t hash)
{
    int32_t *head = &d->heads[hash & d->head_mask];
    d->slot_hash[slot] = hash;
    d->next[slot] = *head;
    *head = (int32_t)slot;
}

static void write_slot(book *d, int64_t slot, int64_t seq, uint64_t hash, int owner, const uint8_t *page)
{
    if (d->slot_seq[slot] >= 0)
        unlink_slot(d, slot);
    store_page(d->ring + slot * PAGE, page);
    d->slot_seq[slot] = seq;
    d->slot_owner[slot] = owner;
    d->slot_written[slot] = d->scalars[S_BLOCK];
    d->slot_referred[slot] = -1;
    d->slot_shared[slot] = 0;
    link_slot(d, slot, hash);
}

static int64_t find(const book *d, uint64_t hash, const uint8_t *page)
{
    for (int32_t slot = d->heads[hash & d->head_mask]; slot >= 0; slot = d->next[slot])
        if (d->slot_hash[slot] == hash && live(d, d->slot_seq[slot]) == slot &&
            !memcmp(d->ring + (int64_t)slot * PAGE, page, PAGE))
            return slot;
    return -1;
}

/* A base must have been there before this block: the other side takes all bases first. */
static int64_t base_slot(const book *d, int64_t seq)
{
    int64_t slot = live(d, seq);
    return slot >= 0 && d->slot_written[slot] < d->scalars[S_BLOCK] ? slot : -1;
}

static uint64_t mixed(uint64_t key)
{
    key *= 0x9E3779B97F4A7C15u;
    return key ^ key >> 32;
}

enum { D_SCALARS, D_RING, D_SEQ, D_HASH, D_WRITTEN, D_REFERRED, D_OWNER, D_SHARED, D_NEXT, D_HEADS, D_VKEYS, D_VSEQS,
       D_BUFFERS };

static int open_book(book *d, PyObject *arrays, Py_buffer *b)
{
    if (!PyTuple_Check(arrays) || PyTuple_GET_SIZE(arrays) != D_BUFFERS) {
        PyErr_SetString(PyExc_TypeError, "a dictionary is a tuple of its arrays");
        return 0;
    }
    for (int i = 0; i < D_BUFFERS; i++)
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arrays, i), &b[i], PyBUF_WRITABLE) < 0)
            return 0;
    d->slots = b[D_SEQ].len / 8;
    d->head_mask = b[D_HEADS].len / 4 - 1;
    d->version_mask = b[D_VKEYS].len / 8 - 1;
    if (!enough(&b[D_SCALARS], S_FIELDS, 8, "scalars") || !enough(&b[D_RING], d->slots, PAGE, "ring") ||
        !enough(&b[D_HASH], d->slots, 8, "hashes") || !enough(&b[D_WRITTEN], d->slots, 8, "written") ||
        !enough(&b[D_REFERRED], d->slots, 8, "referred") || !enough(&b[D_OWNER], d->slots, 4, "owners") ||
        !enough(&b[D_SHARED], d->slots, 1, "shared") || !enough(&b[D_NEXT], d->slots, 4, "next") ||
        !enough(&b[D_VSEQS], d->version_mask + 1, 8, "versions"))
        return 0;
    d->scalars = b[D_SCALARS].buf;
    if (d->head_mask < 0 || d->head_mask & (d->head_mask + 1) || d->version_mask < 0 ||
        d->version_mask & (d->version_mask + 1) || d->scalars[S_PINNED] < 0 || d->scalars[S_RING] <= 0 ||
        d->scalars[S_LATE_RING] < 0 || d->scalars[S_LATE_RING] > d->scalars[S_RING] ||
        d->scalars[S_LATE_NEXT] < LATE || d->scalars[S_PINNED] + d->scalars[S_RING] != d->slots) {
        PyErr_SetString(PyExc_ValueError, "the dictionary's arrays do not fit each other");
        return 0;
    }
    d->ring = b[D_RING].buf;
    d->slot_seq = b[D_SEQ].buf;
    d->slot_hash = b[D_HASH].buf;
    d->slot_written = b[D_WRITTEN].buf;
    d->slot_referred = b[D_REFERRED].buf;
    d->slot_owner = b[D_OWNER].buf;
    d->slot_shared = b[D_SHARED].buf;
    d->next = b[D_NEXT].buf;
    d->heads = b[D_HEADS].buf;
    d->version_keys = b[D_VKEYS].buf;
    d->version_seqs = b[D_VSEQS].buf;
    return 1;
}

typedef struct {
    uint8_t *kinds;
    int64_t *seqs;
    uint8_t *bitmaps, *words, *literals, *raws;
    int64_t found[FOUND_FIELDS];
} output;

/* Contents that recur: the lower halves of their XXH3 with a seed, in ascending order. */
typedef struct {
    const uint32_t *hashes;
    int64_t count;
    uint64_t secret[SECRET_WORDS];
    page_hasher *hash;
} recurring;

static void open_recurring(recurring *r, const Py_buffer *hashes, unsigned long long seed)
{
    r->hashes = hashes->buf;
    r->count = hashes->len / 4;
    fill_secret(r->secret, seed);
    r->hash = choose_hasher(WIDEST);
}

static int recurs(const recurring *r, const uint8_t *page)
{
    if (!r->count)
        return 0;
    uint64_t found;
    r->hash(page, (const uint8_t *)r->secret, &found);
    const uint32_t *first = r->hashes;
    for (int64_t left = r->count; left > 1;) {
        int64_t half = left / 2;
        first = first[half] <= (uint32_t)found ? first + half : first;
        left -= half;
    }
    return *first == (uint32_t)found;
}

/* list_recurring(data, offsets, hashes, seed, out): 1 in out for each page whose content is one of those. */
static PyObject *list_recurring(PyObject *self, PyObject *args)
{
    Py_buffer b[4] = {{0}};
    unsigned long long seed;
    recurring r;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*Kw*", &b[0], &b[1], &b[2], &seed, &b[3]))
        goto out;
    int64_t pages = b[1].len / 8;
    const int64_t *offsets = b[1].buf;
    uint8_t *listed = b[3].buf;
    if (!enough(&b[3], pages, 1, "out") || !inside(&b[0], offsets, pages))
        goto out;
    open_recurring(&r, &b[2], seed);
    Py_BEGIN_ALLOW_THREADS
    for (int64_t i = 0; i < pages; i++)
        listed[i] = (uint8_t)recurs(&r, (const uint8_t *)b[0].buf + offsets[i]);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
out:
    release(b, 4);
    return result;
}

typedef struct {
    int owner, most_words, hashed;
    uint64_t hash;
    int (*delta)(const uint8_t *page, const uint8_t *base, uint8_t *bitmap, uint8_t *words);
    int admit;                          /* the page at hand, where that does not depend on its content */
    int selects, lends;                 /* does it? And does what does not recur go in as well, counted in `lent`? */
    int64_t lent;
    recurring recurring;
} policy;

/* Tell whether a page that is new is let in. */
static int let_in(policy *p, const uint8_t *page)
{
    if (!p->selects)
        return p->admit;
    int listed = recurs(&p->recurring, page);
    p->lent += !listed && p->lends;
    return listed || p->lends;
}

/* Choose the nearer of the two bases; -1 if neither is near enough. */
static int64_t choose_base(const book *d, const uint8_t *page, int64_t version, int64_t successor, int most)
{
    int64_t best = -1;
    int64_t candidates[2] = {base_slot(d, version), base_slot(d, successor)};
    for (int i = 0; i < 2 && most > 0; i++) {
        if (candidates[i] < 0 || (i && candidates[i] == candidates[0]))
            continue;
        int changed = words_changed(page, d->ring + candidates[i] * PAGE, most);
        if (changed <= most) {
            best = candidates[i];
            most = changed - 1;
        }
    }
    return best;
}

static int64_t refer(book *d, output *o, int64_t i, int64_t slot, int owner)
{
    o->kinds[i] = OP_REFERENCE;
    d->slot_referred[slot] = d->scalars[S_BLOCK];
    d->slot_shared[slot] = 1;
    o->found[d->slot_owner[slot] == owner ? FOUND_SELF : FOUND_CROSS]++;
    return o->seqs[i] = d->slot_seq[slot];
}

static int64_t append(book *d, uint64_t hash, int owner, const uint8_t *page)
{
    int64_t seq = d->scalars[d->scalars[S_LATE] ? S_LATE_NEXT : S_NEXT]++;
    write_slot(d, slot_of(d, seq), seq, hash, owner, page);
    return seq;
}

/* Match one page; returns the number under which it is held now (-1: it is not) and moves the prediction on. */
static int64_t match_page(book *d, output *o, int64_t i, const uint8_t *page, const uint8_t *next, int64_t version,
                          int64_t *predicted, policy *p)
{
    int64_t successor = *predicted;
    int64_t slot = live(d, successor);
    if (slot >= 0) {
        const uint8_t *held = d->ring + slot * PAGE, *next_held = slot + 1 < d->slots ? held + PAGE : held;
        if (same_page(page, held, next, next_held)) {
            *predicted = successor + 1;
            return refer(d, o, i, slot, p->owner);
        }
        ask_for(next_held);
    }
    ask_for(next);
    uint64_t hash = p->hashed ? p->hash : page_hash(page);
    slot = find(d, hash, page);
    if (slot >= 0) {
        if (slot + 1 < d->slots)
            ask_for(d->ring + (slot + 1) * PAGE);
        *predicted = d->slot_seq[slot] + 1;
        return refer(d, o, i, slot, p->owner);
    }
    int64_t base = choose_base(d, page, version, successor, p->most_words);
    if (base >= 0) {
        int64_t seq = d->slot_seq[base];
        o->seqs[i] = seq;
        o->found[FOUND_WORDS] += p->delta(page, d->ring + base * PAGE, o->bitmaps + o->found[FOUND_DELTAS]++ * BITMAP,
                                          o->words + o->found[FOUND_WORDS] * 8);
        *predicted = seq + 1;
        if (seq == version && d->slot_owner[base] == p->owner && !d->slot_shared[base] &&
            d->slot_referred[base] < d->scalars[S_BLOCK]) {
            o->kinds[i] = OP_UPDATE;
            write_slot(d, base, seq, hash, p->owner, page);
            return seq;
        }
        if (!let_in(p, page)) {
            o->kinds[i] = OP_TRANSIENT_DELTA;
            return seq;                     /* the base of its next version, too */
        }
        o->kinds[i] = OP_DELTA;
        return append(d, hash, p->owner, page);
    }
    int random = looks_random(page), admit = let_in(p, page);
    o->kinds[i] = (admit ? OP_LITERAL : OP_TRANSIENT) + random;
    if (random)
        copy_page(o->raws + o->found[FOUND_RAWS]++ * PAGE, page, next);
    else
        copy_page(o->literals + o->found[FOUND_LITERALS]++ * PAGE, page, next);
    o->seqs[i] = -1;
    *predicted = successor >= 0 ? successor + 1 : -1;
    return admit ? append(d, hash, p->owner, page) : -1;
}

/* Read who is let in: None: all; u8 per page; or a tuple: hashes of what recurs, seed, does the rest go in as well? */
static int read_admission(PyObject *told, Py_buffer *b, policy *p)
{
    unsigned long long seed;
    if (told == Py_None)
        return 1;
    if (!PyTuple_Check(told))
        return !PyObject_GetBuffer(told, b, PyBUF_SIMPLE);
    if (!PyArg_ParseTuple(told, "y*Kp", b, &seed, &p->lends))
        return 0;
    p->selects = 1;
    open_recurring(&p->recurring, b, seed);
    return 1;
}

/* match_pages(dictionary, data, offsets, keys, hashes, admit, predicted, owner, most_words,
 *             kinds, seqs, bitmaps, words, literals, raws) -> (predicted, self, cross, deltas, words, literals, raws,
 *             lent): the last of what went in without recurring. */
static PyObject *match_pages(PyObject *self, PyObject *args)
{
    Py_buffer db[D_BUFFERS] = {{0}}, b[11] = {{0}};
    PyObject *arrays, *admission, *result = NULL;
    book d;
    policy p = {.delta = write_delta};
    long long predicted;
    if (!PyArg_ParseTuple(args, "Oy*y*y*z*OLiiw*w*w*w*w*w*", &arrays, &b[0], &b[1], &b[2], &b[3], &admission,
                          &predicted, &p.owner, &p.most_words, &b[5], &b[6], &b[7], &b[8], &b[9], &b[10]))
        goto out;
    if (!open_book(&d, arrays, db) || !read_admission(admission, &b[4], &p))
        goto out;
    int64_t pages = b[1].len / 8;
    int late = d.scalars[S_LATE] != 0;
    if (p.most_words < 0 || p.most_words > WORDS || pages > d.scalars[late ? S_LATE_RING : S_RING]) {
        PyErr_SetString(PyExc_ValueError, "more pages in a block than the ring holds, or an impossible limit");
        goto out;
    }
    if (!enough(&b[2], pages, 8, "keys") || (b[3].buf && !enough(&b[3], pages, 8, "hashes")) ||
        (b[4].buf && !p.selects && !enough(&b[4], pages, 1, "admit")) || !enough(&b[5], pages, 1, "kinds") ||
        !enough(&b[6], pages, 8, "seqs") || !enough(&b[7], pages, BITMAP, "bitmaps") ||
        !enough(&b[8], pages * p.most_words, 8, "words") || !enough(&b[9], pages, PAGE, "literals") ||
        !enough(&b[10], pages, PAGE, "raws"))
        goto out;
    const int64_t *offsets = b[1].buf;
    if (!inside(&b[0], offsets, pages))
        goto out;
    output o = {b[5].buf, b[6].buf, b[7].buf, b[8].buf, b[9].buf, b[10].buf, {0}};
    const uint64_t *keys = b[2].buf, *hashes = b[3].buf;
    const uint8_t *admit = p.selects ? NULL : b[4].buf;
    int64_t guess = predicted;
    d.guard[0] = d.scalars[S_NEXT] + (late ? 0 : pages) - d.scalars[S_RING];
    d.guard[1] = d.scalars[S_LATE_NEXT] + (late ? pages : 0) - d.scalars[S_LATE_RING];
    p.hashed = hashes != NULL;
#ifdef WIDE
    if (is_wide)
        p.delta = write_delta_wide;
#endif
    Py_BEGIN_ALLOW_THREADS
    for (int64_t i = 0; i < pages; i++) {
        if (i + AHEAD < pages) {
            int64_t soon = mixed(keys[i + AHEAD]) & d.version_mask;
            __builtin_prefetch(&d.version_keys[soon], 1);
            __builtin_prefetch(&d.version_seqs[soon], 1);
        }
        int64_t at = mixed(keys[i]) & d.version_mask;
        int64_t version = d.version_keys[at] == keys[i] ? d.version_seqs[at] : -1;
        p.admit = admit == NULL || admit[i];
        p.hash = hashes ? hashes[i] : 0;
        const uint8_t *page = (const uint8_t *)b[0].buf + offsets[i];
        const uint8_t *next = i + 1 < pages ? (const uint8_t *)b[0].buf + offsets[i + 1] : page;
        int64_t held = match_page(&d, &o, i, page, next, version, &guess, &p);
        d.version_keys[at] = keys[i];
        d.version_seqs[at] = held;
    }
    stored();
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("LLLLLLLL", (long long)guess, (long long)o.found[FOUND_SELF],
                           (long long)o.found[FOUND_CROSS], (long long)o.found[FOUND_DELTAS],
                           (long long)o.found[FOUND_WORDS], (long long)o.found[FOUND_LITERALS],
                           (long long)o.found[FOUND_RAWS], (long long)p.lent);
out:
    release(db, D_BUFFERS);
    release(b, 11);
    return result;
}

/* ---- encoding: what stands around match_pages ------------------------------------------------------------------ */

static int check_runs(const Py_buffer *b)
{
    if (b->len % (RUN_COLUMNS * 8) == 0)
        return 1;
    PyErr_SetString(PyExc_ValueError, "runs have five columns");
    return 0;
}

/* list_pages(runs, guest, offsets, keys) -> (pages, zero pages, verbatim bytes) */
static PyObject *list_pages(PyObject *self, PyObject *args)
{
    Py_buffer b[3] = {{0}};
    unsigned long long guest;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*Kw*w*", &b[0], &guest, &b[1], &b[2]) || !check_runs(&b[0]))
        goto out;
    const int64_t *run = b[0].buf, *end = run + b[0].len / 8;
    int64_t *offsets = b[1].buf, pages = 0, zeros = 0, verbatim = 0;
    int64_t room = (b[1].len < b[2].len ? b[1].len : b[2].len) / 8;
    uint64_t *keys = b[2].buf;
    for (; run < end; run += RUN_COLUMNS) {
        int64_t kind = run[0], count = run[2];
        if (kind < RUN_VERBATIM || kind > RUN_BARE || count < 0) {
            PyErr_SetString(PyExc_ValueError, "a run of a kind or a length that does not exist");
            goto out;
        }
        if (kind == RUN_VERBATIM)
            verbatim += count;
        if (kind == RUN_ZERO)
            zeros += count;
        if (kind < RUN_PAGES)
            continue;
        if (count > room - pages) {
            PyErr_SetString(PyExc_ValueError, "offsets or keys is shorter than what it has to hold");
            goto out;
        }
        int64_t stride = kind == RUN_PAGES ? RECORD : PAGE, offset = run[1] + (kind == RUN_PAGES ? HEADER : 0);
        uint64_t key = ((uint64_t)run[3] & ~(uint64_t)(PAGE - 1)) + (uint64_t)run[4] * PAGE + guest;
        for (int64_t i = 0; i < count; i++) {
            offsets[pages] = offset + i * stride;
            keys[pages++] = key + i * PAGE;
        }
    }
    result = Py_BuildValue("LLL", (long long)pages, (long long)zeros, (long long)verbatim);
out:
    release(b, 3);
    return result;
}

/* note_runs(runs, base, end, round) -> (round, end, end of round 0 or -1, changed pages, pages, zero pages): where
 * guest memory has got to; `base` is its bytes before the block, `end` where the last run before ended. */
static PyObject *note_runs(PyObject *self, PyObject *args)
{
    Py_buffer b = {0};
    long long base, end, round;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*LLL", &b, &base, &end, &round) || !check_runs(&b))
        goto out;
    const int64_t *run = b.buf, *last = run + b.len / 8;
    int64_t first_round = -1, changed = 0, pages = 0, zeros = 0;
    for (; run < last; run += RUN_COLUMNS) {
        int64_t content = run[0] == RUN_PAGES ? run[2] : 0;
        /* what a header says may be anything: unsigned numbers may overflow */
        int64_t place = (int64_t)(((uint64_t)run[3] & ~(uint64_t)(PAGE - 1)) + (uint64_t)base);
        round += place < end;
        end = (int64_t)((uint64_t)place + (uint64_t)run[2] * PAGE);
        pages += content;
        zeros += run[2] - content;
        if (round)
            changed += content;
        else if (end > first_round || first_round < 0)
            first_round = end > 0 ? end : 0;
    }
    result = Py_BuildValue("LLLLLL", round, end, (long long)first_round, (long long)changed, (long long)pages,
                           (long long)zeros);
out:
    release(&b, 1);
    return result;
}

/* Numbers byte column by byte column, and back. */
VECTORS static void fill_columns(uint8_t *columns, const uint64_t *numbers, int64_t count)
{
    for (int column = 0; column < 8; column++)
        for (int64_t i = 0; i < count; i++)
            columns[column * count + i] = (uint8_t)(numbers[i] >> 8 * column);
}

static uint8_t *put_columns(uint8_t *at, const uint64_t *numbers, int64_t count)
{
    fill_columns(at, numbers, count);
    return at + 8 * count;
}

VECTORS static void read_columns(uint64_t *restrict numbers, const uint8_t *restrict columns, int64_t count)
{
    for (int64_t first = 0; first < count; first += WORDS) {
        int64_t end = first + WORDS < count ? first + WORDS : count;
        for (int64_t i = first; i < end; i++)
            numbers[i] = columns[i];
        for (int column = 1; column < 8; column++)
            for (int64_t i = first; i < end; i++)
                numbers[i] |= (uint64_t)columns[column * count + i] << 8 * column;
    }
}

static uint64_t column_number(const uint8_t *columns, int64_t count, int64_t i)
{
    uint64_t number = 0;
    for (int column = 0; column < 8; column++)
        number |= (uint64_t)columns[column * count + i] << 8 * column;
    return number;
}

/* pack_control(out, runs, data, kinds, seqs, bitmaps, words) -> (bytes, groups): write a block's control part as
 * block.py describes it. */
static PyObject *pack_control(PyObject *self, PyObject *args)
{
    Py_buffer b[7] = {{0}};
    PyObject *result = NULL;
    uint64_t *numbers = NULL;
    if (!PyArg_ParseTuple(args, "w*y*y*y*y*y*y*", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6]) ||
        !check_runs(&b[1]))
        goto out;
    const int64_t *run = b[1].buf, *seqs = b[4].buf;
    const uint8_t *kinds = b[3].buf;
    int64_t runs = b[1].len / (RUN_COLUMNS * 8), pages = b[3].len, words = b[6].len / 8, groups = 0;
    if (!enough(&b[4], pages, 8, "seqs"))
        goto out;
    if (b[0].len / 13 < runs || b[0].len / 11 < pages ||
        b[0].len - runs * 13 - pages * 11 - b[5].len - words * 8 < 0 || pages > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "out is shorter than what it has to hold");
        goto out;
    }
    if (!(numbers = PyMem_Malloc(8 * (runs > pages ? runs : pages) + 8))) {
        PyErr_NoMemory();
        goto out;
    }
    uint8_t *begin = b[0].buf, *at = begin, *limit = begin + b[0].len;
    uint64_t expected = 0;
    for (int64_t i = 0; i < runs; i++, run += RUN_COLUMNS) {
        if (run[0] < RUN_VERBATIM || run[0] > RUN_BARE || run[2] < 0 || run[2] > UINT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "a run of a kind or a length that does not exist");
            goto out;
        }
        uint32_t count = (uint32_t)run[2];
        begin[i] = (uint8_t)run[0];
        memcpy(begin + runs + 4 * i, &count, 4);
        numbers[i] = 0;
        if (run[0] == RUN_ZERO || run[0] == RUN_PAGES) {
            numbers[i] = (uint64_t)run[3] - expected;
            expected = (uint64_t)run[3] + (uint64_t)count * PAGE;
        }
    }
    at = put_columns(begin + 5 * runs, numbers, runs);
    for (int64_t i = 0; i < pages; i++)
        groups += !i || kinds[i] != kinds[i - 1] || (kinds[i] >= OP_REFERENCE && seqs[i] != seqs[i - 1] + 1);
    uint8_t *ops = at, *counts = at + groups;
    int64_t group = -1;
    uint16_t size = 0;
    expected = 0;
    for (int64_t i = 0; i < pages; i++) {
        int known = kinds[i] >= OP_REFERENCE;
        if (!i || kinds[i] != kinds[i - 1] || (known && seqs[i] != seqs[i - 1] + 1)) {
            ops[++group] = kinds[i];
            numbers[group] = known ? (uint64_t)seqs[i] - expected : 0;
            size = 0;
        }
        size++;
        memcpy(counts + 2 * group, &size, 2);
        if (known)
            expected = (uint64_t)seqs[i] + 1;
    }
    at = put_columns(counts + 2 * groups, numbers, groups);
    memcpy(at, b[5].buf, b[5].len);
    at = put_columns(at + b[5].len, b[6].buf, words);
    run = b[1].buf;
    for (int64_t i = 0; i < runs; i++, run += RUN_COLUMNS)
        if (run[0] == RUN_VERBATIM) {
            if (run[1] < 0 || run[1] > b[2].len || run[2] > b[2].len - run[1] || run[2] > limit - at) {
                PyErr_SetString(PyExc_ValueError, "bytes of a run lie outside of the data, or out is too short");
                goto out;
            }
            memcpy(at, (const uint8_t *)b[2].buf + run[1], run[2]);
            at += run[2];
        }
    result = Py_BuildValue("LL", (long long)(at - begin), (long long)groups);
out:
    PyMem_Free(numbers);
    release(b, 7);
    return result;
}

/* ---- decoding -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *content;
    int64_t *seqs;
    int64_t slots, pinned, ring, late_ring;
    long long next[2];                  /* numbers, of the ring and of the second one */
    int late;                           /* which of them takes what is new */
    int64_t inserted;
} shelf;

static int64_t shelf_held(const shelf *s, int64_t seq)
{
    if (seq < 0 || seq >= s->next[seq >= LATE])
        return -1;
    int64_t slot = place(seq, s->pinned, s->ring, s->late_ring);
    return s->seqs[slot] == seq ? slot : -1;
}

static uint8_t *shelf_insert(shelf *s)
{
    int64_t slot = place(s->next[s->late], s->pinned, s->ring, s->late_ring);
    s->seqs[slot] = s->next[s->late]++;
    s->inserted++;
    return s->content + slot * PAGE;
}

typedef struct {
    const uint8_t *ops, *counts, *columns;      /* of the groups */
    int64_t groups, group, left;
    uint64_t seq;
    int op;
} op_reader;

/* Move on to the next page; 0 where there is none or its kind does not exist. */
static int next_op(op_reader *r)
{
    while (!r->left) {
        if (r->group >= r->groups)
            return 0;
        uint16_t count;
        memcpy(&count, r->counts + 2 * r->group, 2);
        r->left = count;
        r->seq += column_number(r->columns, r->groups, r->group);
        r->op = r->ops[r->group++];
        if (r->op > OP_TRANSIENT_DELTA)
            return 0;
    }
    r->left--;
    return 1;
}

typedef struct {
    const uint8_t *at;
    int64_t left;
} supply;

static const uint8_t *take(supply *s, int64_t items, int64_t item_bytes)
{
    if (s->left < items)
        return NULL;
    const uint8_t *at = s->at;
    s->left -= items;
    s->at += items * item_bytes;
    return at;
}

typedef struct {
    supply literals, raws, bitmaps;
    const uint64_t *words;
    int64_t word, word_count;
} contents;

/* Write page = base + differences; 0 where they do not fit. */
static int patch(uint8_t *page, const uint8_t *base, contents *c)
{
    const uint8_t *bitmap = take(&c->bitmaps, 1, BITMAP);
    if (!bitmap)
        return 0;
    memcpy(page, base, PAGE);
    for (int byte = 0; byte < BITMAP; byte += 8) {
        uint64_t bits;
        memcpy(&bits, bitmap + byte, 8);
        for (; bits; bits &= bits - 1) {
            if (c->word >= c->word_count)
                return 0;
            uint8_t *at = page + 8 * (byte * 8 + __builtin_ctzll(bits));
            uint64_t value;
            memcpy(&value, at, 8);
            value += c->words[c->word++];
            memcpy(at, &value, 8);
        }
    }
    return 1;
}

/* Write the next page to `page`, and to the dictionary what belongs there; 0 where something does not fit. */
static int next_page(uint8_t *page, shelf *s, op_reader *ops, contents *c)
{
    if (!next_op(ops))
        return 0;
    const uint8_t *from;
    int64_t slot;
    switch (ops->op) {
    case OP_LITERAL: case OP_RAW: case OP_TRANSIENT: case OP_TRANSIENT_RAW:
        if (!(from = take(ops->op == OP_LITERAL || ops->op == OP_TRANSIENT ? &c->literals : &c->raws, 1, PAGE)))
            return 0;
        copy_page(page, from, from + PAGE);
        if (ops->op < OP_TRANSIENT)
            store_page(shelf_insert(s), from);
        return 1;
    }
    if ((slot = shelf_held(s, (int64_t)ops->seq++)) < 0)
        return 0;
    uint8_t *held = s->content + slot * PAGE;
    if (ops->op == OP_REFERENCE) {
        copy_page(page, held, held + PAGE);
        return 1;
    }
    if (!patch(page, held, c))
        return 0;
    if (ops->op != OP_TRANSIENT_DELTA)
        store_page(ops->op == OP_DELTA ? shelf_insert(s) : held, page);
    return 1;
}

/* apply_block(out, control, counts, literals, raws, content, seqs, rings, late) -> next: put a block together and
 * bring the dictionary to its end. counts: runs, groups, deltas, words, verbatim bytes; rings: pinned slots, next
 * number, slots of the second ring, its next number; late: is that the one which takes what is new, and whose next
 * number is returned? Whatever is wrong: ValueError, and the dictionary is worth nothing any more. */
static PyObject *apply_block(PyObject *self, PyObject *args)
{
    Py_buffer b[6] = {{0}};
    long long runs, groups, deltas, words, verbatim, next, pinned, late_next, late_ring;
    uint64_t *numbers = NULL;
    int late, fits = 0;
    if (!PyArg_ParseTuple(args, "w*y*(LLLLL)y*y*w*w*(LLLL)p", &b[0], &b[1], &runs, &groups, &deltas, &words,
                          &verbatim, &b[2], &b[3], &b[4], &b[5], &pinned, &next, &late_ring, &late_next, &late))
        goto out;
    shelf s = {b[4].buf, b[5].buf, b[5].len / 8, pinned, 0, late_ring, {next, late_next}, late, 0};
    int64_t most = b[1].len;
    if (runs < 0 || groups < 0 || deltas < 0 || words < 0 || verbatim < 0 || runs > most || groups > most ||
        deltas > most || words > most || verbatim > most ||
        runs * 13 + groups * 11 + deltas * BITMAP + words * 8 + verbatim != most || pinned < 0 || next < pinned ||
        pinned >= s.slots || late_ring < 0 || late_ring > s.slots - pinned || next >= LATE || late_next < LATE ||
        (late && !late_ring) || !enough(&b[4], s.slots, PAGE, "content") || b[2].len % PAGE || b[3].len % PAGE)
        goto misfit;
    s.ring = s.slots - pinned;
    const uint8_t *kinds = b[1].buf, *counts = kinds + runs, *headers = counts + 4 * runs, *ops = headers + 8 * runs;
    op_reader reader = {ops, ops + groups, ops + 3 * groups, groups, 0, 0, 0, 0};
    const uint8_t *bitmaps = ops + 11 * groups, *columns = bitmaps + deltas * BITMAP;
    if (!(numbers = PyMem_Malloc(8 * words + 8))) {
        PyErr_NoMemory();
        goto out;
    }
    contents c = {{b[2].buf, b[2].len / PAGE}, {b[3].buf, b[3].len / PAGE}, {bitmaps, deltas}, numbers, 0, words};
    supply bytes = {columns + words * 8, verbatim};
    uint8_t *at = b[0].buf, *end = at + b[0].len;
    uint64_t header = 0;
    static const int64_t size_of[] = {1, HEADER + 1, RECORD, PAGE};
    Py_BEGIN_ALLOW_THREADS
    read_columns(numbers, columns, words);
    for (int64_t run = 0; run < runs; run++) {
        uint32_t count;
        memcpy(&count, counts + 4 * run, 4);
        header += column_number(headers, runs, run);
        if (kinds[run] > RUN_BARE || (end - at) / size_of[kinds[run]] < count)
            goto done;
        if (kinds[run] == RUN_VERBATIM) {
            const uint8_t *from = take(&bytes, count, 1);
            if (!from)
                goto done;
            memcpy(at, from, count);
            at += count;
            continue;
        }
        for (uint32_t i = 0; i < count; i++) {
            if (kinds[run] != RUN_BARE) {
                uint64_t swapped = __builtin_bswap64(header);
                memcpy(at, &swapped, HEADER);
                header += PAGE;
                at += HEADER;
            }
            if (kinds[run] == RUN_ZERO) {
                *at++ = 0;
                continue;
            }
            if (!next_page(at, &s, &reader, &c) || s.inserted > (late ? s.late_ring : s.ring))
                goto done;
            at += PAGE;
        }
    }
    /* groups of no pages at the end are nothing, but their kinds have to exist */
    fits = at == end && !reader.left && !next_op(&reader) && reader.group == reader.groups &&
           reader.op <= OP_TRANSIENT_DELTA && !reader.left && !bytes.left && !c.literals.left && !c.raws.left && !c.bitmaps.left && c.word == c.word_count;
done:;
    stored();
    Py_END_ALLOW_THREADS
misfit:
    if (!fits && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a block's parts do not fit each other or the dictionary");
out:
    PyMem_Free(numbers);
    release(b, 6);
    return fits ? PyLong_FromLongLong(s.next[s.late]) : NULL;
}

/* pump(source, target, reader, writer, chunk, rest, moved): splice from one descriptor to another through a pipe, until
 * the source ends. Behind a piece of a 32nd to half of a chunk it rests for so many microseconds: of a stream that
 * flows, more goes on in one call then. moved[0] grows meanwhile. OSError as os.splice would raise it; a signal does
 * not end it. */
static PyObject *pump(PyObject *self, PyObject *args)
{
    int source, target, reader, writer, rest, failed = 0;
    Py_ssize_t chunk;
    Py_buffer b = {0};
    if (!PyArg_ParseTuple(args, "iiiiniw*", &source, &target, &reader, &writer, &chunk, &rest, &b))
        return NULL;
    if (chunk <= 0 || rest < 0 || rest >= 1000000 || !enough(&b, 1, 8, "moved")) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a chunk is of one byte or more, a rest shorter than a second");
        release(&b, 1);
        return NULL;
    }
    int64_t *moved = b.buf;
    const struct timespec pause = {0, rest * 1000L};
    Py_BEGIN_ALLOW_THREADS
    for (;;) {
        ssize_t taken = splice(source, NULL, writer, NULL, chunk, SPLICE_F_MOVE), given;
        if (!taken)
            break;
        int rests = rest && taken >= chunk / 32 && taken < chunk / 2;
        for (; taken > 0; taken -= given) {
            given = splice(reader, NULL, target, NULL, taken, SPLICE_F_MOVE);
            if (given < 0 && errno == EINTR)
                given = 0;
            if (given < 0)
                break;
            *moved += given;
        }
        if (taken && errno != EINTR) {
            failed = errno;
            break;
        }
        if (rests)
            nanosleep(&pause, NULL);
    }
    Py_END_ALLOW_THREADS
    release(&b, 1);
    if (failed) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"scan_records", scan_records, METH_VARARGS, "Find runs of page and zero records."},
    {"match_pages", match_pages, METH_VARARGS, "Match pages with the dictionary and insert what is new."},
    {"list_recurring", list_recurring, METH_VARARGS, "Tell which pages have content that recurs."},
    {"list_pages", list_pages, METH_VARARGS, "List where the pages of runs lie, and a number for each."},
    {"note_runs", note_runs, METH_VARARGS, "Tell how far runs of records have come in guest memory."},
    {"pack_control", pack_control, METH_VARARGS, "Write the control part of a block."},
    {"apply_block", apply_block, METH_VARARGS, "Put a block of a stream together, and insert what is new."},
    {"pump", pump, METH_VARARGS, "Splice from one descriptor to another until it ends."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_speed", "Inner loops of the relay's codec.", -1, methods};

PyMODINIT_FUNC PyInit__speed(void)
{
#ifdef WIDE
    is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("popcnt");
#endif
    return PyModule_Create(&module);
}
