// Sums of expm1(a_i . b_j) over all pairs of two sets of points, in registers: no matrix of pairs is ever stored.
//
// For each of `count` pairs of sets, with a and b transposed [width, size], w [size], v [factors, size], W [size, size]:
//     rows_i = sum_j W_ij E_ij w_j,     columns_dj = sum_i v_di W_ij E_ij,     E_ij = expm1(min(a_i . b_j, limit))
// W, where there is one, is lower triangular. `size` is a multiple of 4; points that only fill up have w = v = 0.

#include <cstring>

typedef double Four __attribute__((vector_size(32)));
typedef long long Bits __attribute__((vector_size(32)));

namespace {

constexpr long TILE = 4;          // rows that are computed together
constexpr long MOST_FACTORS = 64;  // columns that may be asked for

inline Four load(const double* from) {
    Four value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(double* to, Four value) { std::memcpy(to, &value, sizeof value); }

inline Four all(double value) { return Four{value, value, value, value}; }

// expm1(x) = 2^n expm1(r) + (2^n - 1), x = n log 2 + r, |r| <= log(2)/2: the series to r^13 leaves 4e-18.
inline Four exponential_minus_one(Four x) {
    const Four shift = all(6755399441055744.0);  // 1.5 * 2^52: its lowest bits hold the rounded integer
    x = x < all(-700.0) ? all(-700.0) : x;
    Four rounded = x * 1.4426950408889634 + shift;
    const Bits power = (((Bits)rounded) << 52) + 0x3ff0000000000000LL;
    const Four n = rounded - shift;
    const Four r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    Four series = all(1.0 / 6227020800.0);
    series = series * r + all(1.0 / 479001600.0);
    series = series * r + all(1.0 / 39916800.0);
    series = series * r + all(1.0 / 3628800.0);
    series = series * r + all(1.0 / 362880.0);
    series = series * r + all(1.0 / 40320.0);
    series = series * r + all(1.0 / 5040.0);
    series = series * r + all(1.0 / 720.0);
    series = series * r + all(1.0 / 120.0);
    series = series * r + all(1.0 / 24.0);
    series = series * r + all(1.0 / 6.0);
    series = series * r + all(0.5);
    series = series * r * r + r;
    const Four scale = (Four)power;
    return scale * series + (scale - 1.0);
}

template <bool WEIGHTED>
inline void one_pair(const double* a, const double* b, const double* w, const double* v, const double* weight, double limit, long size,
              long width, long factors, double* rows, double* columns) {
    for (long i = 0; i < size; i += TILE) {
        Four sums[TILE] = {};
        for (long j = 0; j < (WEIGHTED ? i + TILE : size); j += 4) {
            Four covered[TILE] = {};
            for (long d = 0; d < width; ++d) {
                const Four other = load(b + d * size + j);
                for (long t = 0; t < TILE; ++t) covered[t] += all(a[d * size + i + t]) * other;
            }
            const Four by_row = load(w + j);
            for (long t = 0; t < TILE; ++t) {
                const Four cut = covered[t] > all(limit) ? all(limit) : covered[t];
                covered[t] = exponential_minus_one(cut);
                if (WEIGHTED) covered[t] *= load(weight + (i + t) * size + j);
                sums[t] += covered[t] * by_row;
            }
            for (long d = 0; d < factors; ++d) {
                Four sum = load(columns + d * size + j);
                for (long t = 0; t < TILE; ++t) sum += all(v[d * size + i + t]) * covered[t];
                store(columns + d * size + j, sum);
            }
        }
        for (long t = 0; t < TILE; ++t) rows[i + t] = (sums[t][0] + sums[t][1]) + (sums[t][2] + sums[t][3]);
    }
}

}  // namespace

extern "C" int moment_pair_sums(const double* a, const double* b, const double* w, const double* v, const double* weight, long weights,
                                double limit, long count, long size, long width, long factors, double* rows, double* columns) {
    if (size % 4 != 0 || factors > MOST_FACTORS) return 1;
    for (long k = 0; k < count; ++k) {
        const double* own = weights ? weight + (k % weights) * size * size : nullptr;
        const double* by_column = v + k * factors * size;
        double* out = columns + k * factors * size;
        if (own)
            one_pair<true>(a + k * size * width, b + k * width * size, w + k * size, by_column, own, limit, size, width, factors,
                           rows + k * size, out);
        else
            one_pair<false>(a + k * size * width, b + k * width * size, w + k * size, by_column, own, limit, size, width, factors,
                            rows + k * size, out);
    }
    return 0;
}
