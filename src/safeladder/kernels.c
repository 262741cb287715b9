/* The passes between the matrix products of a Llama-shaped block: float32, row-major; `ld_x` is the distance between
 * rows of x. kernels.py compiles this file on first use, says when it applies, and documents every function.
 *
 * Loops over elements are plain C for the compiler to vectorise; attention is written in vectors of eight. NaN and
 * infinity pass through, as they do in torch: the learner's guard against them looks at the loss.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));

#define PARALLEL(threads) _Pragma("omp parallel for num_threads(threads) schedule(static)")

/* e^x for x <= 0 to 2 units in the last place (Cephes' polynomial); 0 below the smallest normal number. */
static inline float exp_(float x) {
    float n = rintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : p * power;
}

static inline float sigmoid_(float x) {
    float e = exp_(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

static inline float sum8(v8 x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }

void unit(int64_t n, int64_t size, float eps, const float *x, const float *weight, float *out, float *scale,
          int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + i * size;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < size; j++) squares += row[j] * row[j];
        float s = 1.0f / sqrtf(squares / size + eps);
        if (scale) scale[i] = s;
        if (weight) {
#pragma omp simd
            for (int64_t j = 0; j < size; j++) out[i * size + j] = row[j] * s * weight[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < size; j++) out[i * size + j] = row[j] * s;
        }
    }
}

void unit_backward(int64_t n, int64_t size, const float *gradient, const float *unit, const float *scale,
                   const float *before, float *out, int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        const float *g = gradient + i * size, *u = unit + i * size, *b = before + i * size;
        float along = 0, s = scale[i];
#pragma omp simd reduction(+ : along)
        for (int64_t j = 0; j < size; j++) along += g[j] * u[j];
        along /= size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++) out[i * size + j] = b[j] + (g[j] - u[j] * along) * s;
    }
}

void swiglu(int64_t n, int64_t size, const float *both, float *out, int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        const float *gate = both + 2 * i * size, *up = gate + size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++) out[i * size + j] = gate[j] * sigmoid_(gate[j]) * up[j];
    }
}

void swiglu_backward(int64_t n, int64_t size, const float *both, const float *gradient, float *out, int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        const float *gate = both + 2 * i * size, *up = gate + size, *g = gradient + i * size;
        float *d_gate = out + 2 * i * size, *d_up = d_gate + size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++) {
            float s = sigmoid_(gate[j]), silu = gate[j] * s;
            d_up[j] = g[j] * silu;
            d_gate[j] = g[j] * up[j] * s * (1.0f + gate[j] - silu);
        }
    }
}

void rotate(int64_t n, int64_t heads, int64_t half, int64_t ld_x, float sign, const float *turn, float *x,
            int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++)
        for (int64_t h = 0; h < heads; h++) {
            float *pair = x + i * ld_x + h * 2 * half;
            const float *t = turn + i * 2 * half;
#pragma omp simd
            for (int64_t j = 0; j < half; j++) {
                float a = pair[2 * j], b = pair[2 * j + 1], c = t[2 * j], s = sign * t[2 * j + 1];
                pair[2 * j] = a * c - b * s;
                pair[2 * j + 1] = a * s + b * c;
            }
        }
}

void log_softmax(int64_t n, int64_t size, const int64_t *targets, float *logits, float *logprobs, float *entropy,
                 int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        float *row = logits + i * size;
        float most = row[0], total = 0, weighted = 0, chosen = row[targets[i]];
#pragma omp simd reduction(max : most)
        for (int64_t j = 0; j < size; j++) most = row[j] > most ? row[j] : most;
#pragma omp simd reduction(+ : total, weighted)
        for (int64_t j = 0; j < size; j++) {
            float below = row[j] - most, e = exp_(below);
            row[j] = e;
            total += e;
            weighted += e * below;
        }
        float share = 1.0f / total;
#pragma omp simd
        for (int64_t j = 0; j < size; j++) row[j] *= share;
        logprobs[i] = chosen - most - logf(total);
        entropy[i] = logf(total) - weighted * share;
    }
}

