#include "base/result.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace zz {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error{"odd number"};
  return value / 2;
}

TEST(Result, CarriesAValueOrOneLineOfError) {
  const Result<int> good = half(8);
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good, 4);
  const Result<int> bad = half(7);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error(), "odd number");
}

TEST(Result, HandsOutMoveOnlyValues) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
  ASSERT_TRUE(result.ok());
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 5);
}

TEST(Result, TellsAStringFromAnError) {
  const Result<std::string> value = std::string("text");
  EXPECT_TRUE(value.ok());
  const Result<std::string> error = Error{"text"};
  EXPECT_FALSE(error.ok());
}

TEST(Result, OfNothingIsSuccessOrAnError) {
  EXPECT_TRUE(Result<void>{}.ok());
  const Result<void> bad = Error{"disk full"};
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error(), "disk full");
}

TEST(ResultDeathTest, TakingWhatIsNotThereStopsTheProcess) {
  const Result<int> bad = half(1);
  const Result<int> good = half(2);
  EXPECT_DEATH(static_cast<void>(bad.value()), "invariant broken: ok\\(\\)");
  EXPECT_DEATH(static_cast<void>(good.error()), "invariant broken: !ok\\(\\)");
}

}  // namespace
}  // namespace zz
