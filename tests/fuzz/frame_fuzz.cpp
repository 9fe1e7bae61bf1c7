// libFuzzer target for the frame codec: whatever the stream, the reader stays within its bounds, gives the same answer
// however the stream is split, and what it hands out encodes to the same bytes again.
//
// The first byte of the input chooses how the stream is split; the rest is the stream. Seeds: corpus/frame.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"
#include "net/frame.hpp"

namespace {

using namespace zz;  // NOLINT: a program of one file

constexpr std::size_t kBodyBytesMax = 4'096;

struct Outcome {
  Refusal refusal = Refusal::kNone;
  Bytes accepted;  // the complete frames, encoded again
};

Outcome read_all(ByteView stream, std::size_t piece) {
  net::FrameReader reader(kBodyBytesMax);
  Outcome outcome;
  while (!stream.empty()) {
    ByteView part = stream.first(std::min(piece, stream.size()));
    stream = stream.subspan(part.size());
    while (!part.empty()) {
      outcome.refusal = reader.feed(part);
      ZZ_ASSERT(reader.held_bytes() <= kBodyBytesMax);
      if (outcome.refusal != Refusal::kNone) return outcome;
      if (!reader.has_frame()) continue;
      if (reader.messages_left() == 0) {
        reader.skip();
        net::append_empty_frame(outcome.accepted);
        continue;
      }
      std::vector<SharedBytes> messages;
      while (reader.messages_left() > 0) {
        messages.push_back(reader.take());
        ZZ_ASSERT(reinterpret_cast<std::uintptr_t>(messages.back().data()) % net::kMessageAlignment == 0);
      }
      ZZ_ASSERT(net::append_frame(messages, kBodyBytesMax, outcome.accepted) == messages.size());
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView stream(data + 1, size - 1);
  const Outcome whole = read_all(stream, std::max<std::size_t>(stream.size(), 1));
  const Outcome split = read_all(stream, std::size_t{1} + data[0]);
  ZZ_ASSERT(whole.refusal == split.refusal && whole.accepted == split.accepted);
  ZZ_ASSERT(whole.accepted.size() <= stream.size() &&
            std::equal(whole.accepted.begin(), whole.accepted.end(), stream.begin()));
  return 0;
}
