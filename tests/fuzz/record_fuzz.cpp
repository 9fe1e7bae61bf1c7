// libFuzzer target: any bytes that a disk gives back are refused, or are a record that can be written again with the
// same meaning. The input is the segment of a frame; the segment table is put before it, since everything else is
// refused anyway.

#include <cstring>

#include "agreement/record_codec.hpp"
#include "base/assert.hpp"

using namespace zz;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > (1u << 16)) return 0;
  const std::size_t words = (size + 7) / 8;
  Bytes frame(8 + words * 8);
  for (std::size_t i = 0; i < 4; ++i) frame[4 + i] = static_cast<std::uint8_t>(words >> (8 * i));
  if (size > 0) std::memcpy(frame.data() + 8, data, size);
  const agreement::DecodedRecord first = agreement::decode_record(SharedBytes(std::move(frame)), {});
  if (first.refusal != Refusal::kNone) return 0;

  const SharedBytes again = agreement::encode_record(first.service, first.record);
  const agreement::DecodedRecord second = agreement::decode_record(again, {});
  ZZ_ASSERT(second.refusal == Refusal::kNone);
  ZZ_ASSERT(second.service == first.service && second.record.index() == first.record.index());
  ZZ_ASSERT(agreement::encode_record(second.service, second.record) == again);
  return 0;
}
