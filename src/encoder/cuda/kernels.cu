// What a transformer does between its products, on an NVIDIA GPU: compiled by NVRTC when a model is loaded, once for
// each type of states. Needs no header. States are `tokens x width`, text after text, without padding.
//
// All arithmetic is in f32; F32, F16 or BF16 is defined and says what states are kept as.

typedef unsigned short u16;
typedef unsigned int u32;

#define WARP 32
#define ALL 0xffffffffu
#define LEAST __int_as_float(0xff800000)
#define INLINE __device__ __forceinline__

#if defined(F32)
typedef float T;
INLINE float wide(T x) { return x; }
INLINE T narrow(float x) { return x; }
#elif defined(F16)
typedef u16 T;
INLINE float wide(T x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
INLINE T narrow(float x) { T y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
#elif defined(BF16)
typedef u16 T;
INLINE float wide(T x) { return __uint_as_float((u32)x << 16); }
INLINE T narrow(float x) { T y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
#endif

// Four values at a time where rows are whole fours, one where they are not.
template <int N> struct alignas(N * sizeof(T)) Some { T at[N]; };

INLINE float sum_of_warp(float x) {
    for (int far = WARP / 2; far > 0; far /= 2) x += __shfl_xor_sync(ALL, x, far);
    return x;
}

INLINE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

template <int N> INLINE void bias_of_row(T* row, const float* bias, int width, bool then_gelu) {
    for (int col = threadIdx.x * N; col < width; col += blockDim.x * N) {
        Some<N> some = *(Some<N>*)(row + col);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float x = wide(some.at[i]) + bias[col + i];
            some.at[i] = narrow(then_gelu ? gelu(x) : x);
        }
        *(Some<N>*)(row + col) = some;
    }
}

// Adds a bias to each row, in place, and takes GELU of it where wanted. A block a row.
extern "C" __global__ void add_bias(T* states, const float* bias, u32 width, u32 then_gelu) {
    T* row = states + (size_t)blockIdx.x * width;
    if (width % 4 == 0) bias_of_row<4>(row, bias, width, then_gelu);
    else bias_of_row<1>(row, bias, width, then_gelu);
}

template <int N> INLINE void norm_of_row(
    const T* x, const T* y, const float* before, const float* gain, const float* bias, T* to, int width, float epsilon) {
    float sum = 0.0f, squares = 0.0f;
    for (int col = threadIdx.x * N; col < width; col += WARP * N) {
        Some<N> a = *(Some<N>*)(x + col), b = *(Some<N>*)(y + col);
#pragma unroll
        for (int i = 0; i < N; i++) sum += wide(a.at[i]) + before[col + i] + wide(b.at[i]);
    }
    float mean = sum_of_warp(sum) / width;
    // Read again, from the cache: of differences from the mean, squares do not cancel.
    for (int col = threadIdx.x * N; col < width; col += WARP * N) {
        Some<N> a = *(Some<N>*)(x + col), b = *(Some<N>*)(y + col);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float off = wide(a.at[i]) + before[col + i] + wide(b.at[i]) - mean;
            squares += off * off;
        }
    }
    float scale = rsqrtf(sum_of_warp(squares) / width + epsilon);
    for (int col = threadIdx.x * N; col < width; col += WARP * N) {
        Some<N> a = *(Some<N>*)(x + col), b = *(Some<N>*)(y + col);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float off = wide(a.at[i]) + before[col + i] + wide(b.at[i]) - mean;
            a.at[i] = narrow(off * scale * gain[col + i] + bias[col + i]);
        }
        *(Some<N>*)(to + col) = a;
    }
}

// The same of a row of 128 N numbers, of which a lane keeps its own.
template <int N> INLINE void norm_in_registers(
    const T* x, const T* y, const float* before, const float* gain, const float* bias, T* to, float epsilon) {
    float own[N][4], sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int part = 0; part < N; part++) {
        const int col = part * 128 + threadIdx.x * 4;
        Some<4> a = *(Some<4>*)(x + col), b = *(Some<4>*)(y + col);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            own[part][i] = wide(a.at[i]) + before[col + i] + wide(b.at[i]);
            sum += own[part][i];
        }
    }
    const float mean = sum_of_warp(sum) / (128 * N);
#pragma unroll
    for (int part = 0; part < N; part++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            own[part][i] -= mean;
            squares += own[part][i] * own[part][i];
        }
    const float scale = rsqrtf(sum_of_warp(squares) / (128 * N) + epsilon);
#pragma unroll
    for (int part = 0; part < N; part++) {
        const int col = part * 128 + threadIdx.x * 4;
        Some<4> some;
#pragma unroll
        for (int i = 0; i < 4; i++) some.at[i] = narrow(own[part][i] * scale * gain[col + i] + bias[col + i]);
        *(Some<4>*)(to + col) = some;
    }
}

