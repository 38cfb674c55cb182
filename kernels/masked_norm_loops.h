// The loops of masked_norm.h, PICME_NORM_NUMBERS numbers at a time. Everything is in an anonymous
// namespace, and no function of std's but memcpy is called: each file that includes this is
// compiled for other registers, and nothing built for these may serve elsewhere.
#pragma once

#include <cstring>

#include "masked_norm.h"

namespace picme {
namespace {

// A register of numbers, read from and written to either kind of map.
struct Register {
    static constexpr int kNumbers = PICME_NORM_NUMBERS;
    typedef float F __attribute__((vector_size(4 * PICME_NORM_NUMBERS)));
    typedef uint32_t U __attribute__((vector_size(4 * PICME_NORM_NUMBERS)));
    typedef uint16_t H __attribute__((vector_size(2 * PICME_NORM_NUMBERS)));

    static F wide(H half) { return (F)(__builtin_convertvector(half, U) << 16); }
    static H half(F value) {  // to nearest, ties to even; any NaN is 0x7FC0
        const U bits = (U)value;
        const U rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        return __builtin_convertvector(value != value ? U{} + 0x7FC0 : rounded, H);
    }
};

// The same for one number.
struct One {
    static constexpr int kNumbers = 1;
    using F = float;
    using H = uint16_t;

    static F wide(H half) {
        const uint32_t bits = uint32_t{half} << 16;
        F found;
        std::memcpy(&found, &bits, sizeof found);
        return found;
    }
    static H half(F value) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        return static_cast<H>(value != value ? 0x7FC0 : rounded);
    }
};

template <class R>
struct Numbers {
    using F = typename R::F;
    using H = typename R::H;

    static F load(const float* from) {
        F found;
        std::memcpy(&found, from, sizeof found);
        return found;
    }
    static F load(const uint16_t* from) {
        H found;
        std::memcpy(&found, from, sizeof found);
        return R::wide(found);
    }
    static void store(float* to, F value) { std::memcpy(to, &value, sizeof value); }
    static void store(uint16_t* to, F value) {
        const H half = R::half(value);
        std::memcpy(to, &half, sizeof half);
    }
};

// K registers of channels, that begin at `channel`, of one picture; T is a map's number.
template <class R, int K, class T>
struct Channels {
    using Of = Numbers<R>;
    using F = typename Of::F;
    static constexpr int N = R::kNumbers;
    static constexpr int64_t kBlock = 64;   // places of a partial sum
    static constexpr int64_t kAhead = 512;  // numbers: what is asked for before it is needed

    struct Row {
        F part[K];
    };

    const NormParams& p;
    const int64_t first, line;  // of (batch, places, channels) and of (batch, channels)
    const float* const share;
    const int64_t channel;

    Channels(const NormParams& params, int64_t picture, int64_t begin)
        : p(params),
          first(picture * params.places * params.channels + begin),
          line(picture * params.channels + begin),
          share(params.share + picture * params.share_pitch),
          channel(begin) {}

    static Row read(const float* from) {
        Row found;
        for (int k = 0; k < K; ++k) found.part[k] = Of::load(from + k * N);
        return found;
    }
    static void write(float* to, const Row& row) {
        for (int k = 0; k < K; ++k) Of::store(to + k * N, row.part[k]);
    }
    const T* map(const void* of) const { return static_cast<const T*>(of) + first; }
    T* map(void* of) const { return static_cast<T*>(of) + first; }

    // Runs add(at, weight, k, sums) for all places and registers; `at` is the place in a map.
    template <int S, class Add>
    void sum(Row (&sums)[S], const Add& add) const {
        for (Row& row : sums) row = Row{};
        for (int64_t begin = 0; begin < p.places; begin += kBlock) {
            const int64_t end = begin + kBlock < p.places ? begin + kBlock : p.places;
            for (int k = 0; k < K; ++k) {
                F part[S] = {};
                for (int64_t i = begin; i < end; ++i)
                    add(i * p.channels + k * N, share[i], k, part);
                for (int s = 0; s < S; ++s) sums[s].part[k] += part[s];
            }
        }
    }
    template <class Each>
    void each(const Each& run) const {
        for (int64_t i = 0; i < p.places; ++i) {
            for (int k = 0; k < K; ++k) run(i * p.channels + k * N, share[i], k);
        }
    }
    static F leaky(F sign, F value, float slope) { return sign > 0 ? value : value * slope; }

    void forward() const {
        const T* const a = map(p.a);
        Row mean[1], variance[1];
        sum(mean, [=](int64_t at, float w, int, F* s) {
            __builtin_prefetch(a + at + kAhead);
            s[0] += w * Of::load(a + at);
        });
        sum(variance, [&](int64_t at, float w, int k, F* s) {
            const F c = Of::load(a + at) - mean[0].part[k];
            s[0] += w * (c * c);
        });
        float inverse[K * N];
        write(inverse, variance[0]);
        for (float& one : inverse) one = 1 / __builtin_sqrtf(one + kNormEpsilon);
        write(p.mean + line, mean[0]);
        std::memcpy(p.inverse + line, inverse, sizeof inverse);
        const Row i = read(inverse), gamma = read(p.gamma + channel), beta = read(p.beta + channel);
        T* const y = map(p.y);
        each([&](int64_t at, float, int k) {
            __builtin_prefetch(y + at + kAhead, 1);
            const F c = Of::load(a + at) - mean[0].part[k];
            const F value = beta.part[k] + c * (gamma.part[k] * i.part[k]);
            Of::store(y + at, leaky(value, value, p.slope));
        });
    }

