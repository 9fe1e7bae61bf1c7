#pragma once

// KvService: the sample application, a key-value store. One operation is one line of text:
//
//   put KEY VALUE   "ok"                       VALUE is the rest of the line, and may hold spaces
//   get KEY         the value, or "none"
//   del KEY         "ok", or "none"
//   add KEY N       the new value              N and the value are decimal 64-bit integers; a missing key counts as 0
//   fill KEY N SIZE "ok"                      puts N values of SIZE letters under KEY0, KEY1, ..: a large state in few
//                                              requests, for measurements; the letters follow from the key
//   time            the agreed time of the batch, microseconds since 1970
//   seed            the agreed seed of the batch, 64 hexadecimal digits
//
// Anything else gets "error …" and changes nothing. One thread; it knows nothing but its state.
//
// State: the keys whose SHA-256 begins with the same 51 bits stand in one bucket: key and value of each, in the order
// of the keys. A bucket is a run of objects of kObjectBytesMax, the last one shorter, under ids that these bits begin;
// so one read and one write serve all but the longest values. kBucketBytesMax bounds what keys that were chosen to
// collide can cost; a put beyond it gets "error full".

#include <cstdint>
#include <string>
#include <string_view>

#include "execution/service.hpp"

namespace zz::execution {

class KvService final : public Service {
 public:
  static constexpr std::size_t kKeyBytesMax = 1024;
  static constexpr std::size_t kBucketBytesMax = 64u << 20;
  static constexpr std::uint64_t kFillKeysMax = 4'096;
  static constexpr std::uint64_t kFillBytesMax = 16u << 20;  // of all values of one request

  std::optional<SharedBytes> execute(const Invocation& invocation, ServiceState& state) override;
};

}  // namespace zz::execution
