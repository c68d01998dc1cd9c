/* The agent's loops over pages: which are present in another process, and XXH3 (64 bits, seeded) of many pages in
 * one call, in a buffer or read from another process into one. Optional: memory.py and fingerprint.py do the same
 * without it, and tests compare both. The algorithm and its constants are those of the XXH3 specification, for inputs
 * of 4096 bytes only. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <linux/ioctl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little endian only: without this module pages are hashed one by one"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* RUNS: the kernel's IOV_MAX; PART: pages read in one step, so that they are hashed in the second-level cache. */
enum { RUNS = 1024, PART = 64, WIDEST = 64 };
enum { PAGE = 4096, STRIPE = 64, LANES = 8, SECRET_WORDS = 24, BLOCK_STRIPES = 16 };

#define P32_1 0x9E3779B1u
#define P64_1 0x9E3779B185EBCA87u

static const uint64_t START[LANES] = {
    0xC2B2AE3Du, P64_1, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
    0x85EBCA77C2B2AE63u, 0x85EBCA77u, 0x27D4EB2F165667C5u, P32_1,
};

static const uint64_t SECRET[SECRET_WORDS] = {
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072,
    0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0,
    0xcb00c391bb52283c, 0xa32e531b8b65d088, 0x4ef90da297486471, 0xd8acdea946ef1938,
    0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a, 0x647378d9c97e9fc8,
    0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
};

static uint64_t read64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint64_t folded(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t merged(const uint64_t *acc, const uint8_t *secret)
{
    uint64_t sum = PAGE * P64_1;
    for (int i = 0; i < LANES; i += 2)
        sum += folded(acc[i] ^ read64(secret + 11 + 8 * i), acc[i + 1] ^ read64(secret + 19 + 8 * i));
    sum = (sum ^ sum >> 37) * 0x165667919E3779F9u;
    return sum ^ sum >> 32;
}

static void accumulate(uint64_t *acc, const uint8_t *in, const uint8_t *key)
{
    for (int i = 0; i < LANES; i++) {
        uint64_t data = read64(in + 8 * i), mixed = data ^ read64(key + 8 * i);
        acc[i ^ 1] += data;
        acc[i] += (mixed & 0xFFFFFFFFu) * (mixed >> 32);
    }
}

static void hash_plainly(const uint8_t *in, const uint8_t *secret, uint64_t *out)
{
    const uint8_t *last_key = secret + SECRET_WORDS * 8 - STRIPE;
    uint64_t acc[LANES];
    memcpy(acc, START, sizeof acc);
    for (int stripe = 0; stripe < PAGE / STRIPE - 1; stripe++) {
        accumulate(acc, in + stripe * STRIPE, secret + stripe % BLOCK_STRIPES * 8);
        if (stripe % BLOCK_STRIPES == BLOCK_STRIPES - 1)
            for (int i = 0; i < LANES; i++)
                acc[i] = (acc[i] ^ acc[i] >> 47 ^ read64(last_key + 8 * i)) * P32_1;
    }
    accumulate(acc, in + PAGE - STRIPE, last_key - 7);
    *out = merged(acc, secret);
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i accumulated(__m256i acc, const uint8_t *in, const uint8_t *key)
{
    __m256i data = _mm256_loadu_si256((const __m256i *)in);
    __m256i mixed = _mm256_xor_si256(data, _mm256_loadu_si256((const __m256i *)key));
    __m256i product = _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32));
    __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(acc, _mm256_add_epi64(product, swapped));
}

AVX2 static inline __m256i scrambled(__m256i acc, const uint8_t *key)
{
    __m256i prime = _mm256_set1_epi64x((long long)P32_1);
    __m256i mixed = _mm256_xor_si256(_mm256_xor_si256(acc, _mm256_srli_epi64(acc, 47)),
                                     _mm256_loadu_si256((const __m256i *)key));
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
}

