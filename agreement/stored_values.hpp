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
#include "crypto/digest.hpp"
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

inline std::string to_bytes(const Key& key) {
  std::string out;
  out.reserve(kKeyBytes);
  const auto put = [&out](std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
  };
  put(1, 1);
  put(key.service.value, 2);
  put(static_cast<std::uint64_t>(key.kind), 1);
  put(key.n.value, 8);
  out.append(reinterpret_cast<const char*>(key.digest.bytes.data()), key.digest.bytes.size());
  return out;
}

inline std::optional<Key> parse_key(std::string_view bytes) {
  if (bytes.size() != kKeyBytes || bytes[0] != 1) return std::nullopt;
  const auto get = [&bytes](std::size_t at, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]);
    return value;
  };
  Key key{ServiceId{static_cast<std::uint16_t>(get(1, 2))}, static_cast<Kind>(bytes[3]), Seq{get(4, 8)}, {}};
  std::memcpy(key.digest.bytes.data(), bytes.data() + 12, key.digest.bytes.size());
  return key;
}

// A sum of checksums: the order of adding does not matter, and what was added can be taken away.
struct Sum {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  void add(const Sum& other) { low += other.low, high += other.high; }
  void take(const Sum& other) { low -= other.low, high -= other.high; }
  bool operator==(const Sum&) const = default;
};
inline constexpr std::size_t kSumBytes = sizeof(Sum);

// Whose value: a file of another node does not fit.
struct Owner {
  crypto::ClusterId cluster;
  NodeId node;
};

inline Sum sum_of(const Owner& owner, std::string_view key, std::string_view value) {
  crypto::DigestWriter writer("zz log value");
  writer.bytes(owner.cluster.bytes).id(owner.node).bytes(as_bytes(key)).bytes(as_bytes(value));
  const Digest digest = writer.finish();
  Sum sum;
  std::memcpy(&sum, digest.bytes.data(), kSumBytes);
  return sum;
}

// What is stored without its checksum, and that; nothing when they do not fit.
struct Checked {
  std::string_view value;
  Sum sum;
};
inline std::optional<Checked> check(const Owner& owner, std::string_view key, std::string_view stored) {
  if (stored.size() < kSumBytes) return std::nullopt;
  const std::string_view value = stored.substr(0, stored.size() - kSumBytes);
  const Sum sum = sum_of(owner, key, value);
  if (std::memcmp(&sum, stored.data() + value.size(), kSumBytes) != 0) return std::nullopt;
  return Checked{value, sum};
}

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

inline constexpr std::uint32_t kFormat = 1;

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
