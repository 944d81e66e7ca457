// Moments of Gaussian processes at a Gaussian input with their Jacobian: `linearised` of moment_jacobian.py, step by step.
//
// Arrays over points are transposed, [width, size] with `size` a multiple of 4: points that only fill up stand at the mean, where q is set
// to 0. One translation unit with the sums over pairs, so that these are compiled into it.

#include <cmath>
#include <vector>

#include "moment_pairs.cpp"
#include "moment_small.cpp"

namespace {

struct GaussianProcesses {
    const double *points, *beta, *log_signal, *signal_var, *own;  // [E, D, n], [E, n], [E], [E], [E, D]
    const double *weight, *root, *reduction;  // lower triangular [E, n, n]: half of the diagonal of W, inverses of L and R; or null
    long outputs, count, size, width;         // E, N, n, D
};

// One output under one belief.
struct Output {
    std::vector<double> omega, zeta, q, u, base;  // [D, n], [1 + D, n], [n], [n], [1 + D, 1 + D]
    Smooth smooth;
};

Output output_at(const GaussianProcesses& gp, long a, const double* mean, const double* cov) {
    const long D = gp.width, n = gp.size;
    Output out{std::vector<double>(D * n), std::vector<double>((1 + D) * n), std::vector<double>(n), std::vector<double>(n), {}, {}};
    const double* own = gp.own + a * D;
    out.smooth = smooth(cov, own, D);
    std::vector<double> nu(D * n), fall(n);
    for (long d = 0; d < D; ++d)
        for (long i = 0; i < gp.count; ++i) nu[d * n + i] = gp.points[(a * D + d) * n + i] - mean[d];
    map_points(out.smooth.spread.data(), nu.data(), out.omega.data(), D, n);
    for (long d = 0; d < D; ++d)
        for (long i = 0; i < n; ++i) {
            fall[i] += nu[d * n + i] * out.omega[d * n + i];
            out.zeta[(1 + d) * n + i] = nu[d * n + i] * own[d];
        }
    for (long i = 0; i < n; ++i) {
        out.zeta[i] = 1;
        out.q[i] = i < gp.count ? std::exp(gp.log_signal[a] - 0.5 * (out.smooth.log_det + fall[i])) : 0;
        out.u[i] = out.q[i] * gp.beta[a * n + i];
    }
    out.base = gram(out.u.data(), out.zeta.data(), 1 + D, n);
    return out;
}

// The derivatives of mean and gain: row `mean` [D + D^2], rows `gain` + d * stride.
void slopes_of_mean(const Output& out, long D, long n, double* mean, double* gain, long stride) {
    const long wide = 1 + D;
    const auto &G = out.smooth.shrink, &R = out.smooth.spread;
    Matrix inner = block(out.base, wide), slope(D), weighted(D * n), curve = sandwich(G, inner, D);
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e) {
            slope[d] += G[d * D + e] * out.base[(1 + e) * wide];
            curve[d * D + e] -= out.base[0] * R[d * D + e];
        }
    for (long d = 0; d < D; ++d) {
        mean[d] = slope[d];
        for (long e = 0; e < D; ++e) mean[D + d * D + e] = 0.5 * curve[d * D + e];
        for (long e = 0; e < D; ++e) gain[d * stride + e] = curve[d * D + e];
    }
    for (long d = 0; d < D; ++d)
        for (long i = 0; i < n; ++i) weighted[d * n + i] = out.u[i] * out.omega[d * n + i];
    std::vector<double> product(n);
    for (long d = 0; d < D; ++d)
        for (long e = d; e < D; ++e) {
            for (long i = 0; i < n; ++i) product[i] = weighted[d * n + i] * out.omega[e * n + i];
            for (long f = e; f < D; ++f) {
                const double third = 0.5 * (dot(product.data(), &out.omega[f * n], n) - R[d * D + e] * slope[f] -
                                            R[d * D + f] * slope[e] - R[e * D + f] * slope[d]);
                const long at[6][3] = {{d, e, f}, {d, f, e}, {e, d, f}, {e, f, d}, {f, d, e}, {f, e, d}};
                for (const auto& k : at) gain[k[0] * stride + D + k[1] * D + k[2]] = third;
            }
        }
}

