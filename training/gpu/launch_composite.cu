// One call of the composite as a program, for machines without our Python module and for
// compute-sanitizer; on the host with kernels/emulated. training/gpu/composites.py calls it.
//
//     launch_composite INPUT OUTPUT B k S grid H W type originals canvases before
//
// INPUT holds the pictures, with originals 1 the originals, the packed canvases (so many bytes) and
// what `out` holds before; OUTPUT gets `out`, which begins `before` bytes behind a multiple of 256,
// as do the originals.
#include <exception>

#include "composite_cuda.h"
#include "launch_arrays.h"

int main(int count, char** arguments) {
    if (count != 13) fail("INPUT OUTPUT B k S grid H W type originals canvases before");
    const auto number = [&](int i) { return std::strtoll(arguments[i], nullptr, 10); };
    picme::CompositeCudaParams params{};
    params.batch = number(3);
    params.k = number(4);
    params.size = number(5);
    params.grid = number(6);
    params.height = number(7);
    params.width = number(8);
    params.type = static_cast<picme::PictureType>(number(9));
    const int64_t before = number(12), results = params.batch * params.k;
    const int64_t bytes = 3 * params.height * params.width;

    std::FILE* file = std::fopen(arguments[1], "rb");
    if (!file) fail("cannot read INPUT");
    const int64_t pictures = results * 3 * params.size * params.size;
    void* picture = params.type == picme::PictureType::float32
                        ? static_cast<void*>(filled<float>(file, pictures))
                        : filled<uint16_t>(file, pictures);
    uint8_t* originals = number(10) ? filled<uint8_t>(file, params.batch * bytes, before) : nullptr;
    uint8_t* canvases = filled<uint8_t>(file, number(11));
    uint8_t* out = filled<uint8_t>(file, results * bytes, before);
    std::fclose(file);
    params.pictures = picture;
    params.originals = originals ? originals + before : nullptr;
    params.canvases = canvases;
    params.out = out + before;
    params.scratch = poisoned<float>(results * 3 * params.grid * (params.grid + params.size));
    try {
        picme::composite_cuda(params, nullptr);
    } catch (const std::exception& error) {
        fail(error.what());
    }
    check(cudaDeviceSynchronize());

    file = std::fopen(arguments[2], "wb");
    if (!file) fail("cannot write OUTPUT");
    written(file, params.out, results * bytes);
    if (std::fclose(file) != 0) fail("OUTPUT: no room");
    void* const arrays[] = {picture, originals, canvases, out, params.scratch};
    for (void* array : arrays) check(cudaFree(array));
    return 0;
}
