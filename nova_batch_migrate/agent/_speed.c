/* The agent's loops over pages: which are present in another process, and XXH3 (64 bits, seeded) of many pages in
 * one call, in a buffer or read from another process into one. Optional: memory.py and fingerprint.py do the same
 * without it, and tests compare both. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <linux/ioctl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "../xxh3.h"

/* RUNS: the kernel's IOV_MAX; PART: pages read in one step, so that they are hashed in the second-level cache. */
enum { RUNS = 1024, PART = 64 };

/* `widest`: bytes of the widest registers to be used. */
static void hash_all(const uint8_t *pages, Py_ssize_t count, const uint64_t *words, int widest, uint64_t *out)
{
    page_hasher *hash = choose_hasher(widest);
    for (Py_ssize_t n = 0; n < count; n++)
        hash(pages + n * PAGE, (const uint8_t *)words, out + n);
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
