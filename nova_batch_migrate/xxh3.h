/* XXH3 (64 bits, seeded) of memory pages, for the extensions of agent and relay. The algorithm and its constants are
 * those of the XXH3 specification, for inputs of 4096 bytes only. */
#ifndef NBM_XXH3_H
#define NBM_XXH3_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little endian only: without this module pages are hashed one by one"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { WIDEST = 64 };     /* bytes of the widest registers */
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

/* Writes the hash of the page at `in`; secret: of fill_secret. */
typedef void page_hasher(const uint8_t *in, const uint8_t *secret, uint64_t *out);

/* Returns the fastest way on this processor; `widest`: bytes of the widest registers to be used. */
static page_hasher *choose_hasher(int widest)
{
#if defined(__x86_64__)
    if (widest >= 64 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq"))
        return hash_widest;
    if (widest >= 32 && __builtin_cpu_supports("avx2"))
        return hash_wide;
#endif
    return hash_plainly;
}

#endif
