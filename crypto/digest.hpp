#pragma once

// SHA-256 (OpenSSL) over named, fixed-width fields. Any thread; one DigestWriter belongs to one thread.
//
// Every digest starts with a domain string, and variable-length fields carry their length, so two different
// field lists never hash the same bytes.

#include <cstdint>
#include <string_view>

#include "base/bytes.hpp"
#include "base/ids.hpp"

namespace zz::crypto {

Digest sha256(ByteView bytes);

class DigestWriter {
 public:
  explicit DigestWriter(std::string_view domain);
  ~DigestWriter();
  DigestWriter(const DigestWriter&) = delete;
  DigestWriter& operator=(const DigestWriter&) = delete;

  DigestWriter& u64(std::uint64_t value);     // 8 bytes, little-endian
  DigestWriter& bytes(ByteView value);        // u64 length, then the bytes
  DigestWriter& digest(const Digest& value);  // 32 bytes
  template <class Tag, class Rep>
  DigestWriter& id(const Strong<Tag, Rep>& value) {
    return u64(static_cast<std::uint64_t>(value.value));
  }
  // May be called once.
  [[nodiscard]] Digest finish();

 private:
  void put(const void* data, std::size_t size);
  std::array<std::uint8_t, 512> buffer_;  // small digests take one call into the library
  std::size_t used_ = 0;
  void* context_ = nullptr;  // EVP_MD_CTX, made when the buffer overflows
};

}  // namespace zz::crypto
