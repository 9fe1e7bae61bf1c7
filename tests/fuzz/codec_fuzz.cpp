// libFuzzer target: any bytes decode to a refusal or to a message that can be said again with the same meaning.
// The input is the segment of a frame; the segment table is put before it, since everything else is refused anyway.

#include <cstring>

#include "agreement/codec.hpp"
#include "base/assert.hpp"

using namespace zz;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > (1u << 16)) return 0;
  const std::size_t words = (size + 7) / 8;
  Bytes frame(8 + words * 8);
  for (std::size_t i = 0; i < 4; ++i) frame[4 + i] = static_cast<std::uint8_t>(words >> (8 * i));
  if (size > 0) std::memcpy(frame.data() + 8, data, size);
  const agreement::Decoded first = agreement::decode(SharedBytes(std::move(frame)), {});
  if (first.refusal != Refusal::kNone) return 0;

  const SharedBytes again = agreement::encode(first.message);
  const agreement::Decoded second = agreement::decode(again, {});
  ZZ_ASSERT(second.refusal == Refusal::kNone);
  ZZ_ASSERT(second.message.body.index() == first.message.body.index());
  ZZ_ASSERT(agreement::encode(second.message) == again);
  return 0;
}
