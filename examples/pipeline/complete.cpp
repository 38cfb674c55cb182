// k completions of a picture by a pipeline file, with ONNX Runtime for C++.
//
//   picme export engines/cats128 --pipeline -o cats128.onnx
//   c++ -std=c++17 -O2 -ffp-contract=off -I $ORT/include complete.cpp -L $ORT/lib -lonnxruntime
//   ./a.out cats128.onnx photo.ppm mask.pgm out 6 0        # out_0.ppm ... out_5.ppm
//
// ORT is an unpacked release of ONNX Runtime, 1.20 or later.

#include <onnxruntime_cxx_api.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "noise.h"

struct Bytes {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> data;
};

// A binary PPM (3 channels) or PGM (1 channel) file without comments.
static Bytes read_netpbm(const char* path, int64_t channels) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int64_t most = 0;
    Bytes found;
    file >> kind >> found.width >> found.height >> most;
    file.get();  // the one space before the bytes
    if (!file || kind != (channels == 3 ? "P6" : "P5") || most != 255) {
        throw std::runtime_error(std::string(path) + " is no binary PPM or PGM of 8 bits");
    }
    found.data.resize(static_cast<size_t>(found.height * found.width * channels));
    file.read(reinterpret_cast<char*>(found.data.data()),
              static_cast<std::streamsize>(found.data.size()));
    if (!file) throw std::runtime_error(std::string(path) + " is cut short");
    return found;
}

template <class T>
static Ort::Value tensor(std::vector<T>& data, const std::vector<int64_t>& shape) {
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    return Ort::Value::CreateTensor<T>(memory, data.data(), data.size(), shape.data(),
                                       shape.size());
}

int main(int argc, char** argv) {
    if (argc < 5) {
        std::cerr << "usage: complete MODEL PHOTO.ppm MASK.pgm OUT [K] [SEED]\n";
        return 2;
    }
    const int64_t k = argc > 5 ? std::atoll(argv[5]) : 6;
    const uint64_t seed = argc > 6 ? std::strtoull(argv[6], nullptr, 10) : 0;
    try {
        Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "picme");
        Ort::Session session(env, argv[1], Ort::SessionOptions());
        const int64_t latent =  // of the input `normals`
            session.GetInputTypeInfo(3).GetTensorTypeAndShapeInfo().GetShape()[1];
        Bytes photo = read_netpbm(argv[2], 3), mask = read_netpbm(argv[3], 1);
        Noise drawn = noise(seed, static_cast<uint32_t>(k), static_cast<uint32_t>(latent));

        const char* names[] = {"image", "mask", "uniforms", "normals"};
        const char* wanted[] = {"pictures"};
        Ort::Value inputs[] = {
            tensor(photo.data, {photo.height, photo.width, 3}),
            tensor(mask.data, {mask.height, mask.width}),
            tensor(drawn.uniforms, {k}),
            tensor(drawn.normals, {k, latent}),
        };
        auto results = session.Run(Ort::RunOptions(), names, inputs, 4, wanted, 1);

        const char* pixels = reinterpret_cast<const char*>(results[0].GetTensorData<uint8_t>());
        const int64_t size = photo.height * photo.width * 3;
        for (int64_t i = 0; i < k; ++i) {
            const std::string path = std::string(argv[4]) + "_" + std::to_string(i) + ".ppm";
            std::ofstream out(path, std::ios::binary);
            out << "P6\n" << photo.width << " " << photo.height << "\n255\n";
            out.write(pixels + i * size, size);
            if (!out) throw std::runtime_error(path + " cannot be written");
            std::cout << path << "\n";
        }
    } catch (const std::exception& error) {  // Ort::Exception is one
        std::cerr << error.what() << "\n";
        return 1;
    }
    return 0;
}