// q o Aq into `mass` and sum A_ij q_i q_j zeta_i zeta_j^T into `moments`, A = sign X^T X of a lower triangular X [n, n]: one pass.
void known(const double* inverse, double sign, const Output& out, long columns, long n, double* mass, Matrix& moments) {
    std::vector<double> sides(columns * n), back(n), white(columns);
    for (long d = 0; d < columns; ++d)
        for (long i = 0; i < n; ++i) sides[d * n + i] = out.q[i] * out.zeta[d * n + i];
    for (long i = 0; i < n; ++i) {
        const double* row = inverse + i * n;
        const long end = (i / 4 + 1) * 4;
        for (long d = 0; d < columns; ++d) white[d] = dot(row, &sides[d * n], end);
        for (long d = 0; d < columns; ++d)
            for (long e = 0; e < columns; ++e) moments[d * columns + e] += sign * white[d] * white[e];
        const double first = white[0];
        for (long j = 0; j < end; ++j) back[j] += first * row[j];
    }
    for (long i = 0; i < n; ++i) mass[i] += sign * out.q[i] * back[i];
}

// One side of the derivatives of a covariance.
void one_side(const Output& out, const Matrix& other_base, const Matrix& mass, const Matrix& less, double cross, double all_cross,
              const double* own, long D, double* to_mean, Matrix& to_cov) {
    const long wide = 1 + D;
    const auto& G = out.smooth.shrink;
    Matrix everything(mass), moved(D * wide), difference(less), rest(D * D);
    for (long k = 0; k < wide * wide; ++k) everything[k] += other_base[0] * out.base[k];
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e)
            for (long k = 0; k < wide; ++k) moved[d * wide + k] += less[d * D + e] * everything[(1 + e) * wide + k];
    for (long k = 0; k < D * D; ++k) difference[k] -= 2 * G[k];
    const Matrix squares = sandwich(G, block(mass, wide), D);
    for (long d = 0; d < D; ++d) {
        for (long e = 0; e < D; ++e) to_mean[d] += G[d * D + e] * mass[(1 + e) * wide];
        to_mean[d] -= moved[d * wide];
        for (long e = 0; e < D; ++e) {
            double sum = squares[d * D + e] - cross * out.smooth.spread[d * D + e] + all_cross * less[d * D + e] * own[e];
            for (long k = 0; k < D; ++k) sum += moved[d * wide + 1 + k] * difference[e * D + k];
            to_cov[d * D + e] += sum;
        }
    }
}

