// libFuzzer target for the check of what strangers send before they are authenticated: the same answer however the
// stream is split, and never more let through than a handshake may have.
//
// The first byte of the input chooses how the stream is split; the rest is the stream. Seeds: corpus/handshake.

#include <algorithm>
#include <cstdint>

#include "base/assert.hpp"
#include "net/handshake_guard.hpp"

namespace {

using namespace zz;  // NOLINT: a program of one file

Refusal check(ByteView stream, std::size_t piece) {
  net::HandshakeGuard guard;
  std::size_t passed = 0;
  while (!stream.empty()) {
    const ByteView part = stream.first(std::min(piece, stream.size()));
    stream = stream.subspan(part.size());
    if (const Refusal refusal = guard.check(part); refusal != Refusal::kNone) return refusal;
    passed += part.size();
  }
  ZZ_ASSERT(passed <= net::kHandshakeBytesMax);
  return Refusal::kNone;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView stream(data + 1, size - 1);
  const Refusal whole = check(stream, std::max<std::size_t>(stream.size(), 1));
  const Refusal split = check(stream, std::size_t{1} + data[0]);
  // Too long a stream is seen at once when it comes in one piece; its flaws are when it comes in several.
  ZZ_ASSERT((whole == Refusal::kNone) == (split == Refusal::kNone));
  return 0;
}