AVX2 static void hash_wide(const uint8_t *in, const uint8_t *secret, uint64_t *out)
{
    const uint8_t *last_key = secret + SECRET_WORDS * 8 - STRIPE;
    uint64_t acc[LANES];
    __m256i low = _mm256_loadu_si256((const __m256i *)START);
    __m256i high = _mm256_loadu_si256((const __m256i *)START + 1);
    for (int stripe = 0; stripe < PAGE / STRIPE - 1; stripe++) {
        const uint8_t *at = in + stripe * STRIPE, *key = secret + stripe % BLOCK_STRIPES * 8;
        low = accumulated(low, at, key);
        high = accumulated(high, at + STRIPE / 2, key + STRIPE / 2);
        if (stripe % BLOCK_STRIPES == BLOCK_STRIPES - 1) {
            low = scrambled(low, last_key);
            high = scrambled(high, last_key + STRIPE / 2);
        }
    }
    low = accumulated(low, in + PAGE - STRIPE, last_key - 7);
    high = accumulated(high, in + PAGE - STRIPE / 2, last_key - 7 + STRIPE / 2);
    _mm256_storeu_si256((__m256i *)acc, low);
    _mm256_storeu_si256((__m256i *)acc + 1, high);
    *out = merged(acc, secret);
}

/* Half a stripe's loads and multiplications again. Only where these registers do not slow the processor down, and with
 * it whoever shares it: Ice Lake and Zen 4 on, which have VPOPCNTDQ, too. */
#define AVX512 __attribute__((target("avx512f")))

AVX512 static inline __m512i accumulated_whole(__m512i acc, const uint8_t *in, const uint8_t *key)
{
    __m512i data = _mm512_loadu_si512(in), mixed = _mm512_xor_si512(data, _mm512_loadu_si512(key));
    __m512i product = _mm512_mul_epu32(mixed, _mm512_srli_epi64(mixed, 32));
    return _mm512_add_epi64(acc, _mm512_add_epi64(product, _mm512_shuffle_epi32(data, _MM_PERM_BADC)));
}

AVX512 static void hash_widest(const uint8_t *in, const uint8_t *secret, uint64_t *out)
{
    const uint8_t *last_key = secret + SECRET_WORDS * 8 - STRIPE;
    const __m512i prime = _mm512_set1_epi64((long long)P32_1);
    uint64_t lanes[LANES];
    __m512i acc = _mm512_loadu_si512(START);
    for (int stripe = 0; stripe < PAGE / STRIPE - 1; stripe++) {
        acc = accumulated_whole(acc, in + stripe * STRIPE, secret + stripe % BLOCK_STRIPES * 8);
        if (stripe % BLOCK_STRIPES == BLOCK_STRIPES - 1) {
            __m512i mixed = _mm512_xor_si512(_mm512_xor_si512(acc, _mm512_srli_epi64(acc, 47)),
                                             _mm512_loadu_si512(last_key));
            __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
            acc = _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64(high, 32));
        }
    }
    acc = accumulated_whole(acc, in + PAGE - STRIPE, last_key - 7);
    _mm512_storeu_si512(lanes, acc);
    *out = merged(lanes, secret);
}
#endif

static void fill_secret(uint64_t *secret, unsigned long long seed)
{
    for (int i = 0; i < SECRET_WORDS; i++)
        secret[i] = i % 2 ? SECRET[i] - seed : SECRET[i] + seed;
}

/* `widest`: bytes of the widest registers to be used. */
static void hash_all(const uint8_t *pages, Py_ssize_t count, const uint64_t *words, int widest, uint64_t *out)
{
    const uint8_t *secret = (const uint8_t *)words;
    void (*hash)(const uint8_t *, const uint8_t *, uint64_t *) = hash_plainly;
#if defined(__x86_64__)
    if (widest >= 64 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq"))
        hash = hash_widest;
    else if (widest >= 32 && __builtin_cpu_supports("avx2"))
        hash = hash_wide;
#endif
    for (Py_ssize_t n = 0; n < count; n++)
        hash(pages + n * PAGE, secret, out + n);
}

/* hash_pages(pages, seed, out, widest=64): hashes of as many pages as the writable buffer out has room for. */
static PyObject *hash_pages(PyObject *self, PyObject *args)
{
    Py_buffer pages, out;
    unsigned long long seed;
    int widest = WIDEST;
    if (!PyArg_ParseTuple(args, "y*Kw*|i", &pages, &seed, &out, &widest))
        return NULL;
    Py_ssize_t count = out.len / 8;
    if (pages.len < count * PAGE) {
        PyBuffer_Release(&pages);
        PyBuffer_Release(&out);
        PyErr_SetString(PyExc_ValueError, "there are fewer pages than hashes wanted");
        return NULL;
    }
    uint64_t secret[SECRET_WORDS];
    fill_secret(secret, seed);
    Py_BEGIN_ALLOW_THREADS
    hash_all(pages.buf, count, secret, widest, out.buf);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&pages);
    PyBuffer_Release(&out);
    Py_RETURN_NONE;
}

