// The loops of lanes.h over a type of lanes L, written once. Each instruction set's file includes
// this with an L of its own in an unnamed namespace, so that no code made for one processor can be
// linked in for another; for the same reason nothing of the standard library is called here.
#pragma once

#include <cstdint>
#include <cstring>

#include "lanes.h"
#include "sample_gmm_math.h"

namespace picme {

template <class L>
struct Loops {
    using Math = SampleMath<L>;
    using F = typename L::F;
    using U = typename L::U;
    using D = typename L::Doubles;
    static constexpr int kLanes = L::kLanes;
    static constexpr int kBlock = 4 * kLanes;  // a counter a lane, four numbers a counter
    static constexpr int kSums = 16;           // running sums of a float64 sum, whatever L is
    static constexpr int kDoubles = sizeof(D) / sizeof(double);

    // Numbers first to first + kBlock of a stream, in memory order.
    static void block(Stream stream, int64_t first, F* eps) {
        U words[4];
        L::words(stream, static_cast<uint32_t>(first / 4) + 1, words);
        Math::normals(words, eps);
        L::to_memory_order(eps);
    }

    static void draw(Stream stream, int64_t first, const float* mu, const float* spread, float* z,
                     int64_t n) {
        int64_t d = 0;
        for (; d + kBlock <= n; d += kBlock) {
            F eps[4];
            block(stream, first + d, eps);
            for (int j = 0; j < 4; ++j) {
                const int64_t at = d + j * kLanes;
                L::store(z + at, L::load(mu + at) + L::load(spread + at) * eps[j]);
            }
        }
        if (d == n) return;
        float eps[kBlock];
        normal(stream, first + d, eps, kBlock);
        for (int64_t i = 0; d + i < n; ++i) z[d + i] = mu[d + i] + spread[d + i] * eps[i];
    }

    static void normal(Stream stream, int64_t first, float* eps, int64_t n) {
        int64_t d = 0;
        for (; d + kBlock <= n; d += kBlock) whole_block(stream, first + d, eps + d);
        if (d == n) return;
        float last[kBlock];
        whole_block(stream, first + d, last);
        std::memcpy(eps + d, last, (n - d) * sizeof(float));
    }

    static void spread(const float* log_sigma, float temperature, float* spread, int64_t n) {
        for_each(n, log_sigma, spread, [temperature](const float* from, float* to) {
            L::store(to, temperature * Math::exp_poly(L::load(from)));
        });
    }

    static void round(const float* z, Rounding rounding, uint16_t* rounded, int64_t n) {
        if (rounding == Rounding::float16) {
            for_each(n, z, rounded, [](const float* from, uint16_t* to) {
                L::store_halves(to, Math::float16_bits(L::load(from)));
            });
        } else {
            for_each(n, z, rounded, [](const float* from, uint16_t* to) {
                L::store_halves(to, Math::bfloat16_bits(L::load(from)));
            });
        }
    }

    static double invert(const float* log_sigma, double* inverse, int64_t n) {
        D sums[kSums / kDoubles] = {};
        int64_t d = 0;
        for (; d + kSums <= n; d += kSums) add_inverted(log_sigma + d, inverse + d, sums);
        if (d < n) {  // the rest among zeros, which add nothing
            float last[kSums] = {};
            double made[kSums];
            std::memcpy(last, log_sigma + d, (n - d) * sizeof(float));
            add_inverted(last, made, sums);
            std::memcpy(inverse + d, made, (n - d) * sizeof(double));
        }
        return total(sums);
    }

    static double squares(const float* z, const float* mu, const double* inverse, int64_t n) {
        D sums[kSums / kDoubles] = {};
        int64_t d = 0;
        for (; d + kSums <= n; d += kSums) add_squares(z + d, mu + d, inverse + d, sums);
        if (d < n) {  // the rest among zeros, which add nothing
            float last_z[kSums] = {}, last_mu[kSums] = {};
            double last_inverse[kSums] = {};
            std::memcpy(last_z, z + d, (n - d) * sizeof(float));
            std::memcpy(last_mu, mu + d, (n - d) * sizeof(float));
            std::memcpy(last_inverse, inverse + d, (n - d) * sizeof(double));
            add_squares(last_z, last_mu, last_inverse, sums);
        }
        return total(sums);
    }

