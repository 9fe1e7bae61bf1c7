#pragma once

// LatencyHistogram: counts durations in log-linear buckets (after Gil Tene's HdrHistogram): 64 buckets for every power
// of two, so a percentile is at most 1/64 above the true value. Fixed size, one thread.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace zz::apps {

class LatencyHistogram {
 public:
  // Longer durations (about 12 days) are counted as this one.
  static constexpr std::uint64_t kMicrosMax = (std::uint64_t{1} << 40) - 1;

  void add(std::uint64_t micros) {
    micros = std::min(micros, kMicrosMax);
    ++counts_[index_of(micros)];
    ++count_;
    max_ = std::max(max_, micros);
  }
  void add(const LatencyHistogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t max() const { return max_; }
  // The least duration that `per_mille` thousandths of all do not exceed (upper end of its bucket); 0 when empty.
  [[nodiscard]] std::uint64_t percentile(std::uint64_t per_mille) const {
    const std::uint64_t rank = std::max<std::uint64_t>((count_ * per_mille + 999) / 1000, 1);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= rank) return std::min(upper_of(i), max_);
    }
    return max_;
  }

 private:
  static constexpr unsigned kLinearBits = 6;
  static constexpr std::uint64_t kLinear = std::uint64_t{1} << kLinearBits;
  static constexpr std::size_t kBuckets = (40 - kLinearBits + 1) * kLinear;

  // Values below 64 have their own bucket; above, the seven leading bits choose it.
  static std::size_t index_of(std::uint64_t value) {
    if (value < kLinear) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kLinearBits - 1;
    return (shift + 1) * kLinear + ((value >> shift) - kLinear);
  }
  static std::uint64_t upper_of(std::size_t index) {
    if (index < kLinear) return index;
    const std::size_t shift = index / kLinear - 1;
    return ((kLinear + index % kLinear + 1) << shift) - 1;
  }

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace zz::apps
