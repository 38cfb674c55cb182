// The loops of the sampler for every processor: one number at a time.
#include "lanes_loops.h"

namespace picme {
namespace {

struct Scalar : OneLane {
    using Doubles = double;
    static constexpr int kLanes = 1;

    static void words(Stream stream, uint32_t counter, U* words) {
        const Words4 drawn =
            picme::philox4x32_10({{stream.place, counter, stream.index, 0}}, stream.seed);
        std::memcpy(words, drawn.x, sizeof drawn.x);
    }
    static void to_memory_order(F*) {}
    static F load(const float* from) { return *from; }
    static Doubles load(const double* from) { return *from; }
    static Doubles to_doubles(const float* from) { return *from; }
    static void store(float* to, F value) { *to = value; }
    static void store(double* to, Doubles value) { *to = value; }
    static void store_halves(uint16_t* to, U value) { *to = static_cast<uint16_t>(value); }
};

}  // namespace

const LaneKernels kScalarKernels = Loops<Scalar>::table("scalar");

}  // namespace picme
