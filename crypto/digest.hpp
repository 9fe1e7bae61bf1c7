#pragma once

// SHA-256 (OpenSSL) over named, fixed-width fields. Any thread; one DigestWriter belongs to one thread.
//
// Every digest starts with a domain string, and variable-length fields carry their length, so two different
// field lists never hash the same bytes.

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/bytes.hpp"
#include "base/ids.hpp"

struct SHA256state_st;  // of OpenSSL

namespace zz::crypto {

Digest sha256(ByteView bytes);

class DigestWriter {
 public:
  explicit DigestWriter(std::string_view domain);
  ~DigestWriter();
  DigestWriter(const DigestWriter&) = delete;
  DigestWriter& operator=(const DigestWriter&) = delete;

  // 8 bytes, little-endian.
  DigestWriter& u64(std::uint64_t value) {
    std::uint8_t raw[8];
    for (int i = 0; i < 8; ++i) raw[i] = static_cast<std::uint8_t>(value >> (8 * i));
    put(raw, sizeof raw);
    return *this;
  }
  // u64 length, then the bytes.
  DigestWriter& bytes(ByteView value) {
    u64(value.size());
    put(value.data(), value.size());
    return *this;
  }
  // 32 bytes.
  DigestWriter& digest(const Digest& value) {
    put(value.bytes.data(), value.bytes.size());
    return *this;
  }
  template <class Tag, class Rep>
  DigestWriter& id(const Strong<Tag, Rep>& value) {
    return u64(static_cast<std::uint64_t>(value.value));
  }
  // May be called once.
  [[nodiscard]] Digest finish();

 private:
  void put(const void* data, std::size_t size) {
    if (size > buffer_.size() - used_) return overflow(data, size);
    if (size == 0) return;  // an empty view may carry no pointer
    std::memcpy(buffer_.data() + used_, data, size);
    used_ += size;
  }
  void overflow(const void* data, std::size_t size);
  std::array<std::uint8_t, 512> buffer_;  // small digests take one call into the library
  std::size_t used_ = 0;
  std::unique_ptr<SHA256state_st> context_;  // made when the buffer overflows
};

}  // namespace zz::crypto
