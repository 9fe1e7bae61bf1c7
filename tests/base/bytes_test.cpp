#include "base/bytes.hpp"

#include <gtest/gtest.h>

namespace zz {
namespace {

TEST(SharedBytes, AnEmptyOneHoldsNothing) {
  const SharedBytes nothing;
  EXPECT_TRUE(nothing.empty());
  EXPECT_EQ(nothing.size(), 0u);
  EXPECT_EQ(nothing.text(), "");
}

TEST(SharedBytes, ASliceSharesTheBufferAndCopiesNothing) {
  const SharedBytes whole = SharedBytes::copy("pre-prepare");
  const SharedBytes part = whole.slice(4, 7);
  EXPECT_EQ(part.text(), "prepare");
  EXPECT_EQ(part.data(), whole.data() + 4);
}

TEST(SharedBytes, ACopyOfTheObjectSharesTheBuffer) {
  const SharedBytes first = SharedBytes::copy("vote");
  const SharedBytes second = first;  // NOLINT: the copy is what is tested
  EXPECT_EQ(first.data(), second.data());
}

TEST(SharedBytes, ASliceKeepsTheBufferAliveWithoutTheWhole) {
  SharedBytes part;
  {
    const SharedBytes whole(Bytes(1 << 16, 'z'));
    part = whole.slice(60'000, 8);
  }
  EXPECT_EQ(part.text(), "zzzzzzzz");
}

TEST(SharedBytes, TakesTheVectorWithoutCopyingIt) {
  Bytes owned(100, 7);
  const std::uint8_t* const before = owned.data();
  const SharedBytes shared(std::move(owned));
  EXPECT_EQ(shared.data(), before);
}

TEST(SharedBytes, ViewsAnythingItsOwnerKeepsAlive) {
  auto text = std::make_shared<const std::string>("kept by somebody else");
  const std::weak_ptr<const std::string> watch = text;
  SharedBytes view(text, as_bytes(*text));
  text.reset();
  EXPECT_EQ(view.text(), "kept by somebody else");
  view = SharedBytes();
  EXPECT_TRUE(watch.expired());
}

TEST(SharedBytes, EqualityIsOfContent) {
  EXPECT_EQ(SharedBytes::copy("abc"), SharedBytes::copy("abc"));
  EXPECT_FALSE(SharedBytes::copy("abc") == SharedBytes::copy("abd"));
  EXPECT_FALSE(SharedBytes::copy("abc") == SharedBytes::copy("ab"));
}

TEST(SharedBytes, ASliceMayBeEmptyAtTheEnd) {
  const SharedBytes whole = SharedBytes::copy("abc");
  EXPECT_TRUE(whole.slice(3, 0).empty());
}

TEST(SharedBytesDeathTest, ASliceBeyondTheEndStopsTheProcess) {
  const SharedBytes whole = SharedBytes::copy("abc");
  EXPECT_DEATH(static_cast<void>(whole.slice(2, 2)), "invariant broken");
  EXPECT_DEATH(static_cast<void>(whole.slice(4, 0)), "invariant broken");
  EXPECT_DEATH(static_cast<void>(whole.slice(1, ~std::size_t{0})), "invariant broken");
}

TEST(Hex, WritesLowerCase) {
  const std::uint8_t raw[] = {0x00, 0x0f, 0xa5, 0xff};
  EXPECT_EQ(to_hex(raw), "000fa5ff");
  EXPECT_EQ(to_hex({}), "");
}

TEST(Hex, ReadsBothCases) {
  std::array<std::uint8_t, 4> out{};
  ASSERT_TRUE(from_hex("000fA5fF", out));
  EXPECT_EQ(to_hex(out), "000fa5ff");
}

TEST(Hex, RefusesWrongLengthsAndOtherCharacters) {
  std::array<std::uint8_t, 2> out{};
  EXPECT_FALSE(from_hex("", out));
  EXPECT_FALSE(from_hex("000", out));
  EXPECT_FALSE(from_hex("00000", out));
  EXPECT_FALSE(from_hex("00 0", out));
  EXPECT_FALSE(from_hex("000g", out));
  EXPECT_FALSE(from_hex("0x00", out));
  EXPECT_FALSE(from_hex(std::string_view("00\0"
                                         "0",
                                         4),
                        out));
}

}  // namespace
}  // namespace zz
