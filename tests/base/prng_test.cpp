#include "base/prng.hpp"

#include <gtest/gtest.h>

namespace zz {
namespace {

// The first outputs of splitmix64 from seed 1234567, as its reference implementation gives them.
TEST(Prng, GivesTheReferenceSequence) {
  Prng prng(1234567);
  EXPECT_EQ(prng.next(), 6457827717110365317u);
  EXPECT_EQ(prng.next(), 3203168211198807973u);
  EXPECT_EQ(prng.next(), 9817491932198370423u);
  EXPECT_EQ(prng.next(), 4593380528125082431u);
  EXPECT_EQ(prng.next(), 16408922859458223821u);
}

TEST(Prng, StaysBelowItsBound) {
  Prng prng(1);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(prng.below(7), 7u);
  EXPECT_EQ(prng.below(1), 0u);
}

}  // namespace
}  // namespace zz