void log_softmax_backward(int64_t n, int64_t size, const int64_t *targets, const float *probabilities,
                          const float *gradient, float *out, int threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < n; i++) {
        float g = gradient[i];
#pragma omp simd
        for (int64_t j = 0; j < size; j++) out[i * size + j] = probabilities[i * size + j] * -g;
        out[i * size + targets[i]] += g;
    }
}

/* Matrix products c [m][n] = start + a·b. b is packed: panels of 16 columns, each [depth][16], the last one filled up
 * with zeros. An element is one sum over the depth, in order, whatever the number of rows. a has its depth side by side
 * (step_a 1), or its rows (ld_a 1). `start` may be NULL, or one row for all (ld_start 0), or c itself.
 */
#define PANEL 16
#define TILE 6

#define PRODUCT(ROWS)                                                                                              \
    static inline __attribute__((always_inline)) void product##ROWS(                                               \
        int64_t depth, int64_t width, const float *a, int64_t ld_a, int64_t step_a, const float *panel,            \
        const float *start, int64_t ld_start, float *c, int64_t ld_c) {                                            \
        v8 sum[ROWS][2];                                                                                           \
        _Pragma("GCC unroll 6") for (int i = 0; i < ROWS; i++) sum[i][0] = sum[i][1] = (v8){0};                    \
        for (int64_t k = 0; k < depth; k++) {                                                                      \
            v8 left = *(const v8 *)(panel + k * PANEL), right = *(const v8 *)(panel + k * PANEL + 8);              \
            _Pragma("GCC unroll 6") for (int i = 0; i < ROWS; i++) {                                               \
                float factor = a[i * ld_a + k * step_a];                                                           \
                sum[i][0] += factor * left, sum[i][1] += factor * right;                                           \
            }                                                                                                      \
        }                                                                                                          \
        _Pragma("GCC unroll 6") for (int i = 0; i < ROWS; i++) {                                                   \
            const float *from = start ? start + i * ld_start : NULL;                                               \
            float *to = c + i * ld_c;                                                                              \
            if (width == PANEL) {                                                                                  \
                if (from) sum[i][0] += *(const v8 *)from, sum[i][1] += *(const v8 *)(from + 8);                    \
                *(v8 *)to = sum[i][0], *(v8 *)(to + 8) = sum[i][1];                                                \
            } else                                                                                                 \
                for (int64_t j = 0; j < width; j++) to[j] = (from ? from[j] : 0.0f) + sum[i][j / 8][j % 8];        \
        }                                                                                                          \
    }
PRODUCT(1) PRODUCT(2) PRODUCT(3) PRODUCT(4) PRODUCT(5) PRODUCT(6)

