#include "apps/latency_histogram.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "base/prng.hpp"

namespace zz::apps {
namespace {

TEST(LatencyHistogram, IsExactForSmallDurations) {
  LatencyHistogram histogram;
  for (std::uint64_t micros = 1; micros <= 100; ++micros) histogram.add(micros);
  EXPECT_EQ(histogram.count(), 100u);
  EXPECT_EQ(histogram.percentile(500), 50u);
  EXPECT_EQ(histogram.percentile(990), 99u);
  EXPECT_EQ(histogram.percentile(1000), 100u);
  EXPECT_EQ(histogram.percentile(0), 1u);
  EXPECT_EQ(histogram.max(), 100u);
}

TEST(LatencyHistogram, SaysNothingOfNothing) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.percentile(500), 0u);
  EXPECT_EQ(histogram.max(), 0u);
}

TEST(LatencyHistogram, PercentilesAreAtMostASixtyFourthTooLarge) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Prng prng(seed);
    LatencyHistogram histogram;
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 5'000; ++i) {
      const std::uint64_t value = prng.next() >> (25 + prng.below(39));  // all magnitudes up to 2^39
      values.push_back(value);
      histogram.add(value);
    }
    std::sort(values.begin(), values.end());
    for (const std::uint64_t per_mille : {1, 10, 250, 500, 900, 990, 999, 1000}) {
      const std::uint64_t exact = values[(values.size() * per_mille + 999) / 1000 - 1];
      EXPECT_GE(histogram.percentile(per_mille), exact);
      EXPECT_LE(histogram.percentile(per_mille), exact + exact / 64);
    }
    EXPECT_EQ(histogram.max(), values.back());
    EXPECT_EQ(histogram.percentile(1000), values.back());
  }
}

TEST(LatencyHistogram, CutsOffWhatIsTooLong) {
  LatencyHistogram histogram;
  histogram.add(~std::uint64_t{0});
  EXPECT_EQ(histogram.max(), LatencyHistogram::kMicrosMax);
  EXPECT_EQ(histogram.percentile(500), LatencyHistogram::kMicrosMax);
}

TEST(LatencyHistogram, TwoTogetherAreLikeOneOfAll) {
  Prng prng(7);
  LatencyHistogram parts[2];
  LatencyHistogram whole;
  for (int i = 0; i < 1'000; ++i) {
    const std::uint64_t value = prng.below(100'000);
    parts[prng.below(2)].add(value);
    whole.add(value);
  }
  parts[0].add(parts[1]);
  EXPECT_EQ(parts[0].count(), whole.count());
  EXPECT_EQ(parts[0].max(), whole.max());
  for (const std::uint64_t per_mille : {500, 990, 999}) {
    EXPECT_EQ(parts[0].percentile(per_mille), whole.percentile(per_mille));
  }
}

}  // namespace
}  // namespace zz::apps
