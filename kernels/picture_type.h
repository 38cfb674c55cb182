#pragma once

namespace picme {

// What the decoder's pictures hold.
enum class PictureType { float32, float16, bfloat16 };

}  // namespace picme