    // What forward has kept, a register of channels at a time.
    struct Kept {
        const T* a;
        const T* gradient;
        Row mean, inverse, scale, beta;
        float slope;

        F c(int64_t at, int k) const { return Of::load(a + at) - mean.part[k]; }
        // A value's share of the slope that LeakyReLU has at c; c is nearer than y, which has its
        // sign.
        F leaky_at(F c, int k, F value) const {
            return leaky(beta.part[k] + c * scale.part[k], value, slope);
        }
        F g(int64_t at, F c, int k) const { return leaky_at(c, k, Of::load(gradient + at)); }
    };

    Kept kept() const {
        Kept found{map(p.a),
                   map(p.gradient),
                   read(p.mean + line),
                   read(p.inverse + line),
                   read(p.gamma + channel),
                   read(p.beta + channel),
                   p.slope};
        for (int k = 0; k < K; ++k) found.scale.part[k] *= found.inverse.part[k];
        return found;
    }

    // da = gamma i (g - w (sum g + c i^2 sum(g c))), since the weights sum to 1.
    void back() const {
        const Kept was = kept();
        Row sums[2], slope;
        sum(sums, [&](int64_t at, float, int k, F* s) {
            __builtin_prefetch(was.a + at + kAhead);
            __builtin_prefetch(was.gradient + at + kAhead);
            const F c = was.c(at, k), g = was.g(at, c, k);
            s[0] += g;
            s[1] += g * c;
        });
        write(p.total + line, sums[0]);
        write(p.along + line, sums[1]);
        for (int k = 0; k < K; ++k) {
            slope.part[k] = was.inverse.part[k] * was.inverse.part[k] * sums[1].part[k];
        }
        T* const out = map(p.out);
        const auto delta = [&](int64_t at, float w, int k) {
            const F c = was.c(at, k), g = was.g(at, c, k);
            return was.scale.part[k] * (g - w * (sums[0].part[k] + c * slope.part[k]));
        };
        if (p.pull == nullptr) {
            each([&](int64_t at, float w, int k) {
                __builtin_prefetch(out + at + kAhead, 1);
                Of::store(out + at, delta(at, w, k));
            });
        } else {
            const T* const pull = map(const_cast<const void*>(p.pull));
            each([&](int64_t at, float w, int k) {
                Of::store(out + at, delta(at, w, k) + Of::load(pull + at));
            });
        }
    }

    // With k = E[c u], U = sum(g u) - E[u] sum(g) and s = sum(g c) the norm says
    // gamma (i U - i^3 k s); the pull is its gradient for a.
    void tangent() const {
        const Kept was = kept();
        const T* const u = map(p.u);
        Row sums[3];
        sum(sums, [&](int64_t at, float w, int k, F* s) {
            const F c = was.c(at, k), v = Of::load(u + at), wide = w * v;
            s[0] += wide;
            s[1] += wide * c;
            s[2] += v * was.g(at, c, k);
        });
        const Row total = read(p.total + line), along = read(p.along + line);
        Row of_u, of_g, of_c, rest, turn, of_gamma;
        for (int k = 0; k < K; ++k) {
            const F i = was.inverse.part[k], squared = i * i, s = along.part[k];
            const F factor = was.scale.part[k] * squared, both = sums[1].part[k];
            const F spread = sums[2].part[k] - sums[0].part[k] * total.part[k];
            of_u.part[k] = -factor * s;
            of_g.part[k] = -factor * both;
            of_c.part[k] = -factor * (spread - 3.0f * squared * both * s);
            rest.part[k] = of_u.part[k] * sums[0].part[k] + of_g.part[k] * total.part[k];
            turn.part[k] = squared * both;
            of_gamma.part[k] = i * (spread - squared * both * s);
        }
        write(p.of_gamma + line, of_gamma);
        T *const pull = map(p.pull), *const out = map(p.out);
        each([&](int64_t at, float w, int k) {
            const F v = Of::load(u + at), c = was.c(at, k), g = was.g(at, c, k);
            const F shared = v * of_u.part[k] + c * of_c.part[k] - rest.part[k];
            const F turned = was.scale.part[k] * (v - sums[0].part[k] - c * turn.part[k]);
            Of::store(pull + at, w * shared + g * of_g.part[k]);
            Of::store(out + at, was.leaky_at(c, k, turned));
        });
    }

    static void run_forward(const NormParams& p, int64_t picture, int64_t channel) {
        Channels(p, picture, channel).forward();
    }
    static void run_back(const NormParams& p, int64_t picture, int64_t channel) {
        Channels(p, picture, channel).back();
    }
    static void run_tangent(const NormParams& p, int64_t picture, int64_t channel) {
        Channels(p, picture, channel).tangent();
    }
};

template <class R, int K, class T>
constexpr NormPasses norm_passes() {
    using Run = Channels<R, K, T>;
    return {Run::run_forward, Run::run_back, Run::run_tangent};
}

constexpr NormLoops norm_loops() {
    constexpr int K = kNormWide / Register::kNumbers;
    return {{norm_passes<Register, K, float>(), norm_passes<Register, K, uint16_t>()},
            {norm_passes<One, 1, float>(), norm_passes<One, 1, uint16_t>()}};
}

}  // namespace
}  // namespace picme