/* Reads the present ones of pages of a process and hashes them part by part, while they are in the processor's cache:
 * behind each other into the buffer where `keep`, else each part over the one before. Absent ones get the hash
 * `absent`. Returns the bytes read; -1: errno. */
static Py_ssize_t read_all(pid_t pid, uintptr_t address, const uint8_t *present, Py_ssize_t count, uint8_t *buffer,
                           int keep, const uint64_t *secret, uint64_t absent, uint64_t *out)
{
    struct iovec runs[RUNS];
    uint64_t hashes[PART];
    Py_ssize_t read = 0;
    for (Py_ssize_t at = 0, first; at < count;) {
        int wanted = 0, run = 0;
        for (first = at; at < count && wanted < PART; at++) {
            if (!present[at])
                continue;
            uint8_t *page = (uint8_t *)address + at * PAGE;
            if (run && (uint8_t *)runs[run - 1].iov_base + runs[run - 1].iov_len == page) {
                runs[run - 1].iov_len += PAGE;
            } else {
                if (run == RUNS)
                    break;
                runs[run++] = (struct iovec){page, PAGE};
            }
            wanted++;
        }
        if (wanted) {
            struct iovec local = {keep ? buffer + read : buffer, (size_t)wanted * PAGE};
            ssize_t got = process_vm_readv(pid, &local, 1, runs, run, 0);
            if (got < 0)
                return -1;
            if (got != (ssize_t)local.iov_len) {
                errno = EFAULT;
                return -1;
            }
            hash_all(local.iov_base, wanted, secret, WIDEST, hashes);
            read += got;
        }
        for (int n = 0; first < at; first++)
            out[first] = present[first] ? hashes[n++] : absent;
    }
    return read;
}

/* read_pages(pid, address, present, buffer, keep, seed, absent, out): hashes of pages that lie behind each other in a
 * process, into the writable buffer out. The buffer holds the present ones afterwards if keep is true; it may be
 * smaller else. Returns the bytes read. */
static PyObject *read_pages(PyObject *self, PyObject *args)
{
    Py_buffer present, buffer, out;
    int pid, keep;
    unsigned long long address, seed, absent;
    if (!PyArg_ParseTuple(args, "iKy*w*pKKw*", &pid, &address, &present, &buffer, &keep, &seed, &absent, &out))
        return NULL;
    Py_ssize_t count = present.len, read = -1, wanted = 0;
    const uint8_t *flags = present.buf;
    for (Py_ssize_t n = 0; n < count; n++)
        wanted += flags[n] != 0;
    if (!keep && wanted > PART)
        wanted = PART;
    if (buffer.len < wanted * PAGE || out.len < count * 8) {
        PyErr_SetString(PyExc_ValueError, "there is less room than pages wanted");
    } else {
        uint64_t secret[SECRET_WORDS];
        int error;
        fill_secret(secret, seed);
        Py_BEGIN_ALLOW_THREADS
        read = read_all(pid, address, flags, count, buffer.buf, keep, secret, absent, out.buf);
        error = errno;
        Py_END_ALLOW_THREADS
        if (read < 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    PyBuffer_Release(&present);
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&out);
    return read < 0 ? NULL : PyLong_FromSsize_t(read);
}

/* What Linux 6.7 and later answer PAGEMAP_SCAN with; named here for older headers. */
struct scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any, wanted;
};
struct region {
    uint64_t start, end, categories;
};
enum { IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, REGIONS = 256 };
#define SCAN _IOWR('f', 16, struct scan)

