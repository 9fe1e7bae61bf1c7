#pragma once

// Seeded random messages and log records of every kind, within the codec's limits, and their equality field by
// field. For property tests, the fuzzer's corpus and the benchmark. Plain functions, any thread.

#include "agreement/log_record.hpp"
#include "agreement/messages.hpp"
#include "base/prng.hpp"

namespace zz::agreement::testing {

inline constexpr std::size_t kKinds = std::variant_size_v<Body>;
inline constexpr std::size_t kRecordKinds = std::variant_size_v<LogRecord>;

struct RandomShape {
  std::size_t items_max = 20;  // entries of a list
  std::size_t bytes_max = 40;  // of a payload
};

// A message whose body is alternative `kind` of Body, below kKinds.
Message random_message(Prng& prng, std::size_t kind, const RandomShape& shape);
// The class name of alternative `kind`.
const char* kind_name(std::size_t kind);
// The same for log records; accepted ones lack some bodies, a few their header.
LogRecord random_record(Prng& prng, std::size_t kind, ServiceId service, const RandomShape& shape);
const char* record_name(std::size_t kind);

bool equal(const Message& a, const Message& b);
bool equal(const LogRecord& a, const LogRecord& b);

}  // namespace zz::agreement::testing
