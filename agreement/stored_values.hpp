#pragma once

// Keys and values of the durable log (agreement/durable_log.hpp): what lies where, and the checksum that binds a value
// to its node, cluster and key. Plain values; any thread.

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement::stored {

// Key: area (0 meta, 1 records), service, kind, n, digest; big-endian, so that RocksDB's order is the order of reading.

enum class Kind : char {
  kContent = 1,   // n, digest: header and bodies, as an accepted or ordered record
  kOrdered = 2,   // n: digest
  kAccepted = 3,  // n, digest: newest view
  kPrepared = 4,  // n: view, digest
  kStable = 5,    // n
  kView = 6,
  kLearner = 7,
};

inline const std::string kMetaKey(1, '\0');
inline constexpr std::size_t kKeyBytes = 1 + 2 + 1 + 8 + 32;

struct Key {
  ServiceId service;
  Kind kind{};
  Seq n;
  Digest digest;
};

std::string to_bytes(const Key& key);
std::optional<Key> parse_key(std::string_view bytes);

// A sum of checksums: the order of adding does not matter, and what was added can be taken away.
struct Sum {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  void add(const Sum& other) { low += other.low, high += other.high; }
  void take(const Sum& other) { low -= other.low, high -= other.high; }
  bool operator==(const Sum&) const = default;
};

// After every value: its checksum and a mark that is not zero, so that zeros after a record were never written.
inline constexpr char kEndMark = '\x7a';
inline constexpr std::size_t kTailBytes = sizeof(Sum) + 1;

// Whose value: a file of another node does not fit.
struct Owner {
  crypto::ClusterId cluster;
  NodeId node;
};

Sum sum_of(const Owner& owner, std::string_view key, std::string_view value);

std::string tail_of(const Sum& sum);

// What is stored without its tail, and its checksum; nothing when they do not fit.
struct Checked {
  std::string_view value;
  Sum sum;
};
std::optional<Checked> check(const Owner& owner, std::string_view key, std::string_view stored);

static_assert(std::endian::native == std::endian::little, "packed() writes values as they lie in memory");
template <class... Parts>
std::string packed(const Parts&... parts) {
  std::string out;
  (out.append(reinterpret_cast<const char*>(&parts), sizeof parts), ...);
  return out;
}

// Reads the parts that packed() wrote; false when the length is another.
template <class... Parts>
bool unpack(std::string_view bytes, Parts&... parts) {
  if (bytes.size() != (sizeof parts + ...)) return false;
  std::size_t at = 0;
  ((std::memcpy(&parts, bytes.data() + at, sizeof parts), at += sizeof parts), ...);
  return true;
}

inline constexpr std::uint32_t kFormat = 3;

// The one record that every group rewrites.
struct Meta {
  std::uint32_t format = kFormat;
  crypto::ClusterId cluster;
  NodeId node;
  std::uint64_t boot = 0;
  std::array<std::uint8_t, 16> id{};  // drawn anew at every boot
  std::uint64_t promises = 0;         // groups with a promise so far
  Sum sum;                            // of all records

  [[nodiscard]] std::string bytes() const { return packed(format, cluster, node, boot, id, promises, sum); }
  bool parse(std::string_view bytes) { return unpack(bytes, format, cluster, node, boot, id, promises, sum); }
};

}  // namespace zz::agreement::stored
