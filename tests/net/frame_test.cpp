#include "net/frame.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "base/prng.hpp"

namespace zz::net {
namespace {

constexpr std::size_t kLimit = 1u << 16;

SharedBytes random_message(Prng& prng, std::size_t words_max) {
  Bytes bytes(8 * (1 + prng.below(words_max)));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(prng.next());
  return SharedBytes(std::move(bytes));
}

Bytes frame_of(const std::vector<SharedBytes>& messages) {
  Bytes out;
  EXPECT_EQ(append_frame(messages, kLimit, out), messages.size());
  return out;
}

template <class Number>
Bytes with(Bytes bytes, std::size_t at, Number value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

struct Outcome {
  Refusal refusal = Refusal::kNone;
  std::vector<SharedBytes> messages;
};

Outcome read_all(ByteView stream, std::size_t limit = kLimit) {
  FrameReader reader(limit);
  Outcome outcome;
  while (!stream.empty()) {
    outcome.refusal = reader.feed(stream);
    if (outcome.refusal != Refusal::kNone) return outcome;
    while (reader.has_frame() && reader.messages_left() > 0) outcome.messages.push_back(reader.take());
    if (reader.has_frame()) reader.skip();
  }
  return outcome;
}

Bytes two_messages() { return frame_of({SharedBytes(Bytes(16, 1)), SharedBytes(Bytes(8, 2))}); }

TEST(Frame, IsLengthCountVersionThenMessagesInLittleEndian) {
  const Bytes expected = {24, 0, 0, 0, 1, 0, 1, 0, 16, 0, 0, 0, 0, 0, 0, 0,
                          7,  7, 7, 7, 7, 7, 7, 7, 7,  7, 7, 7, 7, 7, 7, 7};
  EXPECT_EQ(frame_of({SharedBytes(Bytes(16, 7))}), expected);
}

TEST(Frame, GivesBackItsMessagesWhateverWayTheStreamIsSplit) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    std::vector<SharedBytes> sent;
    Bytes stream;
    for (std::size_t frames = 1 + prng.below(5); frames > 0; --frames) {
      std::vector<SharedBytes> messages;
      for (std::size_t count = prng.below(20); count > 0; --count) messages.push_back(random_message(prng, 40));
      if (messages.empty()) append_empty_frame(stream);
      const Bytes frame = frame_of(messages);
      stream.insert(stream.end(), frame.begin(), frame.end());
      sent.insert(sent.end(), messages.begin(), messages.end());
    }

    FrameReader reader(kLimit);
    std::vector<SharedBytes> received;
    ByteView left(stream);
    while (!left.empty()) {
      ByteView piece = left.first(1 + prng.below(std::min<std::size_t>(left.size(), prng.below(2) == 0 ? 3 : 700)));
      left = left.subspan(piece.size());
      while (!piece.empty()) {
        ASSERT_EQ(reader.feed(piece), Refusal::kNone) << "seed " << seed;
        while (reader.has_frame() && reader.messages_left() > 0) received.push_back(reader.take());
        if (reader.has_frame()) reader.skip();
      }
    }
    ASSERT_EQ(received, sent) << "seed " << seed;
    EXPECT_EQ(reader.held_bytes(), 0u);
  }
}

TEST(Frame, MessagesAreAlignedSlicesOfOneBuffer) {
  const Bytes stream = two_messages();
  const Outcome outcome = read_all(stream);
  ASSERT_EQ(outcome.messages.size(), 2u);
  for (const SharedBytes& message : outcome.messages) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(message.data()) % kMessageAlignment, 0u);
  }
  EXPECT_EQ(outcome.messages[1].data(), outcome.messages[0].data() + 16 + kMessageHeaderBytes);
}

TEST(Frame, MessagesOutliveTheReader) {
  SharedBytes kept;
  {
    FrameReader reader(kLimit);
    const Bytes stream = two_messages();
    ByteView left(stream);
    ASSERT_EQ(reader.feed(left), Refusal::kNone);
    kept = reader.take();
  }
  EXPECT_EQ(kept, SharedBytes(Bytes(16, 1)));
}

TEST(Frame, HandsOutNothingBeforeItIsComplete) {
  const Bytes stream = two_messages();
  for (std::size_t size = 0; size < stream.size(); ++size) {
    FrameReader reader(kLimit);
    ByteView part = ByteView(stream).first(size);
    ASSERT_EQ(reader.feed(part), Refusal::kNone);
    EXPECT_FALSE(reader.has_frame()) << size << " bytes";
  }
}

TEST(Frame, TakesAsManyMessagesAsFit) {
  const std::vector<SharedBytes> messages(10, SharedBytes(Bytes(24, 9)));
  Bytes out;
  EXPECT_EQ(append_frame(messages, 3 * (24 + kMessageHeaderBytes) + 31, out), 3u);
  EXPECT_EQ(out.size(), kFrameHeaderBytes + 3 * (24 + kMessageHeaderBytes));
  EXPECT_EQ(read_all(out).messages.size(), 3u);
}

TEST(Frame, OfAMessageThatDoesNotFitIsNotMade) {
  const std::vector<SharedBytes> messages = {SharedBytes(Bytes(24, 9))};
  Bytes out;
  EXPECT_EQ(append_frame(messages, 24 + kMessageHeaderBytes - 1, out), 0u);
  EXPECT_EQ(append_frame({}, kLimit, out), 0u);
  EXPECT_TRUE(out.empty());
}