// Each row of `x + before + y`, normalised to mean 0 and variance 1, times gain, plus bias. A warp a row.
extern "C" __global__ void add_norm(
    const T* x, const T* y, const float* before, const float* gain, const float* bias, T* to, u32 n_rows, u32 width,
    float epsilon) {
    u32 row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= n_rows) return;
    size_t at = (size_t)row * width;
    x += at, y += at, to += at;
    if (width == 384) norm_in_registers<3>(x, y, before, gain, bias, to, epsilon);
    else if (width == 768) norm_in_registers<6>(x, y, before, gain, bias, to, epsilon);
    else if (width == 1024) norm_in_registers<8>(x, y, before, gain, bias, to, epsilon);
    else if (width % 4 == 0) norm_of_row<4>(x, y, before, gain, bias, to, width, epsilon);
    else norm_of_row<1>(x, y, before, gain, bias, to, width, epsilon);
}

// Some queries of a text: the row of the first, and the rows of the text.
struct Tile { u32 first, begin, length; };

#define QUERIES 16

// Attention of any head up to 32 N wide: lanes are dimensions, keys come one by one, and the largest score so far is
// what exponents are taken against (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
template <int N> INLINE void attend_by_lanes(
    const T* qkv, const float* bias, Tile tile, T* to, u32 hidden, u32 from, u32 head, float scale) {
    u32 end = min(tile.first + QUERIES, tile.begin + tile.length);
    for (u32 query = tile.first; query < end; query++) {
        float q[N], mixed[N], largest = LEAST, total = 0.0f;
#pragma unroll
        for (int i = 0; i < N; i++) {
            u32 dim = i * WARP + threadIdx.x;
            q[i] = dim < head ? wide(narrow(wide(qkv[(size_t)query * 3 * hidden + from + dim]) + bias[from + dim])) * scale : 0.0f;
            mixed[i] = 0.0f;
        }
        for (u32 key = tile.begin; key < tile.begin + tile.length; key++) {
            const T* k = qkv + (size_t)key * 3 * hidden + hidden + from;
            const T* v = k + hidden;
            float score = 0.0f;
#pragma unroll
            for (int i = 0; i < N; i++) {
                u32 dim = i * WARP + threadIdx.x;
                if (dim < head) score += q[i] * wide(k[dim]);
            }
            score = sum_of_warp(score);
            float now = fmaxf(largest, score);
            float kept = exp2f(largest - now), weight = exp2f(score - now);
            largest = now;
            total = total * kept + weight;
#pragma unroll
            for (int i = 0; i < N; i++) {
                u32 dim = i * WARP + threadIdx.x;
                if (dim < head) mixed[i] = mixed[i] * kept + weight * wide(v[dim]);
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            u32 dim = i * WARP + threadIdx.x;
            if (dim < head) to[(size_t)query * hidden + from + dim] = narrow(mixed[i] / total);
        }
    }
}

#if !defined(F32) && __CUDA_ARCH__ >= 800
#if defined(F16)
INLINE u32 pair(float low, float high) { u32 y; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y; }
#define KIND "f16"
#else
INLINE u32 pair(float low, float high) { u32 y; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y; }
#define KIND "bf16"
#endif

// `sums += a b` of 16 x 16 by 16 x 8. With g = lane / 4 and t = lane % 4, a lane has of `a` columns 2t, 2t + 1 of rows
// g and g + 8, then the same of columns 8 on; of `b` rows 2t, 2t + 1 of column g, then the same of rows 8 on; of the
// sums columns 2t, 2t + 1 of row g, then of row g + 8.
INLINE void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// `n` numbers at once, two to a word.
template <int N> struct alignas(N * 2) Words { u32 at[N / 2]; };

// Attention on matrix units: a warp has 16 queries of a head, and takes 32 keys at a time (Dao et al.,
// "FlashAttention", 2022). What is past a text's end is read from its last row, and weighs nothing.
//
// The order of dimensions is the lanes' own, so that what a lane has of a row lies together: of queries and keys a
// quarter, since a sum may be taken in any order; of values an eighth, and of what is mixed a quarter.
template <int HEAD> INLINE void attend_by_tiles(
    const T* qkv, const float* bias, Tile tile, T* to, u32 hidden, u32 from, float scale) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const size_t stride = 3 * (size_t)hidden;
    const u32 last = tile.begin + tile.length - 1;
    const u32 rows[2] = {tile.first + g, tile.first + g + 8};
    const u32 quarter = from + t * (HEAD / 4);
    u32 q[HEAD / 16][4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const T* query = qkv + min(rows[half], last) * stride + quarter;
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
            q[i / 2][i % 2 * 2 + half] = pair(
                wide(query[2 * i]) + bias[quarter + 2 * i], wide(query[2 * i + 1]) + bias[quarter + 2 * i + 1]);
    }
    float mixed[HEAD / 8][4] = {}, largest[2] = {LEAST, LEAST}, totals[2] = {};
    const T* keys = qkv + tile.begin * stride + hidden + quarter;
    const T* values = qkv + tile.begin * stride + 2 * hidden + from + g * (HEAD / 8);
    for (u32 at = 0; at < tile.length; at += 32) {
        float scores[4][4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (at + j * 8 < tile.length) {
                const T* row = keys + min(at + j * 8 + g, tile.length - 1) * stride;
#pragma unroll
                for (int part = 0; part < HEAD / 32; part++) {
                    const Words<8> key = *(const Words<8>*)(row + part * 8);
                    multiply(scores[j], q[2 * part], key.at[0], key.at[1]);
                    multiply(scores[j], q[2 * part + 1], key.at[2], key.at[3]);
                }
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores[j][i] = at + j * 8 + 2 * t + i % 2 < tile.length ? scores[j][i] * scale : LEAST;
        }
        float kept[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float now = largest[half];
#pragma unroll
            for (int j = 0; j < 4; j++) now = fmaxf(now, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
            now = fmaxf(now, __shfl_xor_sync(ALL, now, 1));
            now = fmaxf(now, __shfl_xor_sync(ALL, now, 2));
            kept[half] = exp2f(largest[half] - now);
            largest[half] = now;
            totals[half] *= kept[half];
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    scores[j][i] = exp2f(scores[j][i] - now);
                    totals[half] += scores[j][i];
                }
        }
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) mixed[n][i] *= kept[i / 2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (at + k * 16 >= tile.length) break;
            const u32 weights[4] = {
                pair(scores[2 * k][0], scores[2 * k][1]), pair(scores[2 * k][2], scores[2 * k][3]),
                pair(scores[2 * k + 1][0], scores[2 * k + 1][1]), pair(scores[2 * k + 1][2], scores[2 * k + 1][3])};
            Words<HEAD / 8> value[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 key = min(at + k * 16 + i / 2 * 8 + 2 * t + i % 2, tile.length - 1);
                value[i] = *(const Words<HEAD / 8>*)(values + key * stride);
            }
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++) {
                // The lower halves of two words, or the upper ones.
                const u32 halves = n % 2 ? 0x7632 : 0x5410;
                multiply(mixed[n], weights, __byte_perm(value[0].at[n / 2], value[1].at[n / 2], halves),
                         __byte_perm(value[2].at[n / 2], value[3].at[n / 2], halves));
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = totals[half];
        total += __shfl_xor_sync(ALL, total, 1);
        total += __shfl_xor_sync(ALL, total, 2);
        if (rows[half] > last) continue;
        const float share = 1.0f / total;
        T* row = to + (size_t)rows[half] * hidden + quarter;
#pragma unroll
        for (int n = 0; n < HEAD / 8; n += 2)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++)
                *(u32*)(row + i % 2 * (HEAD / 8) + n) = pair(mixed[n][i] * share, mixed[n + 1][i] * share);
    }
}
#endif