/* A panel's columns of the product. */
static inline void columns(int64_t m, int64_t depth, int64_t width, const float *a, int64_t ld_a, int64_t step_a,
                           const float *panel, const float *start, int64_t ld_start, float *c, int64_t ld_c) {
    for (int64_t i = 0; i < m; i += TILE) {
        const float *rows = a + i * ld_a, *from = start ? start + i * ld_start : NULL;
        float *out = c + i * ld_c;
        switch (m - i) {
        case 1: product1(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c); break;
        case 2: product2(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c); break;
        case 3: product3(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c); break;
        case 4: product4(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c); break;
        case 5: product5(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c); break;
        default: product6(depth, width, rows, ld_a, step_a, panel, from, ld_start, out, ld_c);
        }
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#define WHOLE(count) (((count) + PANEL - 1) / PANEL * PANEL)

typedef struct {
    int64_t start, size, before, context;
} span; /* a row's own tokens, and the tokens of the prompt that it sees as well */

static int64_t token(const span *s, int64_t k) { return k < s->context ? s->before + k : s->start + k - s->context; }

/* Keys or values of a row as the b of products with queries: panels [size][16] of keys, zeros after the last. */
static void as_columns(const span *s, int64_t size, const float *x, int64_t ld_x, float *out) {
    int64_t keys = s->context + s->size;
    for (int64_t k = 0; k < WHOLE(keys); k++) {
        const float *row = k < keys ? x + token(s, k) * ld_x : NULL;
        float *to = out + k / PANEL * PANEL * size + k % PANEL;
        for (int64_t c = 0; c < size; c++) to[c * PANEL] = row ? row[c] : 0.0f;
    }
}

/* `count` rows [size] as the b of products over them: panels [count][16] of their elements. */
static void panels(int64_t count, int64_t size, const float *x, int64_t ld_x, float *out, int64_t ld_out) {
    for (int64_t c = 0; c < size; c += PANEL)
        for (int64_t k = 0; k < count; k++)
            for (int64_t i = 0; i < PANEL; i++)
                out[c * ld_out + k * PANEL + i] = c + i < size ? x[k * ld_x + c + i] : 0.0f;
}

static void as_rows(const span *s, int64_t size, const float *x, int64_t ld_x, float *out) {
    int64_t keys = s->context + s->size;
    panels(s->context, size, x + s->before * ld_x, ld_x, out, keys);
    panels(s->size, size, x + s->start * ld_x, ld_x, out + s->context * PANEL, keys);
}

static int64_t widest(int64_t rows, const span *spans) {
    int64_t most = 0;
    for (int64_t r = 0; r < rows; r++) {
        int64_t keys = spans[r].context + spans[r].size;
        most = keys > most ? keys : most;
    }
    return WHOLE(most);
}

/* Products of `count` queries (or gradients) x with the columns of all keys that the last of them sees. */
static void against(int64_t count, int64_t keys, int64_t size, const float *x, int64_t ld_x, const float *columns_,
                    float *out, int64_t ld_out) {
    for (int64_t k = 0; k < keys; k += PANEL)
        columns(count, size, PANEL, x, ld_x, 1, columns_ + k * size, NULL, 0, out + k, ld_out);
}

/* out [m][size] = start + weights·rows, where a row of weights counts from `first` of `depth` on. */
static void weighted(int64_t m, int64_t first, int64_t depth, int64_t size, const float *weights, int64_t ld_weights,
                     int64_t step, const float *rows, int64_t count, const float *start, float *out, int64_t ld_out) {
    for (int64_t c = 0; c < size; c += PANEL)
        columns(m, depth - first, least(size - c, PANEL), weights + first * step, ld_weights, step,
                rows + c * count + first * PANEL, start ? start + c : NULL, ld_out, out + c, ld_out);
}

int attend(int64_t rows, const span *spans, int64_t heads, int64_t kv_heads, int64_t size, int64_t ld_x,
           const float *x, float *out, float *lse, int threads) {
    int64_t most = widest(rows, spans), group = heads / kv_heads, failed = 0;
    float scale = 1.0f / sqrtf(size);
#pragma omp parallel num_threads(threads)
    {
        float *room = malloc((size_t)(most * size + most * WHOLE(size) + TILE * most) * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
        float *keys_ = room, *values = keys_ + most * size, *scores = values + most * WHOLE(size);
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t g = 0; g < kv_heads; g++) {
                if (!room) continue;
                const span *s = spans + r;
                as_columns(s, size, x + (heads + g) * size, ld_x, keys_);
                as_rows(s, size, x + (heads + kv_heads + g) * size, ld_x, values);
                for (int64_t h = g * group; h < (g + 1) * group; h++)
                    for (int64_t t = 0; t < s->size; t += TILE) {
                        int64_t i = s->start + t, count = least(s->size - t, TILE), keys = s->context + t + count;
                        against(count, keys, size, x + i * ld_x + h * size, ld_x, keys_, scores, most);
                        for (int64_t q = 0; q < count; q++) {
                            float *row = scores + q * most, highest = -INFINITY, total = 0;
                            int64_t seen = keys - count + q + 1;
#pragma omp simd reduction(max : highest)
                            for (int64_t k = 0; k < seen; k++) highest = row[k] > highest ? row[k] : highest;
#pragma omp simd reduction(+ : total)
                            for (int64_t k = 0; k < seen; k++) total += row[k] = exp_((row[k] - highest) * scale);
                            float share = 1.0f / total;
#pragma omp simd
                            for (int64_t k = 0; k < seen; k++) row[k] *= share;
                            for (int64_t k = seen; k < keys; k++) row[k] = 0;
                            lse[(i + q) * heads + h] = highest * scale + logf(total);
                        }
                        weighted(count, 0, keys, size, scores, most, 1, values, s->context + s->size, NULL,
                                 out + (i * heads + h) * size, heads * size);
                    }
            }
        free(room);
    }
    return (int)failed;
}

/* Keys and values of a shared prompt gather gradients of all its rows, so threads split the heads, not the rows. */
int attend_backward(int64_t rows, const span *spans, int64_t heads, int64_t kv_heads, int64_t size, int64_t ld_x,
                    const float *x, const float *attended, const float *lse, const float *gradient, float *out,
                    int threads) {
    int64_t most = widest(rows, spans), group = heads / kv_heads, failed = 0, longest = 0, wide = WHOLE(size);
    float scale = 1.0f / sqrtf(size);
    for (int64_t r = 0; r < rows; r++) longest = spans[r].size > longest ? spans[r].size : longest;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t g = 0; g < kv_heads; g++) {
        float *room = malloc((size_t)(2 * most * size + most * wide + 2 * longest * (most + wide)) * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
            continue;
        }
        float *keys_ = room, *values = keys_ + most * size, *key_rows = values + most * size;
        float *p = key_rows + most * wide, *d = p + longest * most;
        float *queries = d + longest * most, *d_outs = queries + longest * wide;
        for (int64_t r = 0; r < rows; r++) {
            const span *s = spans + r;
            int64_t all = s->context + s->size;
            const float *key = x + (heads + g) * size, *value = x + (heads + kv_heads + g) * size;
            as_columns(s, size, key, ld_x, keys_);
            as_columns(s, size, value, ld_x, values);
            as_rows(s, size, key, ld_x, key_rows);
            for (int64_t h = g * group; h < (g + 1) * group; h++) {
                const float *query = x + s->start * ld_x + h * size;
                const float *d_o = gradient + (s->start * heads + h) * size;
                panels(s->size, size, query, ld_x, queries, s->size);
                panels(s->size, size, d_o, heads * size, d_outs, s->size);
                for (int64_t t = 0; t < s->size; t += TILE) {
                    int64_t i = s->start + t, count = least(s->size - t, TILE), keys = s->context + t + count;
                    against(count, keys, size, query + t * ld_x, ld_x, keys_, p + t * most, most);
                    against(count, keys, size, d_o + t * heads * size, heads * size, values, d + t * most, most);
                    for (int64_t q = 0; q < count; q++) {
                        const float *o = attended + ((i + q) * heads + h) * size, *d_oq = d_o + (t + q) * heads * size;
                        float *p_row = p + (t + q) * most, *d_row = d + (t + q) * most, delta = 0;
                        float normaliser = lse[(i + q) * heads + h];
                        int64_t seen = keys - count + q + 1;
#pragma omp simd reduction(+ : delta)
                        for (int64_t c = 0; c < size; c++) delta += o[c] * d_oq[c];
#pragma omp simd
                        for (int64_t k = 0; k < seen; k++) {
                            p_row[k] = exp_(p_row[k] * scale - normaliser);
                            d_row[k] = p_row[k] * (d_row[k] - delta) * scale;
                        }
                        for (int64_t k = seen; k < keys; k++) p_row[k] = d_row[k] = 0;
                    }
                    weighted(count, 0, keys, size, d + t * most, most, 1, key_rows, all, NULL,
                             out + i * ld_x + h * size, ld_x);
                }
                /* Keys of the prompt are seen by all of the row, its own ones from themselves on. */
                for (int64_t k = 0; k < all;) {
                    int64_t first = k < s->context ? 0 : k - s->context;
                    int64_t count = least((k < s->context ? s->context : all) - k, TILE);
                    first = first / TILE * TILE; /* later queries of a tile have zeros for keys that they do not see */
                    float *d_key = out + token(s, k) * ld_x + (heads + g) * size, *d_value = d_key + kv_heads * size;
                    weighted(count, first, s->size, size, d + k, 1, most, queries, s->size, d_key, d_key, ld_x);
                    weighted(count, first, s->size, size, p + k, 1, most, d_outs, s->size, d_value, d_value, ld_x);
                    k += count;
                }
            }
        }
        free(room);
    }
    return (int)failed;
}

/* out[c] = sum of weights[k] · rows[k][c] over k < count, c < size, a multiple of 8. */
static inline void combine(int64_t count, int64_t size, const float *weights, const float *rows, float *out) {
    int64_t c = 0;
    for (; c + 32 <= size; c += 32) {
        v8 sum[4] = {{0}};
        for (int64_t k = 0; k < count; k++)
            for (int j = 0; j < 4; j++) sum[j] += weights[k] * *(const v8 *)(rows + k * size + c + 8 * j);
        for (int j = 0; j < 4; j++) *(v8 *)(out + c + 8 * j) = sum[j];
    }
    for (; c < size; c += 8) {
        v8 sum = {0};
        for (int64_t k = 0; k < count; k++) sum += weights[k] * *(const v8 *)(rows + k * size + c);
        *(v8 *)(out + c) = sum;
    }
}

static void product(int64_t m, int64_t n, int64_t depth, const float *a, int64_t ld_a, const float *packed,
                    const float *start, int64_t ld_start, float *c, int64_t ld_c) {
    for (int64_t j = 0; j < n; j += PANEL)
        columns(m, depth, least(n - j, PANEL), a, ld_a, 1, packed + j * depth, start ? start + j : NULL, ld_start,
                c + j, ld_c);
}

/* A weight [n][depth] as the b of products x·weightᵀ. */
void pack(int64_t n, int64_t depth, const float *weight, float *out, int threads) {
    PARALLEL(threads)
    for (int64_t j = 0; j < n; j += PANEL)
        for (int64_t k = 0; k < depth; k++)
            for (int64_t i = 0; i < PANEL; i++)
                out[j * depth + k * PANEL + i] = j + i < n ? weight[(j + i) * depth + k] : 0.0f;
}

void project(int64_t m, int64_t n, int64_t depth, const float *x, const float *packed, const float *bias, float *out,
             int threads) {
    int64_t share = m ? (m + threads - 1) / threads : 1;
    PARALLEL(threads)
    for (int64_t i = 0; i < m; i += share)
        product(least(m - i, share), n, depth, x + i * depth, depth, packed, bias, 0, out + i * n, n);
}

typedef struct {
    int64_t heads, kv_heads, size, place, ld_row, ld_head; /* the cache's distances between rows and heads */
} cached;

/* Attention of one new token of one row: rotate its query and key, append key and value at `place`, attend to what is
 * `seen`. `room` holds place + 1 + size.
 */
static void attend_row(const cached *shape, const float *x, const float *c, const float *s, const uint8_t *seen,
                       float *keys, float *values, float *room, float *out) {
    int64_t size = shape->size, half = size / 2, place = shape->place, group = shape->heads / shape->kv_heads;
    float scale = 1.0f / sqrtf(size), *scores = room, *query = room + place + 1;
    for (int64_t g = 0; g < shape->kv_heads; g++) {
        float *key = keys + g * shape->ld_head, *value = values + g * shape->ld_head;
        const float *fresh = x + (shape->heads + g) * size;
        float *slot = key + place * size;
        for (int64_t j = 0; j < half; j++) {
            slot[j] = fresh[j] * c[j] - fresh[j + half] * s[j];
            slot[j + half] = fresh[j + half] * c[j + half] + fresh[j] * s[j + half];
        }
        memcpy(value + place * size, fresh + shape->kv_heads * size, size * sizeof(float));
        for (int64_t h = g * group; h < (g + 1) * group; h++) {
            const float *q = x + h * size;
            for (int64_t j = 0; j < half; j++) {
                query[j] = (q[j] * c[j] - q[j + half] * s[j]) * scale;
                query[j + half] = (q[j + half] * c[j + half] + q[j] * s[j + half]) * scale;
            }
            float highest = -INFINITY, total = 0;
            for (int64_t k = 0; k <= place; k++) {
                if (seen && !seen[k]) {
                    scores[k] = -INFINITY;
                    continue;
                }
                v8 sum = {0};
                for (int64_t j = 0; j < size; j += 8) sum += *(v8 *)(query + j) * *(v8 *)(key + k * size + j);
                scores[k] = sum8(sum);
                highest = scores[k] > highest ? scores[k] : highest;
            }
#pragma omp simd reduction(+ : total)
            for (int64_t k = 0; k <= place; k++) total += scores[k] = exp_(scores[k] - highest);
            float share = 1.0f / total;
#pragma omp simd
            for (int64_t k = 0; k <= place; k++) scores[k] *= share;
            combine(place + 1, size, scores, value, out + h * size);
        }
    }
}

int decode(int64_t rows, const cached *shape, const float *x, const float *cos, const float *sin,
           const uint8_t *visible, int64_t ld_visible, float *keys, float *values, float *out, int threads) {
    int64_t size = shape->size, wide = (shape->heads + 2 * shape->kv_heads) * size, failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *room = malloc((size_t)(shape->place + 1 + size) * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            if (room)
                attend_row(shape, x + r * wide, cos + r * size, sin + r * size,
                           visible ? visible + r * ld_visible : NULL, keys + r * shape->ld_row,
                           values + r * shape->ld_row, room, out + r * shape->heads * size);
        free(room);
    }
    return (int)failed;
}

typedef struct {
    const float *norm1, *qkv, *qkv_bias, *output, *norm2, *gate_up, *down;
    float *keys, *values;
} block; /* weights are packed */

#define TOGETHER 48 /* rows that go through a block at a time: what they need stays in the cache */

/* One new token a row through all blocks and the last norm; x [rows][hidden] in place. */
int step(int64_t rows, const cached *shape, int64_t hidden, int64_t inter, int64_t depth, float eps,
         const block *blocks, const float *norm, const float *cos, const float *sin, const uint8_t *visible,
         int64_t ld_visible, float *x, int threads) {
    int64_t size = shape->size, inner = shape->heads * size, wide = inner + 2 * shape->kv_heads * size, failed = 0;
    int64_t share = rows ? (rows + threads - 1) / threads : 1;
    share = least(share, TOGETHER);
#pragma omp parallel num_threads(threads)
    {
        size_t wanted = share * (hidden + wide + inner + 3 * inter) + shape->place + 1 + size;
        float *room = malloc(wanted * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
        float *y = room, *qkv = y + share * hidden, *attended = qkv + share * wide, *both = attended + share * inner;
        float *mixed = both + share * 2 * inter, *scores = mixed + share * inter;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < rows; first += share) {
            if (!room) continue;
            int64_t m = least(rows - first, share);
            float *h = x + first * hidden;
            for (const block *b = blocks; b < blocks + depth; b++) {
                unit(m, hidden, eps, h, b->norm1, y, NULL, 1);
                product(m, wide, hidden, y, hidden, b->qkv, b->qkv_bias, 0, qkv, wide);
                for (int64_t r = 0; r < m; r++) {
                    int64_t row = first + r;
                    attend_row(shape, qkv + r * wide, cos + row * size, sin + row * size,
                               visible ? visible + row * ld_visible : NULL, b->keys + row * shape->ld_row,
                               b->values + row * shape->ld_row, scores, attended + r * inner);
                }
                product(m, hidden, inner, attended, inner, b->output, h, hidden, h, hidden);
                unit(m, hidden, eps, h, b->norm2, y, NULL, 1);
                product(m, 2 * inter, hidden, y, hidden, b->gate_up, NULL, 0, both, 2 * inter);
                swiglu(m, inter, both, mixed, 1);
                product(m, hidden, inter, mixed, inter, b->down, h, hidden, h, hidden);
            }
            unit(m, hidden, eps, h, norm, h, NULL, 1);
        }
        free(room);
    }
    return (int)failed;
}

/* Log-probabilities in place of logits [rows][size], and one token a row: where the running sum of probabilities
 * passes `uniform` of their total, or the likeliest where uniform is negative. Sums run in blocks, for speed.
 */
#define SUMMED 64

int draw(int64_t rows, int64_t size, const float *uniform, float *logits, int64_t *tokens, int threads) {
    int64_t parts = (size + SUMMED - 1) / SUMMED, failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *room = malloc((size_t)(size + parts) * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
        float *likely = room, *sums = room + size;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            if (!room) continue;
            float *row = logits + i * size, most = row[0], total = 0;
#pragma omp simd reduction(max : most)
            for (int64_t j = 0; j < size; j++) most = row[j] > most ? row[j] : most;
            for (int64_t p = 0; p < parts; p++) {
                int64_t end = least((p + 1) * SUMMED, size);
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t j = p * SUMMED; j < end; j++) sum += likely[j] = exp_(row[j] - most);
                total += sums[p] = sum;
            }
            int64_t token = 0;
            if (uniform[i] < 0) {
                while (token < size - 1 && row[token] != most) token++;
            } else {
                float left = uniform[i] * total;
                int64_t p = 0, last = parts - 1;
                while (last > 0 && sums[last] == 0) last--;
                while (p < last && left >= sums[p]) left -= sums[p++];
                int64_t end = least((p + 1) * SUMMED, size);
                token = -1; /* rounding may leave a rest after the last token that is possible at all */
                for (int64_t j = p * SUMMED; j < end; j++) {
                    if (likely[j] == 0) continue;
                    token = j;
                    if (left < likely[j]) break;
                    left -= likely[j];
                }
            }
            tokens[i] = token < 0 ? 0 : token;
            float normaliser = most + logf(total);
#pragma omp simd
            for (int64_t j = 0; j < size; j++) row[j] -= normaliser;
        }
        free(room);
    }
    return (int)failed;
}

