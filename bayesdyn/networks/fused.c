/* A whole network for a block of rows at a time: products, biases and activations without a pass over memory between them.

   Rows are the lanes of the vectors. A panel is VECTORS * LANES rows; a layer is computed in tiles of UNITS units by one panel, in
   registers. A block is so many panels that its activations and one layer's weights stay in a core's second cache. Every row is
   computed by the same operations in the same order, wherever it stands. */

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#ifndef VECTORS
#define VECTORS 3
#define UNITS 4
#endif
#define PANEL (VECTORS * LANES)
#ifndef PANELS
#define PANELS 5
#endif
#define MOST_THREADS 64
#define UNROLL _Pragma("GCC unroll 8")

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int ints __attribute__((vector_size(4 * LANES)));

enum { SILU, TANH, RELU };

typedef struct {
    const float *x;           /* [sets, rows, widths[0]], `x_step` apart for each set */
    const float *const *layer; /* [layers], each [sets, tiles, (1 + inputs) * UNITS]: a tile's biases, then its weights */
    const long *layer_step;   /* floats from one set to the next, 0 where all share them */
    const long *widths;       /* [layers + 1] */
    float *out;               /* [sets, rows, widths[layers]] */
    long sets, rows, x_step, layers, widest;
    int activation;
} Network;

static inline floats choose(ints where, floats yes, floats no) {
    return (floats)(((ints)yes & where) | ((ints)no & ~where));
}

static inline floats clamp(floats v, float low, float high) {
    const floats lowest = low - (floats){}, highest = high - (floats){};
    v = choose(v < lowest, lowest, v);
    return choose(v > highest, highest, v);
}

/* 2^t by a polynomial on [-1/2, 1/2], relative error below 2e-7; t is clamped to the exponents of normal numbers. */
static inline floats exp2_of(floats t) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    t = clamp(t, -126.0f, 126.0f);
    floats rounded = t + shift;
    floats f = t - (rounded - shift);
    floats p = 1.5403530e-4f * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    ints exponent = ((ints)rounded << 23) + (ints)p;
    return (floats)exponent;
}

static inline floats activate(floats v, int activation) {
    if (activation == RELU) return choose(v < (floats){}, (floats){}, v);
    if (activation == TANH) return 1.0f - 2.0f / (1.0f + exp2_of(v * 2.885390081777927f)) + 0.0f * v;
    return v / (1.0f + exp2_of(v * -1.4426950408889634f));
}

/* One tile: UNITS outputs of a panel, h [inputs, PANEL] -> out [UNITS, PANEL]; w holds UNITS biases, then UNITS weights per input. */
static inline void tile(const float *restrict w, const floats *restrict h, floats *restrict out, long inputs, int activation, int last) {
    floats sum[UNITS][VECTORS];
    UNROLL for (int u = 0; u < UNITS; u++) UNROLL for (int v = 0; v < VECTORS; v++) sum[u][v] = w[u] - (floats){};
    for (long k = 0; k < inputs; k++) {
        w += UNITS;
        floats row[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) row[v] = *h++;
        UNROLL for (int u = 0; u < UNITS; u++) UNROLL for (int v = 0; v < VECTORS; v++) sum[u][v] += w[u] * row[v];
    }
    UNROLL for (int u = 0; u < UNITS; u++) UNROLL for (int v = 0; v < VECTORS; v++)
        out[u * VECTORS + v] = last ? sum[u][v] : activate(sum[u][v], activation);
}

/* Kept apart for each activation, so that the choice is made at compile time. */
#define LAYER(NAME, ACTIVATION, LAST)                                                                          \
    static void NAME(const float *w, const float *h, float *out, long inputs, long tiles) {                    \
        for (long t = 0; t < tiles; t++) tile(w + t * (1 + inputs) * UNITS, (const floats *)h, (floats *)(out + t * UNITS * PANEL), inputs, ACTIVATION, LAST); \
    }
LAYER(silu_layer, SILU, 0)
LAYER(tanh_layer, TANH, 0)
LAYER(relu_layer, RELU, 0)
LAYER(last_layer, RELU, 1)

static void block(const Network *net, long set, long first, long count, float *spare) {
    static void (*const hidden[])(const float *, const float *, float *, long, long) = {silu_layer, tanh_layer, relu_layer};
    const long D = net->widths[0], columns = net->widths[net->layers], panels = (count + PANEL - 1) / PANEL;
    const float *x = net->x + set * net->x_step + first * D;
    float *now = spare, *next = spare + PANELS * net->widest * PANEL;
    for (long row = 0; row < panels * PANEL; row++)
        for (long d = 0; d < D; d++)
            now[(row / PANEL) * net->widest * PANEL + d * PANEL + row % PANEL] = row < count ? x[row * D + d] : 0.0f;
    for (long l = 0; l < net->layers; l++) {
        const float *w = net->layer[l] + set * net->layer_step[l];
        const long tiles = (net->widths[l + 1] + UNITS - 1) / UNITS;
        for (long p = 0; p < panels; p++)
            (l + 1 == net->layers ? last_layer : hidden[net->activation])(
                w, now + p * net->widest * PANEL, next + p * net->widest * PANEL, net->widths[l], tiles);
        float *swap = now;
        now = next, next = swap;
    }
    float *out = net->out + (set * net->rows + first) * columns;
    for (long row = 0; row < count; row++)
        for (long c = 0; c < columns; c++)
            out[row * columns + c] = now[(row / PANEL) * net->widest * PANEL + c * PANEL + row % PANEL];
}

typedef struct {
    const Network *net;
    long first, last;
    int failed;
} Share;

/* Blocks `first` to `last` of all sets' blocks, in order. */
static void *work(void *argument) {
    Share *share = argument;
    const Network *net = share->net;
    const long size = PANELS * PANEL, blocks = (net->rows + size - 1) / size;
    void *spare;
    share->failed = posix_memalign(&spare, 64, sizeof(float) * 2 * PANELS * net->widest * PANEL);
    if (share->failed) return NULL;
    for (long b = share->first; b < share->last; b++) {
        const long row = b % blocks * size;
        block(net, b / blocks, row, row + size < net->rows ? size : net->rows - row, spare);
    }
    free(spare);
    return NULL;
}

/* Sizes that the packing of the weights has to follow. */
int units_per_tile(void) { return UNITS; }

/* Evaluate all sets at all rows; returns 0, or 1 without memory. */
int evaluate(const float *x, long x_step, const float *const *layer, const long *layer_step, const long *widths, long layers,
             long sets, long rows, int activation, int threads, float *out) {
    Network net = {x, layer, layer_step, widths, out, sets, rows, x_step, layers, 0, activation};
    for (long l = 0; l <= layers; l++) {
        const long padded = (widths[l] + UNITS - 1) / UNITS * UNITS;
        if (padded > net.widest) net.widest = padded;
    }
    const long size = PANELS * PANEL, total = sets * ((rows + size - 1) / size);
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > total) threads = total > 0 ? (int)total : 1;
    Share share[MOST_THREADS];
    pthread_t thread[MOST_THREADS];
    int started[MOST_THREADS], failed = 0;
    for (int i = 0; i < threads; i++) share[i] = (Share){&net, total * i / threads, total * (i + 1) / threads, 0};
    for (int i = 1; i < threads; i++) started[i] = pthread_create(&thread[i], NULL, work, &share[i]) == 0;
    work(&share[0]);
    for (int i = 1; i < threads; i++) {
        if (started[i]) pthread_join(thread[i], NULL);
        else work(&share[i]);
    }
    for (int i = 0; i < threads; i++) failed |= share[i].failed;
    return failed;
}