TEST(Frame, CountsAtMostWhatItsHeaderCanSay) {
  const std::vector<SharedBytes> messages(kFrameMessagesMax + 1, SharedBytes(Bytes(8, 3)));
  Bytes out;
  EXPECT_EQ(append_frame(messages, 8u << 20, out), kFrameMessagesMax);
  EXPECT_EQ(read_all(out, 8u << 20).messages.size(), kFrameMessagesMax);
}

TEST(Frame, AtTheLimitPassesAndOneWordLongerIsOversize) {
  const Bytes stream = two_messages();
  const std::size_t body = stream.size() - kFrameHeaderBytes;
  EXPECT_EQ(read_all(stream, body).refusal, Refusal::kNone);
  EXPECT_EQ(read_all(stream, body - 8).refusal, Refusal::kOversize);
}

TEST(Frame, OversizeIsRefusedByItsHeaderAloneAndHoldsNothing) {
  for (const std::uint32_t announced :
       {std::uint32_t{kLimit + 1}, std::uint32_t{kLimit + 8}, UINT32_MAX - 7, UINT32_MAX}) {
    const Bytes header = with(Bytes{0, 0, 0, 0, 1, 0, 1, 0}, 0, announced);
    FrameReader reader(kLimit);
    ByteView left(header);
    EXPECT_EQ(reader.feed(left), Refusal::kOversize);
    EXPECT_EQ(reader.held_bytes(), 0u);
    EXPECT_EQ(reader.announced_bytes(), announced);
  }
}

struct Flaw {
  const char* name;
  Bytes stream;
};

void PrintTo(const Flaw& flaw, std::ostream* out) { *out << flaw.name; }

std::vector<Flaw> flaws() {
  const Bytes sound = two_messages();
  const std::size_t second = kFrameHeaderBytes + kMessageHeaderBytes + 16;
  Bytes longer = sound;
  longer.resize(longer.size() + 8);
  return {
      {"VersionZero", with(sound, 6, std::uint16_t{0})},
      {"LaterVersion", with(sound, 6, std::uint16_t{2})},
      {"BodyNotAMultipleOfEight", with(sound, 0, std::uint32_t{39})},
      {"NoMessageInABody", with(sound, 4, std::uint16_t{0})},
      {"MessageWithoutBody", Bytes{0, 0, 0, 0, 1, 0, 1, 0}},
      {"MoreMessagesThanTheBodyCanHold", with(sound, 4, std::uint16_t{3})},
      {"MostMessages", with(sound, 4, std::uint16_t{0xffff})},
      {"FewerMessagesThanTheBodyHolds", with(sound, 4, std::uint16_t{1})},
      {"FirstMessageEmpty", with(sound, kFrameHeaderBytes, std::uint32_t{0})},
      {"FirstMessageNotAMultipleOfEight", with(sound, kFrameHeaderBytes, std::uint32_t{12})},
      {"FirstMessageReachesIntoTheSecond", with(sound, kFrameHeaderBytes, std::uint32_t{24})},
      {"FirstMessageLongerThanTheBody", with(sound, kFrameHeaderBytes, std::uint32_t{48})},
      {"FirstMessageNearlyFourGigabytes", with(sound, kFrameHeaderBytes, std::uint32_t{0xfffffff8})},
      {"ZeroFieldSet", with(sound, kFrameHeaderBytes + 4, std::uint32_t{1})},
      {"SecondMessageTooShortForTheBody", with(with(longer, 0, std::uint32_t{48}), second, std::uint32_t{8})},
      {"SecondMessageLongerThanTheBody", with(sound, second, std::uint32_t{16})},
      {"SecondZeroFieldSet", with(sound, second + 4, std::uint32_t{0x80000000})},
  };
}

class MalformedFrame : public testing::TestWithParam<Flaw> {};

TEST_P(MalformedFrame, IsRefusedWithoutHandingOutAMessage) {
  const Outcome outcome = read_all(GetParam().stream);
  EXPECT_EQ(outcome.refusal, Refusal::kMalformed);
  EXPECT_TRUE(outcome.messages.empty());
}

INSTANTIATE_TEST_SUITE_P(EveryFlaw, MalformedFrame, testing::ValuesIn(flaws()),
                         [](const auto& flaw) { return std::string(flaw.param.name); });

TEST(Frame, BreaksNothingWhenItsBytesAreRandomlyChanged) {
  const Bytes sound = two_messages();
  std::size_t refused = 0;
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    Prng prng(seed);
    Bytes stream = sound;
    for (std::size_t changes = 1 + prng.below(3); changes > 0; --changes) {
      stream[prng.below(stream.size())] = static_cast<std::uint8_t>(prng.next());
    }
    const Outcome outcome = read_all(stream);
    if (outcome.refusal != Refusal::kNone) {
      ++refused;
      continue;
    }
    std::size_t bytes = 0;
    for (const SharedBytes& message : outcome.messages) bytes += message.size();
    EXPECT_LE(bytes, stream.size());
  }
  EXPECT_GT(refused, 500u);
}

}  // namespace
}  // namespace zz::net
