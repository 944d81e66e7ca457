// The backward pass of radial basis functions, their gradients to centres, weights and length-scales too: `pull_back` of
// moment_radial.py, step by step. What the forward pass found is found again, which is cheaper than to keep it.

#include "moment_gp.cpp"

namespace {

// What an output gathers from all pairs in which it is the second, over points [n] and [D, n], and over coordinates [D].
struct Gathered {
    Matrix by_pair, pulled, bent;
};

// d_cov and `to` take what the pair (a, b) sends to b, under the weight of its covariance.
void one_pull(const Output& first, const Output& second, const double* own_a, const double* own_b, const double* cov, double weight,
              long D, long n, Matrix& d_cov, Gathered& to) {
    const long wide = 1 + D;
    const Pair pair = smooth_pair(cov, first.smooth, second.smooth, own_a, own_b, D);
    const double *zeta_a = &first.zeta[n], *zeta_b = &second.zeta[n];
    Matrix left((D + 2) * n), right((D + 2) * n), v(wide * n), rows(n), sums(wide * n), held(D * n), both(D * n);
    exponents(pair, zeta_a, zeta_b, left.data(), right.data(), D, n);
    for (long k = 0; k < wide; ++k)
        for (long i = 0; i < n; ++i) v[k * n + i] = first.u[i] * first.zeta[k * n + i];
    one_pair<false>(left.data(), right.data(), second.u.data(), v.data(), nullptr, 700, n, D + 2, wide, rows.data(), sums.data());
    for (long i = 0; i < n; ++i) to.by_pair[i] += weight * sums[i];
    for (long k = 0; k < wide; ++k)
        for (long i = 0; i < n; ++i) sums[k * n + i] = second.u[i] * (sums[k * n + i] + first.base[k]);
    for (long i = 0; i < n; ++i) rows[i] = first.u[i] * (rows[i] + second.base[0]);

    map_points(pair.excess_b.data(), zeta_b, held.data(), D, n);
    map_points(pair.both.data(), &sums[n], both.data(), D, n);
    for (long d = 0; d < D; ++d)
        for (long i = 0; i < n; ++i) to.pulled[d * n + i] += weight * own_b[d] * (both[d * n + i] - sums[i] * held[d * n + i]);

    const Matrix mass = gram(sums.data(), zeta_b, D, n), mass_a = gram(rows.data(), zeta_a, D, n);
    Matrix cross(D * D), difference(pair.less_b), turned(D * D), ones(n, 1.0);
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e) cross[d * D + e] = dot(zeta_b + d * n, &sums[(1 + e) * n], n);
    const double total = dot(sums.data(), ones.data(), n);
    for (long k = 0; k < D * D; ++k) difference[k] -= 2 * second.smooth.shrink[k];
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e) turned[d * D + e] = difference[e * D + d];
    const Matrix moved = product(product(pair.less_b, mass, D), turned, D), around = sandwich(pair.shrink, cross, D);
    for (long d = 0; d < D; ++d)
        for (long e = 0; e < D; ++e) {
            const long k = d * D + e;
            d_cov[k] += 0.5 * weight * (moved[k] + total * pair.less_b[k] * own_b[e] + around[k]);
        }

    const Matrix held_mass = sandwich(pair.excess_b, mass, D), both_mass = sandwich(pair.both, mass_a, D);
    const Matrix between = product(product(pair.excess_b, cross, D), pair.both, D);
    for (long d = 0; d < D; ++d) {
        const long k = d * D + d;
        to.bent[d] += weight * own_b[d] * own_b[d] * (held_mass[k] - 2 * between[k] + both_mass[k] - total * pair.excess_b[k]);
    }
}

}  // namespace

// Adds to the gradients d_mean [D], d_cov [D, D], d_points [D, n], d_beta [E, n], d_scale [E, D]: that to length-scales, divided by these.
// Returns 0, or 1 for a belief that is none.
extern "C" int moment_radial_back(const GaussianProcesses* gp, const double* mean, const double* cov, const double* to_mean,
                                  const double* to_cov, const double* to_gain, double* d_mean, double* d_cov, double* d_points,
                                  double* d_beta, double* d_scale) {
    const long E = gp->outputs, D = gp->width, n = gp->size, wide = 1 + D;
    std::vector<Output> outputs;
    try {
        for (long a = 0; a < E; ++a) outputs.push_back(output_at(*gp, a, mean, cov));
        Matrix d_cov_all(D * D);
        for (long b = 0; b < E; ++b) {
            const Output& out = outputs[b];
            const double* own = gp->own + b * D;
            Gathered from{Matrix(n), Matrix(D * n), Matrix(D)};
            for (long a = 0; a < E; ++a)
                one_pull(outputs[a], out, gp->own + a * D, own, cov, to_cov[a * E + b] + to_cov[b * E + a], D, n, d_cov_all, from);

            const auto &R = out.smooth.spread, &G = out.smooth.shrink;
            Matrix outer(n, to_mean[b]), level(n), turned(D), gain(D);
            for (long d = 0; d < D; ++d)
                for (long e = 0; e < D; ++e) {
                    turned[d] += R[d * D + e] * to_gain[e * E + b];
                    gain[d] += G[d * D + e] * out.base[(1 + e) * wide];
                }
            for (long d = 0; d < D; ++d)
                for (long i = 0; i < n; ++i) outer[i] += out.omega[d * n + i] * to_gain[d * E + b];
            for (long i = 0; i < n; ++i) {
                outer[i] += from.by_pair[i];
                level[i] = out.u[i] * outer[i];
                d_beta[b * n + i] += out.q[i] * outer[i];
            }
            const Matrix squares = gram(level.data(), out.omega.data(), D, n);
            double sum = 0;
            for (long i = 0; i < n; ++i) sum += level[i];
            for (long d = 0; d < D; ++d) {
                for (long e = 0; e < D; ++e)
                    d_cov_all[d * D + e] += 0.5 * (squares[d * D + e] - sum * R[d * D + e]) - turned[d] * gain[e];
                double moved = 0;
                for (long i = 0; i < n; ++i) {
                    const double slope = from.pulled[d * n + i] - level[i] * out.omega[d * n + i] + out.u[i] * turned[d];
                    d_points[d * n + i] += slope;
                    moved += slope;
                }
                d_mean[d] -= moved;
                d_scale[b * D + d] += sum * (own[d] - R[d * D + d]) + squares[d * D + d] - 2 * turned[d] * gain[d] + from.bent[d] -
                                      2 * dot(&out.omega[d * n], &from.pulled[d * n], n);
            }
        }
        for (long d = 0; d < D; ++d)
            for (long e = 0; e < D; ++e) d_cov[d * D + e] += 0.5 * (d_cov_all[d * D + e] + d_cov_all[e * D + d]);
    } catch (const NoBelief&) {
        return 1;
    }
    return 0;
}