// The covariance of outputs a and b; with `gradient` also its derivatives to `row` [D + D^2].
double one_covariance(const GaussianProcesses& gp, const Output& first, const Output& second, long a, long b, const double* cov,
                      bool gradient, double* row) {
    const long D = gp.width, n = gp.size, wide = 1 + D;
    const double *own_a = gp.own + a * D, *own_b = gp.own + b * D;
    const Pair pair = smooth_pair(cov, first.smooth, second.smooth, own_a, own_b, D);
    Matrix left((D + 2) * n), right((D + 2) * n);
    exponents(pair, &first.zeta[n], &second.zeta[n], left.data(), right.data(), D, n);
    const bool uncertain = a == b && gp.weight;
    const std::vector<double>&by_row = uncertain ? second.q : second.u, &by_column = uncertain ? first.q : first.u;
    const long factors = gradient ? wide : 0;
    Matrix v(factors * n), rows(n), columns(factors * n), mass(n), moments(wide * wide);
    for (long d = 0; d < factors; ++d)
        for (long i = 0; i < n; ++i) v[d * n + i] = by_column[i] * first.zeta[d * n + i];
    if (uncertain)
        one_pair<true>(left.data(), right.data(), by_row.data(), v.data(), gp.weight + a * n * n, 700, n, D + 2, factors, rows.data(),
                       columns.data());
    else
        one_pair<false>(left.data(), right.data(), by_row.data(), v.data(), nullptr, 700, n, D + 2, factors, rows.data(),
                        columns.data());
    double value = dot(by_column.data(), rows.data(), n) * (uncertain ? 2 : 1);
    if (uncertain) {
        Matrix certain(gradient ? wide * wide : 1);
        known(gp.root + a * n * n, 1, first, gradient ? wide : 1, n, mass.data(), certain);
        if (gp.reduction) known(gp.reduction + a * n * n, -1, first, gradient ? wide : 1, n, mass.data(), certain);
        value += gp.signal_var[a] - certain[0];
        if (gradient) moments = certain;
    }
    if (!gradient) return value;

    Matrix cross(wide * wide), left_mass(n), right_mass(n);
    for (long e = 0; e < wide; ++e) {
        for (long i = 0; i < n; ++i) left_mass[i] = by_row[i] * second.zeta[e * n + i];
        for (long d = 0; d < wide; ++d) cross[d * wide + e] = dot(&columns[d * n], left_mass.data(), n);
    }
    if (uncertain) {
        const Matrix half(cross);
        for (long d = 0; d < wide; ++d)
            for (long e = 0; e < wide; ++e) cross[d * wide + e] = half[d * wide + e] + half[e * wide + d] - moments[d * wide + e];
        for (long i = 0; i < n; ++i) left_mass[i] = by_column[i] * (rows[i] + columns[i]) - mass[i];
    } else {
        for (long i = 0; i < n; ++i) left_mass[i] = by_column[i] * rows[i];
        for (long i = 0; i < n; ++i) right_mass[i] = by_row[i] * columns[i];
    }
    const Matrix left_sums = gram(left_mass.data(), first.zeta.data(), wide, n);
    const Matrix right_sums = uncertain ? left_sums : gram(right_mass.data(), second.zeta.data(), wide, n);
    Matrix all_cross(cross), to_cov(D * D);
    for (long d = 0; d < wide; ++d)
        for (long e = 0; e < wide; ++e) all_cross[d * wide + e] += first.base[d * wide] * second.base[e];
    for (long d = 0; d < D; ++d) row[d] = 0;
    one_side(first, second.base, left_sums, pair.less_a, cross[0], all_cross[0], own_a, D, row, to_cov);
    one_side(second, first.base, right_sums, pair.less_b, cross[0], all_cross[0], own_b, D, row, to_cov);
    const Matrix together = sandwich(pair.shrink, block(all_cross, wide), D);
    for (long k = 0; k < D * D; ++k) to_cov[k] += 2 * together[k];
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e) row[D + d * D + e] = 0.25 * (to_cov[d * D + e] + to_cov[e * D + d]);
    return value;
}

}  // namespace

// Returns 0, or 1 for a belief that is none. `jacobian` [E + E^2 + D E, D + D^2] may be null: then only moments are found.
extern "C" int moment_linearised(const GaussianProcesses* gp, const double* mean, const double* cov, double* out_mean,
                                 double* out_cov, double* out_gain, double* jacobian) {
    const long E = gp->outputs, D = gp->width, n = gp->size, rows = D + D * D, wide = 1 + D;
    std::vector<Output> outputs;
    try {
        for (long a = 0; a < E; ++a) outputs.push_back(output_at(*gp, a, mean, cov));
        for (long a = 0; a < E; ++a) {
            const Output& out = outputs[a];
            out_mean[a] = out.base[0];
            for (long d = 0; d < D; ++d) {
                out_gain[d * E + a] = 0;
                for (long e = 0; e < D; ++e) out_gain[d * E + a] += out.smooth.shrink[d * D + e] * out.base[(1 + e) * wide];
            }
            if (jacobian) slopes_of_mean(out, D, n, jacobian + a * rows, jacobian + (E + E * E + a) * rows, E * rows);
            for (long b = 0; b <= a; ++b) {
                double* row = jacobian ? jacobian + (E + a * E + b) * rows : nullptr;
                out_cov[a * E + b] = out_cov[b * E + a] = one_covariance(*gp, out, outputs[b], a, b, cov, jacobian != nullptr, row);
                if (jacobian && a != b) std::memcpy(jacobian + (E + b * E + a) * rows, row, rows * sizeof(double));
            }
        }
    } catch (const NoBelief&) {
        return 1;
    }
    return 0;
}
