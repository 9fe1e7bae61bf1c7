#pragma once

// Byte vocabulary.
//
// Bytes        a growable owned buffer
// ByteView     a borrowed read-only view
// SharedBytes  an immutable slice of a shared buffer: copying shares, slicing never copies. The buffer lives as
//              long as any slice of it, so a small slice pins its whole frame; copy() what must outlive a
//              frame for long. Safe to read from any thread; one SharedBytes object belongs to one thread at
//              a time.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/assert.hpp"

namespace zz {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

class SharedBytes {
 public:
  SharedBytes() = default;
  // Takes ownership of `owned`.
  explicit SharedBytes(Bytes owned)
      : owner_(std::make_shared<const Bytes>(std::move(owned))),
        view_(*std::static_pointer_cast<const Bytes>(owner_)) {}
  // A view into anything `owner` keeps alive.
  SharedBytes(std::shared_ptr<const void> owner, ByteView view) : owner_(std::move(owner)), view_(view) {}
  static SharedBytes copy(ByteView view) { return SharedBytes(Bytes(view.begin(), view.end())); }
  static SharedBytes copy(std::string_view text) { return copy(as_bytes(text)); }

  [[nodiscard]] ByteView view() const { return view_; }
  [[nodiscard]] std::string_view text() const { return as_text(view_); }
  [[nodiscard]] const std::uint8_t* data() const { return view_.data(); }
  [[nodiscard]] std::size_t size() const { return view_.size(); }
  [[nodiscard]] bool empty() const { return view_.empty(); }
  // Requires offset + length <= size().
  [[nodiscard]] SharedBytes slice(std::size_t offset, std::size_t length) const {
    ZZ_ASSERT(offset <= size() && length <= size() - offset);
    return SharedBytes(owner_, view_.subspan(offset, length));
  }
  friend bool operator==(const SharedBytes& a, const SharedBytes& b) { return a.text() == b.text(); }

 private:
  std::shared_ptr<const void> owner_;
  ByteView view_;
};

// Lower-case hexadecimal of `bytes`.
inline std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::uint8_t b : bytes) {
    out.push_back(kDigits[b >> 4]);
    out.push_back(kDigits[b & 15]);
  }
  return out;
}

// Decodes exactly `out.size()` bytes of lower- or upper-case hexadecimal; false when `text` is anything else.
inline bool from_hex(std::string_view text, std::span<std::uint8_t> out) {
  if (text.size() != out.size() * 2) return false;
  const auto nibble = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = nibble(text[2 * i]);
    const int low = nibble(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

}  // namespace zz