// `softmax(scale (Q + bias) K') V` of each head and text; Q, K and V lie side by side. A warp a head and tile. `scale` has the
// factor for exponents of 2.
extern "C" __global__ void attend(
    const T* qkv, const float* bias, const Tile* tiles, T* to, u32 n_heads, u32 head, float scale) {
    u32 at = blockIdx.y * blockDim.y + threadIdx.y;
    if (at >= n_heads) return;
    Tile tile = tiles[blockIdx.x];
    u32 hidden = n_heads * head, from = at * head;
#if !defined(F32) && __CUDA_ARCH__ >= 800
    if (head == 32) return attend_by_tiles<32>(qkv, bias, tile, to, hidden, from, scale);
    if (head == 64) return attend_by_tiles<64>(qkv, bias, tile, to, hidden, from, scale);
#endif
    if (head <= 32) attend_by_lanes<1>(qkv, bias, tile, to, hidden, from, head, scale);
    else if (head <= 64) attend_by_lanes<2>(qkv, bias, tile, to, hidden, from, head, scale);
    else attend_by_lanes<8>(qkv, bias, tile, to, hidden, from, head, scale);
}

// The mean of each text's states, or the first, made of length 1. A block a text.
extern "C" __global__ void pool(const T* states, const u32* begins, float* to, u32 width, u32 first_token) {
    __shared__ double squares_of_warp[WARP];
    u32 begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];
    if (first_token) end = min(begin + 1, end);
    float* row = to + (size_t)blockIdx.x * width;
    double squares = 0.0;
    for (u32 col = threadIdx.x; col < width; col += blockDim.x) {
        float sum = 0.0f;
        for (u32 at = begin; at < end; at++) sum += wide(states[(size_t)at * width + col]);
        row[col] = sum;
        squares += (double)sum * sum;
    }
    for (int far = WARP / 2; far > 0; far /= 2) squares += __shfl_xor_sync(ALL, squares, far);
    if (threadIdx.x % WARP == 0) squares_of_warp[threadIdx.x / WARP] = squares;
    __syncthreads();
    squares = 0.0;
    for (int warp = 0; warp < blockDim.x / WARP; warp++) squares += squares_of_warp[warp];
    double norm = fmax(sqrt(squares), 1e-12);
    for (u32 col = threadIdx.x; col < width; col += blockDim.x) row[col] = (float)(row[col] / norm);
}
