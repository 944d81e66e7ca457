// Networks evaluated a block of rows at a time: products, biases and activations without a pass over memory between them.
//
// Rows are the lanes of the vectors. A layer is computed in tiles of UNITS outputs by a panel of VECTORS * LANES rows, which stay in
// registers, activation included. A block has so many panels that its activations and one layer's weights stay in a core's second
// cache. Every row is computed by the same operations in the same order, whatever the other rows are.

#include <algorithm>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#ifndef UNITS
#define UNITS 4  // even; fused.py says it, too
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int VECTORS = 3;  // with 4 UNITS, 12 sums and 4 operands: the 16 vector registers of AVX2
constexpr long PANEL = VECTORS * LANES, PANELS = 10, BLOCK = PANELS * PANEL;

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int ints __attribute__((vector_size(4 * LANES)));

inline floats spread(float value) { return value - floats{}; }

// Keeps a vector in its register, where a compiler would rather read it again for each product.
inline void hold(floats& vector) {
#ifdef __x86_64__
    asm("" : "+v"(vector));
#endif
}

inline floats at_least(floats v, float bound) { return v < spread(bound) ? spread(bound) : v; }

// 2^t for t < 127, and 2^-126 for t below that; a polynomial on [-1/2, 1/2], relative error below 3e-7.
inline floats power_of_two(floats t) {
    const floats shift = spread(12582912.0f);  // 1.5 * 2^23 rounds to an integer
    t = at_least(t, -126.0f);
    const floats rounded = t + shift, f = t - (rounded - shift);
    floats p = 1.3202982e-3f * f + 9.6749524e-3f;
    p = p * f + 5.5510472e-2f;
    p = p * f + 2.4022166e-1f;
    p = p * f + 6.9314659e-1f;
    p = p * f + 1.0f;
    return reinterpret_cast<floats>((reinterpret_cast<ints>(rounded) << 23) + reinterpret_cast<ints>(p));
}

// Two outputs of the same rows at a time, because they can share a division: 1/a = b/(ab). Inputs are clamped where the function
// has come to its limit, so that neither factor exceeds 2^63 and nothing large is multiplied by something small.
struct Silu {
    static void apply(floats& x, floats& y) {
        x = at_least(x, -43.0f);
        y = at_least(y, -43.0f);
        const floats a = 1.0f + power_of_two(x * -1.4426950408889634f), b = 1.0f + power_of_two(y * -1.4426950408889634f);
        const floats inverse = 1.0f / (a * b);
        x *= b * inverse;
        y *= a * inverse;
    }
};

struct Tanh {
    static void apply(floats& x, floats& y) {
        x = at_least(x, -21.0f);
        y = at_least(y, -21.0f);
        const floats a = 1.0f + power_of_two(x * -2.8853900817779268f), b = 1.0f + power_of_two(y * -2.8853900817779268f);
        const floats inverse = 2.0f / (a * b);
        x = b * inverse - 1.0f;
        y = a * inverse - 1.0f;
    }
};

struct Relu {
    static void apply(floats& x, floats& y) {
        x = x < floats{} ? floats{} : x;
        y = y < floats{} ? floats{} : y;
    }
};

// h [inputs, PANEL] -> out [outputs, PANEL]; w has for each tile UNITS biases, then UNITS weights for each input.
void products(const float* __restrict__ w, const floats* __restrict__ h, floats* __restrict__ out, long inputs, long tiles) {
    for (long t = 0; t < tiles; t++, out += UNITS * VECTORS) {
        floats sum[UNITS][VECTORS];
#pragma GCC unroll 4
        for (int u = 0; u < UNITS; u++)
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; v++) sum[u][v] = spread(w[u]);
        w += UNITS;
        for (long k = 0; k < inputs; k++, w += UNITS) {
            floats row[VECTORS];
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; v++) hold(row[v] = h[k * VECTORS + v]);
#pragma GCC unroll 4
            for (int u = 0; u < UNITS; u++)
#pragma GCC unroll 3
                for (int v = 0; v < VECTORS; v++) sum[u][v] += w[u] * row[v];
        }
#pragma GCC unroll 4
        for (int u = 0; u < UNITS; u++)
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; v++) out[u * VECTORS + v] = sum[u][v];
    }
}