    static bool all_finite(const float* x, int64_t n) {
        U bad = {};
        int64_t d = 0;
        for (; d + kLanes <= n; d += kLanes) bad = bad | overflown(L::load(x + d));
        float last[kLanes] = {};
        std::memcpy(last, x + d, (n - d) * sizeof(float));
        bad = bad | overflown(L::load(last));
        uint32_t lanes[kLanes], any = 0;
        std::memcpy(lanes, &bad, sizeof lanes);
        for (const uint32_t lane : lanes) any |= lane;
        return any == 0;
    }

    static float memory_free(int64_t n) {
        F sum = {};
        for (int64_t d = 0; d < n; d += kBlock) {
            U words[4];
            F eps[4];
            L::words({0, 0, 0}, static_cast<uint32_t>(d / 4) + 1, words);
            Math::normals(words, eps);
            for (const F& e : eps) sum = sum + (e + (0.5f * Math::exp_poly(e)) * e);
        }
        float lanes[kLanes], whole = 0.0f;
        L::store(lanes, sum);
        for (const float lane : lanes) whole += lane;
        return whole;
    }

    static constexpr LaneKernels table(const char* name) {
        return {name, spread, draw, normal, invert, squares, round, all_finite, memory_free};
    }

  private:
    // to = op(from) in steps of one L; the rest goes by way of an L of its own.
    template <typename Out, typename Op>
    static void for_each(int64_t n, const float* from, Out* to, Op op) {
        int64_t d = 0;
        for (; d + kLanes <= n; d += kLanes) op(from + d, to + d);
        if (d == n) return;
        float last[kLanes] = {};
        Out made[kLanes];
        std::memcpy(last, from + d, (n - d) * sizeof(float));
        op(last, made);
        std::memcpy(to + d, made, (n - d) * sizeof(Out));
    }

    // Not 0 for infinity and NaN: only the largest exponent carries into the sign's place.
    static U overflown(F x) { return ((L::bits(x) & 0x7F800000u) + 0x00800000u) & 0x80000000u; }

    static void whole_block(Stream stream, int64_t first, float* out) {
        F eps[4];
        block(stream, first, eps);
        for (int j = 0; j < 4; ++j) L::store(out + j * kLanes, eps[j]);
    }

    static void add_inverted(const float* log_sigma, double* inverse, D* sums) {
        float clamped[kSums], roots[kSums];  // exp(-s) as exp(-s/2)**2: float32 could overflow
        for (int i = 0; i < kSums; i += kLanes) {
            const F s = Math::clamped(L::load(log_sigma + i));
            L::store(clamped + i, s);
            L::store(roots + i, Math::exp_poly(-0.5f * s));
        }
        for (int i = 0; i < kSums; i += kDoubles) {
            const D root = L::to_doubles(roots + i);
            L::store(inverse + i, root * root);
            sums[i / kDoubles] = sums[i / kDoubles] + L::to_doubles(clamped + i);
        }
    }

    static void add_squares(const float* z, const float* mu, const double* inverse, D* sums) {
        for (int i = 0; i < kSums; i += kDoubles) {
            const D distance =
                (L::to_doubles(z + i) - L::to_doubles(mu + i)) * L::load(inverse + i);
            sums[i / kDoubles] = sums[i / kDoubles] + distance * distance;
        }
    }

    // The sum of kSums sums in one order, so that it has the same bits for every L.
    static double total(const D* sums) {
        double value[kSums];
        for (int i = 0; i < kSums; i += kDoubles) L::store(value + i, sums[i / kDoubles]);
        for (int width = kSums / 2; width > 0; width /= 2) {
            for (int i = 0; i < width; ++i) value[i] += value[i + width];
        }
        return value[0];
    }
};

}  // namespace picme