/* c = a·b of symmetric matrices [m][m] that commute, so that c is symmetric too: half of it is computed. */
static void symmetric(int64_t m, const float *a, const float *b, float *c, float *panel) {
    for (int64_t j = 0; j < m; j += PANEL) {
        int64_t width = least(m - j, PANEL);
        if (width < PANEL) memset(panel, 0, m * PANEL * sizeof(float));
        for (int64_t k = 0; k < m; k++)
            if (width == PANEL)
                memcpy(panel + k * PANEL, b + k * m + j, PANEL * sizeof(float));
            else
                memcpy(panel + k * PANEL, b + k * m + j, width * sizeof(float));
        columns(least(j + PANEL, m), m, width, a, m, 1, panel, NULL, 0, c + j, m);
        for (int64_t k = 0; k < width; k++)
            for (int64_t i = 0; i < j; i++) c[(j + k) * m + i] = c[i * m + j + k];
    }
}

/* The product of the polynomials p = a + b·gram + c·gram² of all steps, where gram <- p·gram·p; gram [count][m][m] is
 * lost.
 */
int newton_schulz(int64_t count, int64_t m, int64_t steps, float a, float b, float c, float *grams, float *totals,
                  int threads) {
    int64_t size = m * m, failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *room = malloc((size_t)(3 * size + m * PANEL) * sizeof(float));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t number = 0; number < count; number++) {
            if (!room) continue;
            float *gram = grams + number * size, *panel = room, *polynomial = room + m * PANEL;
            float *other = polynomial + size, *total = other + size;
            for (int64_t step = 0; step < steps; step++) {
                for (int64_t i = 0; i < size; i++) other[i] = c * gram[i];
                for (int64_t i = 0; i < m; i++) other[i * m + i] += b;
                float *here = step ? polynomial : total;
                symmetric(m, gram, other, here, panel);
                for (int64_t i = 0; i < m; i++) here[i * m + i] += a;
                if (step < steps - 1) {
                    symmetric(m, here, gram, other, panel);
                    symmetric(m, here, other, gram, panel);
                }
                if (step) {
                    symmetric(m, here, total, other, panel);
                    float *before = total;
                    total = other, other = before;
                }
            }
            memcpy(totals + number * size, total, size * sizeof(float));
        }
        free(room);
    }
    return (int)failed;
}