// While the panel is in the first cache; in a loop of its own, whose constants would take registers from the products.
template <typename Activation>
void activate(floats* h, long vectors) {
    for (long i = 0; i < vectors; i += 2 * VECTORS)
        for (int v = 0; v < VECTORS; v++) Activation::apply(h[i + v], h[i + VECTORS + v]);
}

constexpr void (*ACTIVATIONS[])(floats*, long) = {activate<Silu>, activate<Tanh>, activate<Relu>};  // in the order of fused.py

struct Networks {
    const float* x;              // [sets, rows, inputs], x_step floats from one set to the next
    const float* const* packed;  // one per layer, [sets or 1, tiles, 1 + inputs, UNITS], steps[l] floats from one set to the next
    const long *steps, *widths;  // widths: inputs, hidden layers, outputs
    float* out;                  // [sets, rows, outputs]
    long x_step, layers, sets, rows;
    void (*activation)(floats*, long);

    long blocks() const { return (rows + BLOCK - 1) / BLOCK; }

    void evaluate(long set, long first, floats* now, floats* next, long stride) const {
        const long count = std::min(BLOCK, rows - first), panels = (count + PANEL - 1) / PANEL;
        const long inputs = widths[0], outputs = widths[layers];
        const float* from = x + set * x_step + first * inputs;
        for (long row = 0; row < panels * PANEL; row++) {
            float* lane = reinterpret_cast<float*>(now + row / PANEL * stride) + row % PANEL;
            for (long d = 0; d < inputs; d++) lane[d * PANEL] = row < count ? from[row * inputs + d] : 0.0f;
        }
        for (long l = 0; l < layers; l++, std::swap(now, next)) {
            const long tiles = (widths[l + 1] + UNITS - 1) / UNITS;
            for (long p = 0; p < panels; p++) {
                products(packed[l] + set * steps[l], now + p * stride, next + p * stride, widths[l], tiles);
                if (l + 1 < layers) activation(next + p * stride, tiles * UNITS * VECTORS);
            }
        }
        float* to = out + (set * rows + first) * outputs;
        for (long row = 0; row < count; row++) {
            const float* lane = reinterpret_cast<const float*>(now + row / PANEL * stride) + row % PANEL;
            for (long e = 0; e < outputs; e++) to[row * outputs + e] = lane[e * PANEL];
        }
    }

    // Blocks `first` to `last`, counted over all sets.
    void work(long first, long last, floats* spare, long stride) const {
        for (long b = first; b < last; b++) evaluate(b / blocks(), b % blocks() * BLOCK, spare, spare + PANELS * stride, stride);
    }
};

// Threads that are waited for, whatever happens.
struct Crew {
    std::vector<std::thread> threads;
    ~Crew() {
        for (std::thread& thread : threads) thread.join();
    }
};

}  // namespace

// Evaluate all sets at all rows with so many threads, or with as many of them as can be had; returns 1 where memory cannot, else 0.
extern "C" int fused_networks(const float* x, long x_step, const float* const* packed, const long* steps, const long* widths,
                              long layers, long sets, long rows, int activation, int threads, float* out) {
    const Networks networks{x, packed, steps, widths, out, x_step, layers, sets, rows, ACTIVATIONS[activation]};
    const long widest = *std::max_element(widths, widths + layers + 1), stride = (widest + UNITS - 1) / UNITS * UNITS * VECTORS;
    const long blocks = sets * networks.blocks(), parts = std::max(1L, std::min<long>(threads, blocks));
    try {
        const std::unique_ptr<floats[]> spare(new floats[parts * 2 * PANELS * stride]);
        Crew others;
        others.threads.reserve(parts - 1);
        long begun = 1;
        try {
            for (; begun < parts; begun++)
                others.threads.emplace_back(&Networks::work, &networks, blocks * begun / parts, blocks * (begun + 1) / parts,
                                            spare.get() + begun * 2 * PANELS * stride, stride);
        } catch (...) {  // no more threads: their parts are done below
        }
        networks.work(0, blocks / parts, spare.get(), stride);
        networks.work(blocks * begun / parts, blocks, spare.get(), stride);
    } catch (...) {
        return 1;
    }
    return 0;
}
