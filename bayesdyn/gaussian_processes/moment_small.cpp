// The D x D matrices of moment matching (`smoothing` of moment_smoothing.py), and sums over points. Matrices are row-major.

#include <cmath>
#include <vector>

namespace {

using Matrix = std::vector<double>;

struct NoBelief {};  // thrown for a covariance that is none

// C = A B, all [n, n].
Matrix product(const Matrix& a, const Matrix& b, long n) {
    Matrix c(n * n);
    for (long i = 0; i < n; ++i)
        for (long k = 0; k < n; ++k)
            for (long j = 0; j < n; ++j) c[i * n + j] += a[i * n + k] * b[k * n + j];
    return c;
}

// A B A^T.
Matrix sandwich(const Matrix& a, const Matrix& b, long n) {
    Matrix turned(n * n);
    for (long i = 0; i < n; ++i)
        for (long j = 0; j < n; ++j) turned[j * n + i] = a[i * n + j];
    return product(product(a, b, n), turned, n);
}

// A [wide, wide] without its first row and column.
Matrix block(const Matrix& a, long wide) {
    Matrix inner;
    inner.reserve((wide - 1) * (wide - 1));
    for (long d = 1; d < wide; ++d) inner.insert(inner.end(), a.begin() + d * wide + 1, a.begin() + (d + 1) * wide);
    return inner;
}

// A belief seen through one precision P: T, R, G and log|C| of `Smoothing`.
struct Smooth {
    Matrix product, spread, shrink;
    double log_det;
};

Smooth smooth(const double* cov, const double* precision, long n) {
    Matrix scale(n), factor(n * n), inverse_factor(n * n), inverse(n * n), scaled(n * n);
    for (long d = 0; d < n; ++d) scale[d] = std::sqrt(precision[d]);
    for (long d = 0; d < n; ++d)
        for (long e = 0; e < n; ++e) scaled[d * n + e] = cov[d * n + e] * scale[d] * scale[e];
    double log_det = 0;
    for (long i = 0; i < n; ++i)
        for (long j = 0; j <= i; ++j) {
            double rest = scaled[i * n + j] + (i == j);
            for (long k = 0; k < j; ++k) rest -= factor[i * n + k] * factor[j * n + k];
            if (i == j) {
                if (!(rest > 0) || !std::isfinite(rest)) throw NoBelief();
                log_det += std::log(rest);
                factor[i * n + i] = std::sqrt(rest);
            } else {
                factor[i * n + j] = rest / factor[j * n + j];
            }
        }
    for (long j = 0; j < n; ++j)
        for (long i = j; i < n; ++i) {
            double rest = i == j;
            for (long k = j; k < i; ++k) rest -= factor[i * n + k] * inverse_factor[k * n + j];
            inverse_factor[i * n + j] = rest / factor[i * n + i];
        }
    for (long i = 0; i < n; ++i)
        for (long j = 0; j < n; ++j)
            for (long k = i > j ? i : j; k < n; ++k) inverse[i * n + j] += inverse_factor[k * n + i] * inverse_factor[k * n + j];
    const Matrix raw = product(inverse, scaled, n);
    Smooth out{Matrix(n * n), Matrix(n * n), Matrix(n * n), log_det};
    for (long i = 0; i < n; ++i)
        for (long j = 0; j < n; ++j) {
            const double outer = scale[i] * scale[j];
            out.product[i * n + j] = 0.5 * (raw[i * n + j] + raw[j * n + i]) / outer;
            out.spread[i * n + j] = inverse[i * n + j] * outer;
            out.shrink[i * n + j] = inverse[i * n + j] * (scale[i] / scale[j]);
        }
    return out;
}

// log det(I + X) by one elimination with log1p of the pivots.
double log_det_plus_one(Matrix x, long n) {
    double total = 0;
    for (long p = 0; p < n; ++p) {
        total += std::log1p(x[p * n + p]);
        for (long i = p + 1; i < n; ++i)
            for (long j = p + 1; j < n; ++j) x[i * n + j] -= x[i * n + p] * (x[p * n + j] / (1 + x[p * n + p]));
    }
    return total;
}

// T_ab, G_ab, F_a, F_b, M_a, M_b and the growth of `Smoothing`.
struct Pair {
    Matrix both, shrink, less_a, less_b, excess_a, excess_b;
    double growth;
};

Pair smooth_pair(const double* cov, const Smooth& first, const Smooth& second, const double* own_a, const double* own_b, long n) {
    Matrix sum(n), by_a(n * n), by_b(n * n), seen(n * n);
    for (long d = 0; d < n; ++d) sum[d] = own_a[d] + own_b[d];
    const Smooth both = smooth(cov, sum.data(), n);
    for (long i = 0; i < n; ++i)
        for (long j = 0; j < n; ++j) {
            by_a[i * n + j] = own_a[i] * both.product[i * n + j];
            by_b[i * n + j] = own_b[i] * both.product[i * n + j];
            seen[i * n + j] = own_a[i] * cov[i * n + j] * own_b[j];
        }
    return Pair{both.product,
                both.shrink,
                product(first.shrink, by_b, n),
                product(second.shrink, by_a, n),
                product(first.product, by_b, n),
                product(second.product, by_a, n),
                log_det_plus_one(product(both.product, seen, n), n)};
}

// Sum of a_i b_i, n a multiple of 4.
double dot(const double* a, const double* b, long n) {
    Four sum = {}, other = {};
    long i = 0;
    for (; i + 8 <= n; i += 8) {
        sum += load(a + i) * load(b + i);
        other += load(a + i + 4) * load(b + i + 4);
    }
    if (i < n) sum += load(a + i) * load(b + i);
    sum += other;
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Sum of w_i z_i z_i^T for z transposed, [wide, n].
Matrix gram(const double* weight, const double* z, long wide, long n) {
    Matrix out(wide * wide), weighted(n);
    for (long d = 0; d < wide; ++d) {
        for (long i = 0; i < n; ++i) weighted[i] = weight[i] * z[d * n + i];
        for (long e = 0; e <= d; ++e) out[d * wide + e] = out[e * wide + d] = dot(weighted.data(), z + e * n, n);
    }
    return out;
}

// A x_i for every point of x, transposed [D, n], A symmetric.
void map_points(const double* a, const double* __restrict x, double* __restrict out, long D, long n) {
    for (long d = 0; d < D; ++d) {
        double* to = out + d * n;
        for (long i = 0; i < n; ++i) to[i] = 0;
        for (long e = 0; e < D; ++e) {
            const double factor = a[d * D + e];
            for (long i = 0; i < n; ++i) to[i] += factor * x[e * n + i];
        }
    }
}

// [A, r, 1] and [B, 1, c], transposed [D + 2, n], with Delta_ij = r_i + c_j + A_i . B_j.
void exponents(const Pair& pair, const double* first, const double* second, double* left, double* right, long D, long n) {
    Matrix moved(D * n);
    const double* zeta[2] = {first, second};
    const Matrix* excess[2] = {&pair.excess_a, &pair.excess_b};
    double* alone[2] = {left + D * n, right + (D + 1) * n};
    double* one[2] = {left + (D + 1) * n, right + D * n};
    for (int side = 0; side < 2; ++side) {
        map_points(excess[side]->data(), zeta[side], moved.data(), D, n);
        for (long i = 0; i < n; ++i) {
            alone[side][i] = 0.25 * pair.growth;
            one[side][i] = 1;
        }
        for (long d = 0; d < D; ++d)
            for (long i = 0; i < n; ++i) alone[side][i] -= 0.5 * zeta[side][d * n + i] * moved[d * n + i];
    }
    map_points(pair.both.data(), first, left, D, n);
    std::memcpy(right, second, D * n * sizeof(double));
}

}  // namespace