static int scan_all(int pagemap, uint64_t address, Py_ssize_t count, uint8_t *present, uint8_t *swapped)
{
    struct region found[REGIONS];
    struct scan scan = {.size = sizeof scan, .start = address, .end = address + count * PAGE, .vec = (uintptr_t)found,
                        .vec_len = REGIONS, .any = IS_PRESENT | IS_SWAPPED, .wanted = IS_PRESENT | IS_SWAPPED};
    memset(present, 0, count);
    memset(swapped, 0, count);
    while (scan.start < scan.end) {
        int regions = ioctl(pagemap, SCAN, &scan);
        if (regions < 0)
            return -1;
        for (int n = 0; n < regions; n++) {
            size_t first = (found[n].start - address) / PAGE, pages = (found[n].end - found[n].start) / PAGE;
            if (found[n].categories & IS_PRESENT)
                memset(present + first, 1, pages);
            if (found[n].categories & IS_SWAPPED)
                memset(swapped + first, 1, pages);
        }
        if (scan.walk_end <= scan.start)
            break;
        scan.start = scan.walk_end;
    }
    return 0;
}

/* find_present(pagemap, address, present, swapped): which of the pages from an address on are present and which are in
 * swap, into two writable buffers of a byte per page. The kernel is asked for these two alone: unlike reading pagemap,
 * it need not look at what it keeps of each page. OSError where it has no PAGEMAP_SCAN. */
static PyObject *find_present(PyObject *self, PyObject *args)
{
    Py_buffer present, swapped;
    int pagemap, failed = -1, error = EINVAL;
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "iKw*w*", &pagemap, &address, &present, &swapped))
        return NULL;
    if (present.len == swapped.len) {
        Py_BEGIN_ALLOW_THREADS
        failed = scan_all(pagemap, address, present.len, present.buf, swapped.buf);
        error = errno;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&present);
    PyBuffer_Release(&swapped);
    if (failed) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* gather(hashes, present, zero, limit, sample_limit, first_page, kept, pages, sample): of pages from a number on, those
 * that are present and not zeros (whose hash is `zero`): hashes below limit into kept; of these, those below
 * sample_limit with their page's number into sample and pages. A limit of 0 is none. The buffers (uint64, uint32,
 * uint64) have room for all pages. Returns how many pages are present, how many of these are zeros, kept, sampled. */
static PyObject *gather(PyObject *self, PyObject *args)
{
    enum { HASHES, PRESENT, KEPT, PAGES, SAMPLE, BUFFERS };
    Py_buffer in[BUFFERS];
    unsigned long long zero, limit, sample_limit;
    unsigned int first;
    if (!PyArg_ParseTuple(args, "y*y*KKKIw*w*w*", &in[HASHES], &in[PRESENT], &zero, &limit, &sample_limit, &first,
                          &in[KEPT], &in[PAGES], &in[SAMPLE]))
        return NULL;
    Py_ssize_t count = in[PRESENT].len, here = 0, zeros = 0, kept = 0, sampled = 0;
    int fits = in[HASHES].len >= count * 8 && in[KEPT].len >= count * 8 && in[PAGES].len >= count * 4 &&
               in[SAMPLE].len >= count * 8;
    const uint64_t *hashes = in[HASHES].buf;
    const uint8_t *present = in[PRESENT].buf;
    uint64_t *kept_out = in[KEPT].buf, *sample_out = in[SAMPLE].buf;
    uint32_t *pages_out = in[PAGES].buf;
    for (Py_ssize_t n = 0; fits && n < count; n++) {
        int is_zero = hashes[n] == zero, is_content = present[n] && !is_zero;
        here += present[n];
        zeros += present[n] && is_zero;
        kept_out[kept] = hashes[n];
        is_content = is_content && (!limit || hashes[n] < limit);
        kept += is_content;
        sample_out[sampled] = hashes[n];
        pages_out[sampled] = first + n;
        sampled += is_content && (!sample_limit || hashes[n] < sample_limit);
    }
    for (int n = 0; n < BUFFERS; n++)
        PyBuffer_Release(&in[n]);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the buffers have room for fewer pages");
        return NULL;
    }
    return Py_BuildValue("nnnn", here, zeros, kept, sampled);
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, "Pick the hashes of pages with content, and a sample of them."},
    {"find_present", find_present, METH_VARARGS, "Tell which pages of a process are present and which in swap."},
    {"read_pages", read_pages, METH_VARARGS, "Read pages of a process and hash them into a buffer of uint64."},
    {"hash_pages", hash_pages, METH_VARARGS, "Hash pages behind each other into a buffer of uint64."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_speed", NULL, 0, methods};

PyMODINIT_FUNC PyInit__speed(void)
{
    return PyModule_Create(&module);
}
