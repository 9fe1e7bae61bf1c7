#include "agreement/stored_values.hpp"

#include <xxhash.h>

#include <cstddef>

namespace zz::agreement::stored {

std::string to_bytes(const Key& key) {
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

std::optional<Key> parse_key(std::string_view bytes) {
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

// XXH3: it must notice what disks and people do to files, not what an enemy with the disk in hand could.
Sum sum_of(const Owner& owner, std::string_view key, std::string_view value) {
  const std::string place = packed(owner.cluster, owner.node).append(key);
  const XXH128_hash_t hash = XXH3_128bits_withSeed(value.data(), value.size(), XXH3_64bits(place.data(), place.size()));
  return {hash.low64, hash.high64};
}

std::string tail_of(const Sum& sum) { return packed(sum, kEndMark); }

std::optional<Checked> check(const Owner& owner, std::string_view key, std::string_view stored) {
  if (stored.size() < kTailBytes) return std::nullopt;
  const std::string_view value = stored.substr(0, stored.size() - kTailBytes);
  const Sum sum = sum_of(owner, key, value);
  if (stored.substr(value.size()) != tail_of(sum)) return std::nullopt;
  return Checked{value, sum};
}

}  // namespace zz::agreement::stored
